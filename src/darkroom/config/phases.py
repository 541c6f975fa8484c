"""What a run and the run that it goes on from (`train.initial_run`) must have in common."""

from darkroom.config.run import Run


def _named(run: Run) -> str:
    several = len(run.dataset_names) > 1
    return f"the dataset{'s' if several else ''} {', '.join(run.dataset_names)}"


def check_phase(name: str, run: Run, before: Run) -> None:
    """Refuse a phase that cannot go on from the run `name`, whose options are `before`.

    Raises:
        ValueError: names the key and what would be right.
    """
    where = f"train.initial_run: {name!r}"
    if before.bucket.resolution_px > run.bucket.resolution_px:
        raise ValueError(
            f"{where} trains at {before.bucket.resolution_px} px and this run at {run.bucket.resolution_px} px;"
            " phases go from small to large: turn them round, or write a larger bucket.resolution_px"
        )
    if before.dataset != run.dataset:
        theirs = f"dataset: {before.dataset}" if before.dataset else "datasets: as that run has them"
        raise ValueError(f"{where} has {_named(before)}; write {theirs}")
    if before.datasets != run.datasets:
        raise ValueError(
            f"{where} has other datasets, weights or repeats than this run; the batches of a phase go on where"
            " those of the one before end, so write datasets: as that run has them"
        )
    if run.model.family != before.model.family:
        raise ValueError(
            f"{where} trains a {before.model.family} and this run a {run.model.family}; write model.family:"
            f" {before.model.family}, or another initial_run"
        )
    for section in ("model", "cache"):
        mine, theirs = (getattr(r, section) for r in (run, before))
        free = run.model.free if section == "model" else {"batch_size", "dtype", "online"}
        for key in sorted({*type(mine).model_fields} - free):
            here, there = getattr(mine, key), getattr(theirs, key)
            if here != there:
                raise ValueError(
                    f"{where} has {section}.{key}: {there} and this run {here}; weights go on from one phase to"
                    f" the next only where both have the same: write it so, or another initial_run"
                )
    for key in ("prediction", "schedule"):
        mine, theirs = (getattr(r.train.objective, key) for r in (run, before))
        if mine != theirs:
            raise ValueError(
                f"{where} learns {key} {theirs} and this run {mine}; write train.objective.{key}: {theirs}"
            )
    if run.train.carry_optimizer and run.train.optimizer != before.train.optimizer:
        raise ValueError(
            f"{where} has the optimizer {before.train.optimizer}, whose moments mean nothing to"
            f" {run.train.optimizer}; write train.carry_optimizer: false"
        )
