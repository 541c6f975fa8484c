"""`darkroom report`."""

from pathlib import Path
from typing import Annotated

import typer

from darkroom.refused import refused


def report(
    runs: Annotated[list[str] | None, typer.Argument(help="runs to show, in this order")] = None,
    every: Annotated[bool, typer.Option("--all", help="every run of config/runs that has results")] = False,
    out: Annotated[Path, typer.Option(help="HTML file to write")] = Path("results/runs.html"),
) -> None:
    """Write a page of several runs: a table to sort, what each cost, pictures side by side.

    `snakemake report` writes the page of one run.
    """
    from darkroom.all_runs.collect import run_names, shown_run
    from darkroom.config import ConfigError
    from darkroom.report.all_runs import build_all_runs

    if every == bool(runs):
        raise typer.BadParameter("name runs, or give --all")
    if runs and len(set(runs)) < len(runs):
        raise typer.BadParameter("name every run once")
    try:
        found = [shown_run(name) for name in (runs or run_names())]
        shown = found if runs else [run for run in found if run.metrics or run.steps is not None]
        if not shown:
            typer.echo("no run has results here or was published; snakemake makes them", err=True)
            raise typer.Exit(1)
        page = build_all_runs(shown, out)
    except (ConfigError, OSError, ValueError) as error:
        raise refused(error) from None
    left_out = [run.name for run in found if run not in shown]
    if left_out:
        typer.echo(f"left out, without results: {', '.join(left_out)}")
    typer.echo(f"{len(shown)} runs: {page.resolve()}")
