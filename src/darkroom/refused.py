"""How a command ends that cannot do what it was asked for."""

import typer

STATUS = 2


def refused(error: Exception | str) -> typer.Exit:
    """Tell why on stderr; raise what this gives.

    Not as typer tells of a wrong parameter: it puts that into a box, which cuts what is to be copied.
    """
    typer.echo(str(error), err=True)
    return typer.Exit(STATUS)
