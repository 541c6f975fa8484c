"""Record in dvc.lock the published stages of runs that are current; stale ones stay as they were.

What was made again with the settings of the published result, as on another kind of CPU, is not recorded in its
place unless `--replace` asks for it.

Nothing is done, and DVC not started, where dvc.lock and DVC's cache hold them already.
"""

import argparse
import errno
import fcntl
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from darkroom.config import ConfigError, load_project
from darkroom.publish import copy_tracked, difference, stage_entries
from darkroom.publish.bundle import keep_bundle
from darkroom.store import replacing

DVC = [sys.executable, "-m", "dvc"]
# Another dvc rarely holds the lock for longer, but for `dvc push`.
WAIT_S = 60.0
_BUSY = re.compile(r"Unable to acquire lock|is busy, it is being blocked")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--wait-s", type=float, default=WAIT_S, help="for another dvc that is at work")
    parser.add_argument(
        "--replace", action="store_true", help="record what was made again with the published settings too"
    )
    asked = parser.parse_args()
    try:
        found = difference([load_project(run) for run in asked.runs])
    except ConfigError as error:
        not_recorded("", str(error))
        return
    if found.undeclared:
        not_recorded(", ".join(found.undeclared), "dvc.yaml is not in step with the configuration")
        print("give `darkroom publish --write`, then this command again: it records them")
    if found.remade and not asked.replace:
        run = " ".join(asked.runs)
        print(
            f"made again with the published settings, in other bytes: {', '.join(found.remade)}; dvc.lock and"
            f" published/ stay as published. `darkroom compare {run}` says whether the results agree;"
            f" `darkroom publish {run}` publishes these instead"
        )
    chosen = found.unrecorded + found.uncached + (found.remade if asked.replace else [])
    if chosen:
        by_links = locks_by_links()
        reason = commit(chosen, asked.wait_s)
        if reason and by_links and _BUSY.search(reason):
            reason += "\nif no dvc is at work here, a killed one has left its lock: rm -f .dvc/tmp/*lock*"
        if reason:
            not_recorded(", ".join(chosen), reason)
            print("the results are whole; give this command again: it makes nothing, and records them")
            return
    try:
        copy_tracked(stage_entries(), chosen + found.uncopied)
        for run in asked.runs:
            for line in keep_bundle(load_project(run)):
                print(line)
    except OSError as error:
        print(f"published/ was not brought up to date: {error}; the next snakemake tries again")


def commit(names: list[str], wait_s: float) -> str:
    """Have DVC record the stages; the reason, if it could not.

    `--no-relink` leaves the files in place as they are: results stay writable and keep their times, by which
    Snakemake judges them.
    """
    command, end = [*DVC, "commit", "--force", "--no-relink", *names], time.monotonic() + wait_s
    lock = Path("dvc.lock")
    before = lock.read_bytes() if lock.exists() else None
    while True:
        done = subprocess.run(command, capture_output=True, text=True)
        if not done.returncode:
            # DVC takes what it could not copy into its cache, as on a full disk, for done.
            lost = [line for line in done.stderr.splitlines() if "failed to transfer" in line]
            if not lost:
                return ""
            put_back(lock, before)
            return lost[0].removeprefix("ERROR: ")
        reason = (done.stderr.strip() or done.stdout.strip() or f"dvc ended with {done.returncode}").strip()
        reason = reason.partition("\n\nHaving any troubles?")[0]
        if not _BUSY.search(reason) or time.monotonic() > end:
            return reason
        time.sleep(1)


def put_back(lock: Path, content: bytes | None) -> None:
    """Have dvc.lock hold what it held, so that the next run sees what is still to be recorded."""
    if content is None:
        lock.unlink(missing_ok=True)
        return
    with replacing(lock) as beside:
        beside.write_bytes(content)


def locks_by_links() -> bool:
    """Whether DVC locks by hard links, which outlive a killed dvc; have it do so where there is no flock.

    DVC itself takes a file system without flock for a busy one.
    """
    asked = subprocess.run([*DVC, "config", "core.hardlink_lock"], capture_output=True, text=True)
    if asked.stdout.strip() == "true":
        return True
    folder = Path(".dvc/tmp")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            return False
        subprocess.run([*DVC, "config", "--local", "core.hardlink_lock", "true"], check=True)
        # Where there is no flock, nobody holds these; a lock by hard links takes any that lies there for held.
        for name in ("lock", "rwlock.lock"):
            (folder / name).unlink(missing_ok=True)
        print("this file system has no flock: .dvc/config.local now has core.hardlink_lock")
        return True
    return False


def not_recorded(names: str, reason: str) -> None:
    print(f"dvc.lock was not brought up to date{names and f' ({names})'}: {reason}")


if __name__ == "__main__":
    main()
