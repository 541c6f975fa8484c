"""What captioners keep beside a part until it is finished."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def scratch_folder(out: str | Path) -> Path:
    """Where a captioner keeps things of a part until it is finished."""
    return Path(out).parent / f".{Path(out).stem}.captions"


def forget(out: str | Path, counts: Mapping[str, Any]) -> None:
    """Remove what a captioner kept of a part that is finished, with these counts.

    It stays where captions failed: made again, the part asks for these alone.
    """
    of_fallbacks = [told for told in counts.values() if isinstance(told, Mapping)]
    if not counts.get("failed") and not any(told.get("failed") for told in of_fallbacks):
        shutil.rmtree(scratch_folder(out), ignore_errors=True)
