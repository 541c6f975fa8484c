"""How a driver speaks to the person who started it."""

import sys

from snakemake.exceptions import WorkflowError


class DriverError(WorkflowError):
    """What ends the driver. Told on stderr as well: with `--quiet all` Snakemake keeps its errors to itself."""

    def __init__(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
        super().__init__(text)


def say(text: str) -> None:
    """Tell the person, whatever Snakemake was told to keep quiet about."""
    print(text, file=sys.stderr, flush=True)
