"""The evaluate stage: pictures for held-out prompts from two models, their scores, and how sure those are.

Both models draw from the same noise, so their difference is paired picture by picture and its interval is
taken over prompts.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from darkroom.config.components import Component
from darkroom.config.run import Evaluate
from darkroom.evaluate import clip_score, detector, distances, geneval, intervals
from darkroom.evaluate.pictures import Drawer, draw_all, load_prompts, picture_path, read_pictures
from darkroom.evaluate.references import References, choose, read_references
from darkroom.evaluate.selftest import self_test
from darkroom.store import replacing, sha256_json, sha256_path, write_json, write_table

TRAINED, UNTRAINED = "trained", "untrained"

_LOG = logging.getLogger(__name__)
_DIGITS = 6


class Clip(Protocol):
    """What the evaluation needs of a CLIP."""

    def encode_images(self, pictures: Sequence[np.ndarray]) -> Any:
        """uint8 (height, width, 3) pictures of any sizes -> (pictures, dimensions)."""

    def encode_texts(self, texts: Sequence[str]) -> Any:
        """Texts -> (texts, dimensions)."""


def evaluate(
    models: Mapping[str, Path],
    settings: Evaluate,
    clip: Clip,
    identity: Mapping[str, str],
    references: References,
    metrics: Path,
    prompts: Path,
    pictures: Path,
    work: Path,
) -> dict[str, Any]:
    """Draw, judge and compare; write metrics.json, prompts.parquet and the pictures.

    Args:
        models: "trained" -> a pipeline's folder, and perhaps "untrained" -> another one, or a
            transformer's folder alone, for which the trained pipeline lends the rest.
        settings: the run's `evaluate` section.
        clip: encoder of pictures and texts for the distances and the CLIPScore.
        identity: its `name`, `sha256` and `resize`, for the protocol (`clip_identity` gives it).
        references: where real pictures come from.
        metrics: JSON file to write: scores with intervals, differences, and the protocol they hold for.
        prompts: Parquet file to write: one row for each model, prompt and picture.
        pictures: folder to write: <model>/<00000>/samples/<0000>.png and GenEval's metadata.
        work: folder where pictures are kept until all are drawn; safe to delete, worth keeping until
            the stage is done.

    Returns:
        Counts of prompts and of pictures, by model.

    Raises:
        RuntimeError: the detector does not pass its self-test.
        ValueError: a prompt, model or reference is not what it should be.
    """
    if not set(models) <= {TRAINED, UNTRAINED} or TRAINED not in models:
        raise ValueError(f"models are {sorted(models)}; 'trained' is needed and 'untrained' may be given")
    records = load_prompts(settings)
    _LOG.info(
        "evaluate: %d prompts x %d pictures x %d models", len(records), _per_prompt(settings), len(models)
    )
    tested = self_test(
        detector.detect, detector.classify_color, settings.sampling.width_px * settings.sampling.height_px
    )
    digests = {name: sha256_path(path) for name, path in models.items()}
    folders = _draw_models(models, digests, records, settings, work)
    chosen = choose(references, settings.num_reference_pictures)
    real = _encode(clip, read_references(references, chosen), settings.batch_size)
    _LOG.info("evaluate: %d reference pictures encoded", len(real))
    tables, result = _score_all(folders, records, real, clip, settings)
    if UNTRAINED in models:
        result["difference"] = _difference(tables, result, settings)
    result["protocol"] = _protocol(settings, records, identity, len(real), tested, digests)
    _write_pictures(pictures, folders)
    write_table(prompts, pl.concat(tables.values()), sort_by=None)
    write_json(metrics, _rounded(result))
    return {
        "prompts": len(records),
        "pictures": {name: table.height for name, table in tables.items()},
        "correct": {name: int(table["correct"].sum()) for name, table in tables.items()},
    }


def _draw_models(
    models: Mapping[str, Path],
    digests: Mapping[str, str],
    records: Sequence[geneval.Record],
    settings: Evaluate,
    work: Path,
) -> dict[str, Path]:
    """Draw what is not drawn yet; returns the folder of each model's pictures."""
    folders = {name: work / name / _key(digests[name], records, settings) for name in models}
    for name, path in models.items():
        load = partial(load_drawer, path, models[TRAINED], settings)
        draw_all(folders[name], name, records, load, settings)
    return folders


