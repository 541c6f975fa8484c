"""The legs of a training that is judged on the way: where one ends, and whether the next one is worth it."""

from collections.abc import Sequence
from pathlib import Path

from darkroom.config.watch import Watch
from darkroom.settings.json_texts import read_json
from darkroom.store import replacing, write_json
from darkroom.watch.judged import is_enough, read_judged

_MARK = "stopped.json"


def step_of(name: str) -> int:
    """The step that a leg ends at, from the name of its folder, `step-00001000`."""
    return int(name.removeprefix("step-"))


def stopped_after(leg: str | Path) -> int | None:
    """The step after which a training had stopped when this leg should have begun; None for one that trained."""
    mark = Path(leg) / _MARK
    return int(read_json(mark.read_text())["after"]) if mark.exists() else None


def stops_after(watch: Watch, before: str | Path | None, judged: Sequence[str | Path]) -> int | None:
    """The step after which a training stops, rather than begin another leg; None where it goes on.

    Args:
        before: the folder of the leg before; None for the first.
        judged: scores of the steps up to the one before that, in order. The last leg is judged while this one
            trains, so a training goes on for one leg more than it would if it waited.
    """
    if before is None:
        return None
    if (stopped := stopped_after(before)) is not None:
        return stopped
    enough = is_enough(read_judged(judged), watch.best, watch.patience)
    return step_of(Path(before).name) if enough else None


def mark_stopped(leg: str | Path, after: int) -> None:
    """Write the folder of a leg that does not train."""
    with replacing(leg) as beside:
        beside.mkdir()
        write_json(beside / _MARK, {"after": after})
