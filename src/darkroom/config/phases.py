"""What a run and the run that it goes on from (`train.initial_run`) must have in common."""

from darkroom.config.run import Run

# What a phase may change of its model: nothing that changes the shape or the meaning of a weight.
_FREE = {
    "position_interpolation",
    "attention",
    "checkpoint_attention",
    "checkpoint_mlp",
    "gradient_checkpointing",
}


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
        raise ValueError(f"{where} has the dataset {before.dataset}; write dataset: {before.dataset}")
    if run.model.family != before.model.family:
        raise ValueError(
            f"{where} trains a {before.model.family} and this run a {run.model.family}; write model.family:"
            f" {before.model.family}, or another initial_run"
        )
    for section in ("model", "cache"):
        mine, theirs = (getattr(r, section) for r in (run, before))
        free = _FREE if section == "model" else {"batch_size", "dtype", "online"}
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
