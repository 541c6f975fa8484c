"""Run what failed in `make test` once more, alone: `python tests/again.py FOLDER PART=STATUS ...`.

FOLDER/PART is pytest's cache of a part that ended with STATUS. On a small machine that runs several tests at once,
one may fail because an answer came late, where nothing is wrong. What passes alone is named, since such a test is
to be mended too; what fails twice has failed. Where tests of many files failed, none is tried again.
"""

import json
import subprocess
import sys
from pathlib import Path

# Tests of a file share what they have made: where that fails, all of them do.
MOST_FILES = 5


def failed_in(cache: Path) -> list[str]:
    """The names of the tests that failed in the run which wrote this cache."""
    path = cache / "v/cache/lastfailed"
    return sorted(json.loads(path.read_text())) if path.exists() else []


def main(folder: str, *parts: str) -> int:
    """The exit status: 0 where what failed in each part passes alone."""
    statuses = dict(part.split("=") for part in parts)
    failed = {part: failed_in(Path(folder) / part) for part in statuses}
    # Any other status means that tests have not run, of which the cache knows nothing.
    if set(statuses.values()) != {"1"} or not all(failed.values()):
        print("more went wrong than tests that failed, so these are not tried again")
        return 1
    tests = sorted(set().union(*failed.values()))
    files = {test.partition("::")[0] for test in tests}
    if len(files) > MOST_FILES:
        print(f"tests of {len(files)} files failed; only those of up to {MOST_FILES} are tried again")
        return 1
    print(f"once more, alone, what failed: {len(tests)}", flush=True)
    again = Path(folder) / "again"
    status = subprocess.run([sys.executable, "-m", "pytest", "-o", f"cache_dir={again}", *tests]).returncode
    for test in sorted({*tests} - {*failed_in(again)}) if status in (0, 1) else []:
        print(f"FLAKY {test}: failed beside other tests, passed alone")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