def clip_identity(name: str, component: Component, clip: Any) -> dict[str, str]:
    """What tells one CLIP from another: its name in the configuration, its files and its resize."""
    from darkroom.models.components import fingerprint

    resize = f"shorter side bicubic to {clip.image_size} px, centre crop"
    return {"name": name, "sha256": fingerprint(component), "resize": resize}


def _score_all(
    folders: Mapping[str, Path],
    records: Sequence[geneval.Record],
    real: np.ndarray,
    clip: Clip,
    settings: Evaluate,
) -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
    """Per model: the table of its pictures, and its scores."""
    texts = np.asarray(clip.encode_texts([record["prompt"] for record in records]), np.float64)
    tables, scores = {}, {}
    for name, folder in folders.items():
        judged = _judge_all(name, folder, records, settings)
        features = _encode(clip, _all_pictures(folder, records, settings), settings.batch_size)
        fits = clip_score.clip_scores(features, np.repeat(texts, _per_prompt(settings), axis=0))
        tables[name] = judged.with_columns(clip_score=pl.Series(fits))
        scores[name] = _score(tables[name], real, features, settings)
        _LOG.info("evaluate: %s, GenEval overall %.3f", name, scores[name]["geneval"]["overall"])
    return tables, scores


def load_drawer(model: Path, pipeline: Path, settings: Evaluate) -> Drawer:
    """A model as a function of prompts and of the places that seed their noise.

    `model` is a pipeline's folder, or a transformer's, which then borrows the rest from `pipeline`.
    """
    import torch

    from darkroom.sample.draw import draw, picture_seed
    from darkroom.sample.export import load_pipeline

    if (model / "model_index.json").exists():
        loaded = load_pipeline(model)
    else:
        loaded = load_pipeline(pipeline, transformer=model)
    loaded.to("cuda" if torch.cuda.is_available() else "cpu")

    def drawer(prompts: Sequence[str], places: Sequence[tuple[int, int]]) -> np.ndarray:
        seeds = [picture_seed(settings.seed, prompt, picture) for prompt, picture in places]
        return draw(loaded, list(prompts), seeds, settings.sampling, batch_size=settings.batch_size)

    return drawer


def _judge_all(
    name: str, folder: Path, records: Sequence[geneval.Record], settings: Evaluate
) -> pl.DataFrame:
    """One row for each prompt and picture of a model."""
    from darkroom.sample.draw import picture_seed

    rows = []
    for index, record in enumerate(records):
        for k, picture in enumerate(read_pictures(folder, index, _per_prompt(settings))):
            found = detector.detect(picture)
            verdict = geneval.judge(picture, found, record, detector.classify_color)
            rows.append(
                {
                    "model": name,
                    "prompt_index": index,
                    "tag": record["tag"],
                    "prompt": record["prompt"],
                    "picture": k,
                    "path": f"{name}/{picture_path(index, k)}",
                    "seed": picture_seed(settings.seed, index, k),
                    "correct": verdict.correct,
                    "reason": "\n".join(verdict.reasons),
                    "detections": json.dumps([_plain(d) for d in found]),
                }
            )
    return pl.DataFrame(rows)


def _plain(detection: geneval.Detection) -> dict[str, Any]:
    return {
        "class": detection.name,
        "color": detection.color,
        "score": round(detection.score, 4),
        "box": [round(side, 2) for side in detection.box],
    }


def _score(table: pl.DataFrame, real: np.ndarray, features: np.ndarray, settings: Evaluate) -> dict[str, Any]:
    shares = geneval.summarise(table.select("tag", "correct").iter_rows())
    tasks, correct = _by_prompt(table, "correct", settings)
    _, fits = _by_prompt(table, "clip_score", settings)
    spread = intervals.bounds(_resample(tasks, correct, settings))
    fit_spread = intervals.bounds({"clip_score": _resample(tasks, fits, settings)["micro"]})
    return {
        "geneval": {**shares, **spread},
        "clip_score": float(fits.mean()),
        **fit_spread,
        "frechet_clip_distance": distances.frechet_distance(real, features),
        "kernel_clip_distance": distances.kernel_distance(real, features),
    }


def _difference(
    tables: Mapping[str, pl.DataFrame], scores: Mapping[str, dict[str, Any]], settings: Evaluate
) -> dict[str, Any]:
    """Trained minus untrained."""
    ours, theirs = scores[TRAINED], scores[UNTRAINED]
    result: dict[str, Any] = {
        name: ours[name] - theirs[name]
        for name in ("clip_score", "frechet_clip_distance", "kernel_clip_distance")
    }
    gaps = {}
    for column in ("correct", "clip_score"):
        tasks, mine = _by_prompt(tables[TRAINED], column, settings)
        gaps[column] = _resample(tasks, mine - _by_prompt(tables[UNTRAINED], column, settings)[1], settings)
    result |= intervals.bounds({"clip_score": gaps["clip_score"]["micro"]})
    names = [name for name in ours["geneval"] if not name.endswith(("_low", "_high"))]
    result["geneval"] = {name: ours["geneval"][name] - theirs["geneval"][name] for name in names}
    result["geneval"] |= intervals.bounds(gaps["correct"])
    return result


def _by_prompt(table: pl.DataFrame, column: str, settings: Evaluate) -> tuple[list[str], np.ndarray]:
    """Each prompt's task, and (prompts, pictures) values."""
    per_prompt = _per_prompt(settings)
    values = table[column].cast(pl.Float64).to_numpy().reshape(-1, per_prompt)
    return table["tag"].to_list()[::per_prompt], values


def _resample(tasks: Sequence[str], values: np.ndarray, settings: Evaluate) -> dict[str, np.ndarray]:
    return intervals.bootstrap(tasks, values, settings.num_bootstrap, settings.seed)


def _protocol(
    settings: Evaluate,
    records: Sequence[geneval.Record],
    identity: Mapping[str, str],
    num_real: int,
    tested: Mapping[str, float],
    digests: Mapping[str, str],
) -> dict[str, Any]:
    """Everything that a score depends on besides the model: scores of unequal protocols do not compare."""
    num_generated = len(records) * _per_prompt(settings)
    feature, resize = identity["name"], identity["resize"]
    rules = geneval.Rules()
    return {
        "prompts": {"name": settings.prompts, "number": len(records), "sha256": sha256_json(list(records))},
        "sampling": settings.sampling.model_dump(mode="json"),
        "seed": settings.seed,
        "pictures_per_prompt": _per_prompt(settings),
        "detector": {
            "name": detector.NAME,
            "self_test": tested["overall"],
            "threshold": rules.threshold,
            "counting_threshold": rules.counting_threshold,
        },
        "clip": dict(identity),
        "clip_score": f"100 max(cos, 0), {feature}, no prefix",
        "frechet_clip_distance": distances.distance_name("frechet", feature, resize, num_real, num_generated),
        "kernel_clip_distance": distances.distance_name("kernel", feature, resize, num_real, num_generated),
        "intervals": f"95 %, bootstrap over prompts within each task, {settings.num_bootstrap} resamples",
        "models": dict(digests),
    }


def _encode(clip: Clip, pictures: Iterable[np.ndarray], batch_size: int) -> np.ndarray:
    """Features of pictures, encoded a batch at a time: float64, (pictures, dimensions)."""
    waiting, features = iter(pictures), []
    while batch := list(islice(waiting, batch_size)):
        features.append(np.asarray(clip.encode_images(batch), np.float64))
    return np.concatenate(features)


def _all_pictures(
    folder: Path, records: Sequence[geneval.Record], settings: Evaluate
) -> Iterator[np.ndarray]:
    for index in range(len(records)):
        yield from read_pictures(folder, index, _per_prompt(settings))


def _write_pictures(pictures: Path, folders: Mapping[str, Path]) -> None:
    with replacing(pictures) as beside:
        for name, folder in folders.items():
            shutil.copytree(folder, beside / name, ignore=shutil.ignore_patterns(".*"))


def _key(model: str, records: Sequence[geneval.Record], settings: Evaluate) -> str:
    """A name for the pictures of a model under these settings: others are never taken for them."""
    drawing = settings.model_dump(
        mode="json", include={"sampling", "seed", "num_pictures_per_prompt", "batch_size"}
    )
    return sha256_json({"model": model, "records": list(records), **drawing})[:16]


def _per_prompt(settings: Evaluate) -> int:
    return settings.num_pictures_per_prompt


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, _DIGITS) if isinstance(value, float) else value
