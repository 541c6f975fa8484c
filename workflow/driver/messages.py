"""How a driver speaks to the person who started it."""

import sys

from snakemake.exceptions import WorkflowError


class DriverError(WorkflowError):
    """What ends the driver; the logger of the profiles shows it under any `--quiet`."""


def say(text: str) -> None:
    """Tell the person, whatever Snakemake was told to keep quiet about."""
    print(text, file=sys.stderr, flush=True)
