"""Manifests: what a stage made, from what, with which settings; each names the digest of the last.

A part job leaves a part manifest `part-00000.json` (hashes of its files, counts). The stage's
`manifest.json` gathers them with the stage's parameters and the digests of the upstream manifests.
Paths inside are relative to the manifest's folder, so manifests do not depend on where they lie.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darkroom.store.atomic import write_json
from darkroom.store.digest import sha256_path


def write_part_manifest(
    path: str | Path, files: Sequence[str | Path], counts: Mapping[str, int | dict[str, int]]
) -> None:
    """Write the manifest of one part: the hash of each of `files`, and `counts` in and out."""
    write_json(path, {"files": _hashes(Path(path).parent, files), "counts": dict(counts)})


def write_manifest(
    path: str | Path,
    *,
    stage: str,
    params: Mapping[str, Any],
    upstream: Mapping[str, str | Path] | None = None,
    part_manifests: Sequence[str | Path] = (),
    files: Sequence[str | Path] = (),
    counts: Mapping[str, int | dict[str, int]] | None = None,
) -> dict[str, Any]:
    """Write a stage's manifest and return it.

    Counts of the parts are added up; `counts` adds the stage's own.
    """
    merged = _hashes(Path(path).parent, files)
    total: dict[str, Any] = {}
    for part in sorted(part_manifests):
        body = json.loads(Path(part).read_text())
        merged.update(body["files"])
        _add(total, body["counts"])
    _add(total, counts or {})
    body = {
        "stage": stage,
        "params": dict(params),
        "upstream": {name: sha256_path(p) for name, p in sorted((upstream or {}).items())},
        "files": merged,
        "counts": total,
    }
    write_json(path, body)
    return body


def read_manifest(path: str | Path) -> dict[str, Any]:
    """A stage's manifest as a dict."""
    body: dict[str, Any] = json.loads(Path(path).read_text())
    return body


def verify_manifest(path: str | Path, upstream: Mapping[str, str | Path] | None = None) -> list[str]:
    """What is wrong with the files that a manifest names: one sentence each, [] when all is well.

    `upstream` maps the names of the upstream manifests to where they lie now.
    """
    body, folder = read_manifest(path), Path(path).parent
    wrong = []
    for name, digest in body["files"].items():
        if not (folder / name).exists():
            wrong.append(f"{folder / name}: missing")
        elif sha256_path(folder / name) != digest:
            wrong.append(f"{folder / name}: changed since {path} was written")
    for name, where in (upstream or {}).items():
        if body["upstream"].get(name) != sha256_path(where):
            wrong.append(f"{path}: was made from another {name} than {where}")
    return wrong


def check_newest_files(path: str | Path, seconds: float = 20.0) -> int:
    """Compare the files that a manifest names with their digests, the newest first, for `seconds` at most.

    A file that was damaged since then is among the newest; to hash all of a large stage before each job
    that reads it would take hours (`verify_manifest` does). Returns how many were looked at.

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


def _hashes(folder: Path, files: Sequence[str | Path]) -> dict[str, str]:
    return {Path(os.path.relpath(f, folder)).as_posix(): sha256_path(f) for f in sorted(map(str, files))}


def _add(total: dict[str, Any], counts: Mapping[str, Any]) -> None:
    for name, value in counts.items():
        if isinstance(value, dict):
            _add(total.setdefault(name, {}), value)
        else:
            total[name] = total.get(name, 0) + value
