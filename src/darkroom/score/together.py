"""Jobs of one part's scorers that share one run through its pictures.

Each scorer has a job and a file of its own, so that it scores again for its own reasons alone. Where several of a
part have to score, the driver has the others wait for one of them, and notes beside its file what they are asked;
that one scores for all, and the others only put in place what lies ready for them. What is not ready, for whatever
reason, a scorer's job scores itself.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from darkroom import store
from darkroom.components.base import Component
from darkroom.score.stage import Asked, Scored, score_in_one_pass, score_part

# In the folder of scores; neither git nor DVC nor a manifest knows it.
FOLDER = ".together"


def clear(scores: str | Path) -> None:
    """Forget what was noted and made ready in a folder of scores."""
    shutil.rmtree(Path(scores, FOLDER), ignore_errors=True)


def note(first: str | Path, others: Mapping[str, Mapping[str, Any]]) -> None:
    """Note that a scorer's job scores for others of its part too.

    Args:
        first: the file of columns that it makes.
        others: that file of each other scorer -> what its job has as `scorer`, `options`, `components`,
            `references` (files) and `made_with`, plain values.
    """
    store.write_json(_note_of(Path(first)), {Path(path).name: dict(asked) for path, asked in others.items()})


def asked_of(out: str | Path, said: Mapping[str, Any]) -> Asked:
    """What a job, or a note of it, says of a scorer."""
    components = {name: Component(**values) for name, values in said["components"].items()}
    references = {Path(path).stem: Path(path) for path in said["references"]}
    return Asked(said["scorer"], said["options"], Path(out), said["made_with"], components, references)


def score_for_all(asked: Asked, table: str | Path, tar: str | Path | None) -> None:
    """Make a scorer's file of a part and its manifest: take what lies ready, or score, for others too if noted.

    Raises:
        As `score_part`. What goes wrong with another scorer is printed; its own job will meet it too.
    """
    others = _others(asked.out)
    if _take(asked):
        return
    if not others or tar is None:
        given = asked.components, asked.references
        _write(asked, score_part(asked.scorer, asked.options, table, tar, asked.out, *given))
        return
    for one, scored in zip([*others, asked], score_in_one_pass([*others, asked], table, tar), strict=True):
        if not isinstance(scored, Exception):
            _write(one, scored)
        elif one is asked:
            raise scored
        else:
            print(f"{one.scorer}: not scored together with {asked.scorer}: {scored}")


def _write(asked: Asked, scored: Scored) -> None:
    store.write_part_manifest(asked.manifest, [asked.out], scored.counts, asked.made_with, scored.judges)


def _note_of(out: Path) -> Path:
    return out.parent / FOLDER / f"{out.stem}.others.json"


def _others(out: Path) -> Sequence[Asked]:
    try:
        noted = json.loads(_note_of(out).read_bytes())
    except FileNotFoundError:
        return ()
    return [asked_of(out.parent / FOLDER / name, said) for name, said in noted.items()]


def _take(asked: Asked) -> bool:
    """Put in place what another job has made ready, if that is whole and was asked the same."""
    ready = replace(asked, out=asked.out.parent / FOLDER / asked.out.name)
    try:
        body = store.read_manifest(ready.manifest)
        is_it = body["settings"] == asked.made_with
        if not is_it or body["files"] != {ready.out.name: store.sha256_file(ready.out)}:
            return False
    except FileNotFoundError:
        return False
    print(f"{asked.scorer}: another job of this part has scored for it, in one run through the pictures")
    os.replace(ready.out, asked.out)
    os.replace(ready.manifest, asked.manifest)
    return True
