"""The commands of `profiles/pbs`: `submit JOBSCRIPT` prints a job's number, `status NUMBER` how it is."""

import sys
from pathlib import Path

from darkroom.pbs.commands import Unreachable
from darkroom.pbs.status import status
from darkroom.pbs.submission import Refused, submit


def main(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    match arguments:
        case ["submit", jobscript]:
            try:
                print(submit(Path(jobscript)))
            except Refused as error:
                # Snakemake shows what a failed command wrote here.
                print(error)
                return 1
        case ["status", number]:
            try:
                print(status(number))
            except Unreachable as error:
                print(error, file=sys.stderr)
                return 1
        case _:
            print("usage: python -m darkroom.pbs submit JOBSCRIPT | status NUMBER", file=sys.stderr)
            return 2
    return 0


sys.exit(main(sys.argv[1:]))
