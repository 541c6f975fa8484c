"""What a run has to do: the jobs of every stage, with how much each does, and what its rate depends on."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from darkroom.benchmarks.table import read_prompts
from darkroom.config import Project
from darkroom.draw.chunks import chunk_size
from darkroom.draw.stage import MODELS
from darkroom.metrics.embeddings import asked_features
from darkroom.metrics.extracted import REAL, Asked
from darkroom.metrics.table import METRICS, split_by_applicability
from darkroom.scorers.table import SCORERS
from darkroom.stages import stage_settings
from darkroom.store import sha256_json

# Units of a job, and the number of such jobs.
Sizes = tuple[tuple[float, int], ...]
# What a stage leaves on the disk, and what a training does beside its model.
FILES, CHECKPOINTS = "files", "checkpoints"
# How many rows pass the filter, and of these how many reach the cache: observed as work, as rates are.
KEPT, CACHED = "kept", "cached"
START, STEPS, BESIDE = "train_run start", "train_run steps", "train_run beside"
# Where the training is judged on the way: the job that writes what the legs have trained.
AFTER_LEGS = "train_run after legs"
SHARES = {KEPT, CACHED}
# What has units alone, and no start of its own.
PROPORTIONAL = {STEPS, BESIDE, *SHARES}
# Stages that a stage's rate depends on by their settings, beside the names of its work.
_BASIS = {
    "download": ("download",),
    "score": ("download",),
    "filter": ("download", "filter"),
    "recaption": ("download", "recaption"),
    "rewrite": ("recaption", "rewrite"),
    "bucket": ("download", "bucket"),
    "cache": ("download", "bucket", "cache"),
    "train": ("bucket", "cache", "train"),
    "watch": ("train", "draw", "watch"),
    "draw": ("train", "draw"),
    "measure": ("draw",),
    "evaluate": ("evaluate",),
    "report": (),
}
# Options that say how much is done, or how well it goes, and not how long a unit takes.
_SIZES = {
    "rows_per_part", "num_steps", "num_warmup_steps", "num_decay_steps", "initial_run", "carry_optimizer",
    "checkpoint_every_steps", "sample_every_steps", "sample_prompts", "log_every_steps", "skip_steps", "seed",
    "learning_rate", "muon_learning_rate", "min_learning_rate", "learning_rate_decay", "warmup_shape",
    "weight_decay", "ema_decay", "max_prompts", "prompts", "prompts_per_chunk", "num_reference_pictures",
    "pictures_per_job", "every_steps", "patience", "description",
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """Jobs of one kind.

    Attributes:
        stage: whose they are.
        name: the rule, and of what; see `observe`.
        key: digest of the settings that the rate depends on.
        sizes: how much they do.
        threads: of a job.
    """

    stage: str
    name: str
    key: str
    sizes: Sizes
    threads: int = 1

    @property
    def rule(self) -> str:
        """The rule that makes them; that of `files` and such is no rule."""
        return self.name.partition(" ")[0]


@dataclass(frozen=True)
class Amounts:
    """Of a dataset: its rows, the share of them that is kept, and of those the share that reaches the cache."""

    rows: int
    kept: float = 1.0
    cached: float = 1.0


def key_of(of: Project, stage: str, name: str = "") -> str:
    """Digest of what the rate of a work depends on: settings, but no sizes, and the versions of the code.

    name: the scorer, metric or extractor, for the stages that have several.
    """
    basis: dict[str, Any] = {above: stage_settings(of, above) for above in _of_one(of, stage)}
    if stage == "score" and name:
        basis["scorer"] = [name, of.dataset.scorers.listed()[name].model_dump(mode="json")]
    if stage == "measure" and name in METRICS:
        basis["metric"] = [name, of.run.measure.chosen[name].model_dump(mode="json")]
    return sha256_json(_without_sizes(basis))[:16]


def _of_one(of: Project, stage: str) -> Iterator[str]:
    """Of a run on several datasets, the stages of each are left out."""
    for above in _BASIS[stage]:
        if above not in ("download", "recaption") or len(of.datasets) == 1:
            yield above


def _without_sizes(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _without_sizes(value) for key, value in values.items() if key not in _SIZES}
    return [_without_sizes(value) for value in values] if isinstance(values, list | tuple) else values


def works(of: Project, stage: str, amounts: Mapping[str, Amounts]) -> list[Work]:
    """The jobs of one stage, of the run or of one of its datasets (see `stages.members`).

    amounts: name of a dataset -> how many pictures there are.

    Raises:
        ValueError: the prompts cannot be read.
    """
    made = {
        "score": _score, "train": _train, "watch": _watch, "draw": _draw, "measure": _measure,
        "evaluate": _evaluate, "report": _evaluate,
    }.get(stage, _parts)  # fmt: skip
    return list(made(of, stage, amounts))


def drawn_pictures(of: Project, max_prompts: int = 0) -> int:
    """Pictures that are drawn of one model."""
    draw = of.run.draw
    return len(read_prompts(draw.prompts, max_prompts or draw.max_prompts)) * draw.num_pictures_per_prompt


def cut(total: float, size: float) -> Sizes:
    """`total` units in jobs of `size`, the last one smaller; one job at least."""
    whole = int(total // size)
    rest = total - whole * size
    return (*[(float(size), whole)] * bool(whole), *[(float(rest), 1)] * bool(rest or not whole))


def _scaled(sizes: Sizes, share: float) -> Sizes:
    return tuple((units * share, number) for units, number in sizes)


def _parts(of: Project, stage: str, amounts: Mapping[str, Amounts]) -> Iterator[Work]:
    here, key = amounts[of.dataset_name], key_of(of, stage)
    parts = cut(here.rows, of.dataset.rows_per_part)
    share = {"download": 1.0, "filter": 1.0, "cache": here.kept * here.cached}.get(stage, here.kept)
    if stage == "download":
        yield Work(stage, "urls", key, ((float(here.rows), 1),))
    if stage == "cache":
        yield Work(stage, "cache_null", key, ((0.0, 1),))
    yield Work(stage, f"{stage}_part", key, _scaled(parts, share))
    yield Work(stage, FILES, key, ((here.rows * share, 1),))


def _score(of: Project, stage: str, amounts: Mapping[str, Amounts]) -> Iterator[Work]:
    rows = amounts[of.dataset_name].rows
    for name in of.dataset.scorers.listed():
        key = key_of(of, stage, name)
        if SCORERS[name].reads == "dataset":
            yield Work(stage, f"score_dataset {name}", key, ((float(rows), 1),), threads=2)
        else:
            yield Work(stage, f"score_part {name}", key, cut(rows, of.dataset.rows_per_part))
        yield Work(stage, f"{FILES} {name}", key, ((float(rows), 1),))
    yield Work(stage, FILES, key_of(of, stage), ((0.0, 1),))


def _train(of: Project, stage: str, amounts: Mapping[str, Amounts]) -> Iterator[Work]:
    settings, key, threads = of.run.train, key_of(of, stage), of.run.train.num_threads or 2
    if of.run.watch is None:
        samples = float(settings.num_steps * settings.global_batch_size)
        pauses = float(settings.num_steps // settings.checkpoint_every_steps + 1)
        yield Work(stage, START, key, ((0.0, 1),), threads)
        yield Work(stage, STEPS, key, ((samples, 1),), threads)
        yield Work(stage, BESIDE, key, ((pauses, 1),), threads)
    else:
        yield Work(stage, AFTER_LEGS, key, ((0.0, 1),), threads)
    yield Work(stage, FILES, key, ((float(settings.num_steps), 1),))
    yield Work(stage, CHECKPOINTS, key, ((0.0, 1),))


def _watch(of: Project, stage: str, amounts: Mapping[str, Amounts]) -> Iterator[Work]:
    watch, key = of.run.watch, key_of(of, stage)
    assert watch is not None
    steps = watch.steps(of.run.train.num_steps)
    lengths = [later - before for before, later in zip([0, *steps], steps, strict=False)]
    samples = tuple((float(n * of.run.train.global_batch_size), lengths.count(n)) for n in sorted({*lengths}))
    pictures = float(drawn_pictures(of, watch.draw(of.run.draw).max_prompts))
    yield Work(stage, "train_leg", key, samples, of.run.train.num_threads or 2)
    yield Work(stage, "watch_step", key, ((pictures, len(steps)),), of.run.draw.num_threads or 2)
    yield Work(stage, FILES, key, ((float(len(steps)), 1),))


def _draw(of: Project, stage: str, amounts: Mapping[str, Amounts]) -> Iterator[Work]:
    draw, key, pictures = of.run.draw, key_of(of, stage), drawn_pictures(of)
    size = chunk_size(draw) * draw.num_pictures_per_prompt
    chunks = tuple((units, number * len(MODELS)) for units, number in cut(pictures, size))
    yield Work(stage, "draw_chunk", key, chunks, draw.num_threads or 2)
    yield Work(stage, FILES, key, ((float(pictures * len(MODELS)), 1),))


def _measure(of: Project, stage: str, amounts: Mapping[str, Amounts]) -> Iterator[Work]:
    pictures, key = drawn_pictures(of), key_of(of, stage)
    for one in asked_of(of).values():
        spans = one.spans(one.number or pictures, of.run.measure.pictures_per_job)
        sizes = tuple((float(len(span)), 1) for span in spans)
        yield Work(stage, features_work(of, one), features_key(of, one), sizes, threads=2)
    for name in measured_metrics(of):
        yield Work(
            stage, f"measure_metric {name}", key_of(of, stage, name), ((float(2 * pictures), 1),), threads=2
        )
    yield Work(stage, FILES, key, ((float(2 * pictures), 1),))


def measured_metrics(of: Project) -> list[str]:
    """The metrics that say something of the run's prompts."""
    records = read_prompts(of.run.draw.prompts, of.run.draw.max_prompts)
    return split_by_applicability(of.run.measure.chosen, records)[0]


