"""How a job is, in Snakemake's three words: `success` is said only where the job or the scheduler says so."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from darkroom.pbs import commands, records
from darkroom.pbs.commands import Seen, Unreachable
from darkroom.pbs.records import FOLDER, SILENT, Record

# What a job writes at its end may be seen late on another machine.
GRACE_S = 60.0
# As of the jobs on SLURM: when the scheduler has given no answer for this long, the driver ends.
UNREACHABLE_S = float(os.environ.get("DARKROOM_UNREACHABLE_S", 1800))
# One qstat answers for all jobs that are asked about in this time; for those that say they failed, in this one.
FRESH_S, FRESH_OF_FAILED_S = 10.0, 1.0


def status(id: str, root: Path = FOLDER, grace_s: float = GRACE_S) -> str:
    """`running`, `success` or `failed`; with the last two the job's record is removed.

    While the scheduler does not answer, a job counts as running.

    Raises:
        Unreachable: it has not answered for too long.
    """
    record = records.find(id, root)
    if record is None:
        print(f"job {id}: {root} does not know of it; taken for failed", file=sys.stderr)
        return "failed"
    if record.exit_code == 0:
        return _end(record, "success")
    try:
        seen = _look(record, root)
    except Unreachable as error:
        _note_silence(root, error)
        return "running"
    _note_answer(root)
    verdict = judge(record.exit_code, seen.get(id))
    if verdict is None:
        verdict = "failed" if record.missing_s() >= grace_s else "running"
    if verdict == "running":
        return verdict
    if verdict == "failed":
        print(f"job {record} has failed{_why(record, seen.get(id))}", file=sys.stderr)
    return _end(record, verdict)


def judge(exit_code: int | None, seen: Seen | None) -> str | None:
    """The word for a job, from its own exit code and what the scheduler says; None where both say too little.

    A job that failed and is still there may be on its way back into the queue: it has failed when it is gone.
    """
    if exit_code == 0:
        return "success"
    if seen is not None and not seen.has_ended:
        return "running"
    if exit_code is not None:
        return "failed"
    if seen is None or seen.exit_status is None:
        return None
    return "success" if seen.exit_status == 0 else "failed"


def _why(record: Record, seen: Seen | None) -> str:
    """What is known of a failure, and where PBS's own log lies, which tells of limits and lost nodes."""
    code = record.exit_code if record.exit_code is not None else seen and seen.exit_status
    ended = f" with exit code {code}" if code is not None else ", and nothing is known of its end"
    return f"{ended}; PBS's log: {record.log}"


def _end(record: Record, verdict: str) -> str:
    record.remove()
    return verdict


def _look(record: Record, root: Path) -> Mapping[str, Seen]:
    """What is known of all jobs, asked a moment ago or now."""
    cache, id = root / "answer.json", str(record.id)
    try:
        answer = json.loads(cache.read_text())
    except (OSError, ValueError):
        answer = {"at": 0.0, "asked": []}
    fresh_s = FRESH_S if record.exit_code is None else FRESH_OF_FAILED_S
    if not (id in answer["asked"] and 0 <= time.time() - answer["at"] < fresh_s):
        answer = _ask(id, record.dialect, root)
        beside = cache.with_suffix(".tmp")
        beside.write_text(json.dumps(answer))
        os.replace(beside, cache)
    if answer["error"] is not None:
        raise Unreachable(answer["error"])
    return {id: Seen(*values) for id, values in answer["jobs"].items()}


def _ask(id: str, dialect: str, root: Path) -> dict[str, object]:
    ids = sorted({id, *(str(other.id) for other in records.left(root) if other.id)})
    try:
        seen, error = commands.look(ids, dialect), None
    except Unreachable as away:
        seen, error = {}, str(away)
    jobs = {id: (job.state, job.exit_status) for id, job in seen.items()}
    return {"at": time.time(), "asked": ids, "jobs": jobs, "error": error}


def _note_silence(root: Path, error: Unreachable) -> None:
    """Say once that the scheduler is away; after too long give up."""
    mark = root / SILENT
    if not mark.exists():
        mark.touch()
        print(
            f"the scheduler does not answer ({error}); asking again for {UNREACHABLE_S:.0f} s, running jobs go on",
            file=sys.stderr,
        )
    elif time.time() - mark.stat().st_mtime > UNREACHABLE_S:
        raise Unreachable(
            f"the scheduler has not answered for {UNREACHABLE_S:.0f} s ({error}); start the same command again"
            " when it does"
        )


def _note_answer(root: Path) -> None:
    if (root / SILENT).exists():
        (root / SILENT).unlink()
        print("the scheduler answers again", file=sys.stderr)
