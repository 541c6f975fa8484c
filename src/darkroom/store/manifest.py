"""Manifests: what a stage made, from what, with which settings; each names the digest of the last.

A part job leaves a part manifest `part-00000.json` (hashes of its files, counts, the digest of the settings
that it was made with). The stage's `manifest.json` gathers them with the stage's parameters, the digests of
the parts' manifests and of the upstream ones; parts made with different settings are refused.
Paths inside are relative to the manifest's folder, so manifests do not depend on where they lie.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darkroom.store.atomic import write_json
from darkroom.store.digest import sha256_file, sha256_json, sha256_path

# Of a part's counts: dtype -> how many samples were computed in it.
COMPUTED_IN = "computed_in"
# Of scores that models made: model -> its digest and how it was asked; in the stage's manifest by scorer.
JUDGES = "judges"
_NUM_NAMED = 10  # parts that an error names


def write_part_manifest(
    path: str | Path,
    files: Sequence[str | Path],
    counts: Mapping[str, int | dict[str, int]],
    settings: str,
    judges: Mapping[str, Any] | None = None,
) -> None:
    """Write the manifest of one part: the hash of each of `files`, and `counts` in and out.

    `settings` is the SHA-256 of the stage's settings (`stages.settings_digest`); `judges` are the models that a
    scorer asked.
    """
    body = {"settings": settings, "files": _hashes(Path(path).parent, files), "counts": dict(counts)}
    write_json(path, {**body, **({JUDGES: dict(judges)} if judges else {})})


def write_manifest(
    path: str | Path,
    *,
    stage: str,
    params: Mapping[str, Any],
    upstream: Mapping[str, str | Path] | None = None,
    part_manifests: Sequence[str | Path] = (),
    files: Sequence[str | Path] = (),
    counts: Mapping[str, int | dict[str, int]] | None = None,
    pages: Mapping[str, str] | None = None,
    judges: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a stage's manifest and return it.

    Counts of the parts are added up; `counts` adds the stage's own. `pages` are files that tell times: name ->
    digest of the page without these. `judges` are the models that scorers asked, by scorer.

    Raises:
        ValueError: parts were made with other settings than `params`, or computed in unlike dtypes; names them and
            what makes them again.
    """
    merged = _hashes(Path(path).parent, files)
    total: dict[str, Any] = {}
    bodies = {str(part): read_manifest(part) for part in sorted(part_manifests)}
    _refuse_mix(bodies, params, f"snakemake {stage}")
    _refuse_two_dtypes(bodies, stage)
    for body in bodies.values():
        merged.update(body["files"])
        add_counts(total, body["counts"])
    add_counts(total, counts or {})
    body = {
        "stage": stage,
        "params": dict(params),
        "upstream": {name: sha256_path(p) for name, p in sorted((upstream or {}).items())},
        "parts": {Path(os.path.relpath(p, Path(path).parent)).as_posix(): sha256_file(p) for p in bodies},
        "files": merged,
        "counts": total,
        **({"pages": dict(pages)} if pages else {}),
        **({JUDGES: dict(judges)} if judges else {}),
    }
    write_json(path, body)
    return body


def read_manifest(path: str | Path) -> dict[str, Any]:
    """A stage's or a part's manifest as a dict.

    Raises:
        ValueError: there is something else, as a disk that failed leaves it.
    """
    try:
        body = json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: no manifest ({error}); remove it, and it is made again") from None
    if not isinstance(body, dict):
        raise ValueError(f"{path}: no manifest, but a {type(body).__name__}; remove it, and it is made again")
    return body


def check_newest_files(path: str | Path, seconds: float = 20.0) -> int:
    """Compare the files that a manifest names with their digests, the newest first, for `seconds` at most.

    A file that was damaged since then is among the newest; to hash all of a large stage before each job
    that reads it would take hours (`check_stage` does). Returns how many were looked at.

    Raises:
        ValueError: one is missing or has changed; says which, and how to make it again.
    """
    body, folder, end = read_manifest(path), Path(path).parent, time.monotonic() + seconds
    remedy = f"remove it and run `snakemake {body['stage']}`"
    for name in body["files"]:
        if not (folder / name).exists():
            raise ValueError(f"{folder / name}: missing; run `snakemake {body['stage']}`")
    newest = sorted(body["files"], key=lambda name: (folder / name).stat().st_mtime_ns, reverse=True)
    for count, name in enumerate(newest, start=1):
        if sha256_path(folder / name) != body["files"][name]:
            raise ValueError(f"{folder / name}: changed since {path} was written; {remedy}")
        if time.monotonic() > end:
            return count
    return len(newest)


def _is_made_with(part: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    return part.get("settings") == sha256_json(dict(params))


def _refuse_mix(parts: Mapping[str, Mapping[str, Any]], params: Mapping[str, Any], command: str) -> None:
    others = [path for path, body in parts.items() if not _is_made_with(body, params)]
    if others:
        more = f" and {len(others) - _NUM_NAMED} more" if len(others) > _NUM_NAMED else ""
        raise ValueError(
            f"{', '.join(others[:_NUM_NAMED])}{more}: made with other settings than this stage has now;"
            f" remove {'it' if len(others) == 1 else 'them'} and run `{command}`, which makes such parts again"
        )


def _refuse_two_dtypes(parts: Mapping[str, Mapping[str, Any]], stage: str) -> None:
    """With `dtype: auto` unlike nodes choose unlike dtypes; their parts are no one result."""
    by_dtype: dict[str, list[str]] = {}
    for path, body in parts.items():
        for dtype in body["counts"].get(COMPUTED_IN, {}):
            by_dtype.setdefault(dtype, []).append(path)
    if len(by_dtype) > 1:
        fewest = min(by_dtype, key=lambda dtype: len(by_dtype[dtype]))
        numbers = ", ".join(f"{len(paths)} in {dtype}" for dtype, paths in sorted(by_dtype.items()))
        named = ", ".join(by_dtype[fewest][:_NUM_NAMED])
        more = f" and {len(by_dtype[fewest]) - _NUM_NAMED} more" if len(by_dtype[fewest]) > _NUM_NAMED else ""
        raise ValueError(
            f"the parts of {stage} were computed on unlike machines: {numbers}. Remove those in {fewest}"
            f" ({named}{more}) and run `snakemake {stage}` where it computes in the other one; or write"
            f" {stage}.dtype, which makes all parts again in that"
        )


def _hashes(folder: Path, files: Sequence[str | Path]) -> dict[str, str]:
    return {Path(os.path.relpath(f, folder)).as_posix(): sha256_path(f) for f in sorted(map(str, files))}


def add_counts(total: dict[str, Any], counts: Mapping[str, Any]) -> None:
    """Add counts, also those within counts, to `total`."""
    for name, value in counts.items():
        if isinstance(value, dict):
            add_counts(total.setdefault(name, {}), value)
        else:
            total[name] = total.get(name, 0) + value
