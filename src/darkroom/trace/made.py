"""What the stages made from a row of a download's table: scores, captions, latents, trainings, measurements."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.store import read_manifest, sha256_file
from darkroom.store.captions import DROPPED
from darkroom.trace.rows import Found

CACHES, RUNS, CHECKPOINTS = Path("results/caches"), Path("results/runs"), Path("checkpoints")
MANIFEST = "manifest.json"
_NUM_REFERENCES = "num_reference_pictures"


@dataclass
class Uses:
    """Which runs used a row.

    Attributes:
        trained: run -> how: its cache holds it, or it goes on from a run whose does.
        unknown: runs that were trained on another state of a cache than lies here, so that nobody knows.
        measured: run -> the metrics that compare with it as a real picture.
    """

    trained: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    measured: dict[str, list[str]] = field(default_factory=dict)


def stage_lines(found: Found) -> Iterator[str]:
    """What the stages of the dataset made of it, a line each."""
    folder, row = found.table.parent.parent, found.row
    scores: dict[str, Any] = {}
    for path in sorted((folder / "score").glob("*.parquet")):
        if path.stem.partition(".")[0] in (found.part, path.stem):
            scores |= _own(path, row)
    if scores:
        yield f"scores: {_told(scores)}"
    selected = _own(folder / "filter" / found.table.name, row)
    if selected:
        yield (
            "kept by the filter"
            if selected["kept"]
            else f"dropped by the filter: {selected['first_failure']}"
        )
    for stage in ("recaption", "rewrite"):
        captions = _own(folder / stage / found.table.name, row)
        for name, text in captions.items():
            if name.startswith("caption_") and text:
                yield f"{name.replace('_', ', ', 1)}: {text}"
        if captions.get(DROPPED):
            yield f"dropped for its captions by the gate {captions[DROPPED]}"


def cache_lines(found: Found, root: Path = Path()) -> Iterator[str]:
    """Where caches hold it, a line each."""
    for cache in sorted((root / CACHES).glob("*")):
        place = _own(cache / "bucket" / found.table.name, found.row)
        if place:
            shape = f"bucket {place['bucket_width']}x{place['bucket_height']}"
            yield f"cache {cache.name}: {f'dropped: {reason}' if (reason := place['dropped']) else shape}"
        held = _held(cache, found)
        if held is not None:
            shard = cache / "cache" / f"{found.part}.safetensors"
            yield f"cache {cache.name}: row {held} of {shard}"


def uses(found: Found, root: Path = Path()) -> Uses:
    """The runs that were trained on it or are compared with it, as the manifests tell."""
    made, caches = Uses(), sorted((root / CACHES).glob("*"))
    digests = {name: _digests(caches, name) for name in ("cache", "bucket")}
    holding = {digest for cache, digest in digests["cache"].items() if _held(cache, found) is not None}
    trained: dict[str, tuple[str, Mapping[str, str]]] = {}
    for path in sorted((root / RUNS).glob(f"*/train/{MANIFEST}")):
        trained[path.parts[-3]] = sha256_file(path), read_manifest(path)["upstream"]
    for run, (_, upstream) in trained.items():
        above = {digest for name, digest in upstream.items() if name != "initial"}
        if above & holding:
            made.trained[run] = "trained on it"
        elif above - set(digests["cache"].values()):
            made.unknown.append(run)
    _add_phases(made, trained)
    for path in sorted((root / RUNS).glob(f"*/measure/{MANIFEST}")):
        body = read_manifest(path)
        for cache, digest in digests["bucket"].items():
            if digest in body["upstream"].values():
                metrics = _metrics_with(found, cache, body["params"].get("measure", {}))
                made.measured.update({path.parts[-3]: metrics} if metrics else {})
    return made


def run_lines(made: Uses, root: Path = Path()) -> Iterator[str]:
    """What the runs made of it, a line each."""
    for run, how in made.trained.items():
        places = [
            path for path in (root / RUNS / run / "train/model", root / CHECKPOINTS / run) if path.exists()
        ]
        published = root / "published/runs" / run
        places += [published] if published.exists() else []
        yield f"run {run}: {how}: {', '.join(map(str, places))}"
    for run, metrics in made.measured.items():
        yield f"run {run}: among the real pictures of {', '.join(metrics)}"
    for run in made.unknown:
        yield f"run {run}: was trained on another cache than any that lies here, and may have seen it"


def _add_phases(made: Uses, trained: Mapping[str, tuple[str, Mapping[str, str]]]) -> None:
    """A run that goes on from one that was trained on it was trained on it too."""
    while True:
        before = {trained[run][0]: run for run in made.trained}
        more = {
            run: f"goes on from {before[upstream['initial']]}, which was trained on it"
            for run, (_, upstream) in trained.items()
            if run not in made.trained and upstream.get("initial") in before
        }
        if not more:
            return
        made.trained.update(more)
        made.unknown[:] = [run for run in made.unknown if run not in more]


def _metrics_with(found: Found, cache: Path, metrics: Mapping[str, Any]) -> list[str]:
    """The metrics whose real pictures, the first by uid that have a bucket, hold it."""
    numbers = {
        name: options[_NUM_REFERENCES]
        for name, options in metrics.items()
        if isinstance(options, dict) and _NUM_REFERENCES in options
    }
    if not numbers or not _own(cache / "bucket" / found.table.name, found.row):
        return []
    tables = sorted((cache / "bucket").glob("*.parquet"))
    places = pl.concat([pl.read_parquet(path, columns=["uid", "row", "bucket_width"]) for path in tables])
    ordered = places.drop_nulls().sort("uid", "row").select("uid", "row").rows()
    key = found.row["uid"], found.row["row"]
    return [name for name, number in numbers.items() if key in ordered[:number]]


def _held(cache: Path, found: Found) -> int | None:
    """The row of a cache's shard that holds it."""
    path = cache / "cache" / found.table.name
    if not path.is_file():
        return None
    table = pl.read_parquet(path, columns=["uid", "row"])
    places = table.select(
        ((pl.col("uid") == found.row["uid"]) & (pl.col("row") == found.row["row"])).arg_true()
    )
    return int(places.item(0, 0)) if len(places) else None


def _digests(caches: list[Path], stage: str) -> dict[Path, str]:
    """Cache -> the digest of a stage's manifest, of those that have one."""
    paths = {cache: cache / stage / MANIFEST for cache in caches}
    return {cache: sha256_file(path) for cache, path in paths.items() if path.is_file()}


def _own(path: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a stage's table has of a row, without the keys; none where the table is not there."""
    if not path.is_file():
        return {}
    same = (pl.col("uid") == row["uid"]) & (pl.col("row") == row["row"])
    found = pl.scan_parquet(path).filter(same).collect().to_dicts()
    return {name: value for name, value in found[0].items() if name not in ("uid", "row")} if found else {}


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )
