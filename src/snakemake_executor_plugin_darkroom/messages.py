"""How the executor speaks to the person who started Snakemake."""

import sys

from snakemake_interface_common.exceptions import WorkflowError


class DriverError(WorkflowError):  # type: ignore[misc]
    """What ends the driver; the logger of the profiles shows it under any `--quiet`."""


def say(text: str) -> None:
    """Tell the person, whatever Snakemake was told to keep quiet about."""
    print(text, file=sys.stderr, flush=True)
