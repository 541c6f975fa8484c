"""Which parts of a list what is added behind them cannot change.

What a scorer of a whole dataset says of a part, its own rows and those before it decide: whether an earlier row is
the same picture, for instance. So where a list grows, that stays for the parts that were there, although the
scorer's file is new, and all that was made from these parts stays too. Snakemake, which goes by times, would make
it all again.

At the end of a run that had all parts of a dataset the driver notes what they were made from. The next plan counts
the parts at the beginning that are still made from that.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darkroom.store import write_json

FOLDER = Path(".snakemake/darkroom/settled")


def note(dataset: str, made_with: str, parts: Sequence[str]) -> None:
    """Note that the parts of a dataset are there.

    Args:
        made_with: digest of what else than its rows decides what a part and its scores are.
        parts: of each part of the list, the digest of its rows and pictures.
    """
    write_json(FOLDER / f"{dataset}.json", {"made_with": made_with, "parts": list(parts)})


def num_settled(
    dataset: str, made_with: str, parts: Sequence[str], files: Sequence[tuple[Path, Path]]
) -> int:
    """How many parts at the beginning nothing has changed, which are newer than all that decides them.

    Args:
        made_with, parts: as `note` has them, of now.
        files: of each part, its table of the download and the file that is to stay.
    """
    noted = _noted(FOLDER / f"{dataset}.json")
    if noted.get("made_with") != made_with:
        return 0
    newest = 0
    for number, (now, then) in enumerate(zip(parts, noted["parts"], strict=False)):
        table, kept = files[number]
        if now != then or not table.exists() or not kept.exists():
            return number
        newest = max(newest, table.stat().st_mtime_ns)
        if kept.stat().st_mtime_ns < newest:
            return number
    return min(len(parts), len(noted["parts"]))


def _noted(path: Path) -> Mapping[str, Any]:
    """What is noted; nothing where that cannot be read, and more is made than need be."""
    try:
        noted = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    is_note = isinstance(noted, dict) and isinstance(noted.get("parts"), list)
    return noted if is_note else {}