def asked_of(of: Project) -> dict[str, Asked]:
    """The features that these ask for: how their files' names begin -> what is asked."""
    return {
        one.name(of.component(one.extractor.component)): one
        for name in measured_metrics(of)
        for one in asked_features(of.run.measure.chosen[name], METRICS[name].references, MODELS)
    }


def features_key(of: Project, asked: Asked) -> str:
    """Real pictures do not depend on what is drawn, and runs on one cache share them."""
    return key_of(of, "measure") if asked.of != REAL else sha256_json(REAL)[:16]


def features_work(of: Project, asked: Asked) -> str:
    """What the work of features is called: by what makes them, of real pictures apart from drawn ones."""
    component = of.component(asked.extractor.component).model_dump(mode="json")
    digest = sha256_json([asdict(asked.extractor), component])[:8]
    return f"{'measure_references' if asked.of == REAL else 'measure_features'} {digest}"


def _evaluate(of: Project, stage: str, amounts: Mapping[str, Amounts]) -> Iterator[Work]:
    pictures, key = float(2 * drawn_pictures(of)), key_of(of, stage)
    rule = "evaluate_run" if stage == "evaluate" else "report_run"
    yield Work(stage, rule, key, ((pictures, 1),))
    yield Work(stage, FILES, key, ((pictures, 1),))
