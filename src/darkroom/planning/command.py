"""`darkroom plan`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from darkroom.refused import refused


def plan(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="name of a run in config/runs")],
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="measure what was never measured, by small copies of the run")
    ] = False,
    kept: Annotated[
        float | None, typer.Option(help="share of the rows that pass the filter", min=0, max=1)
    ] = None,
    price_gpu_hour: Annotated[float, typer.Option(help="of one GPU", min=0)] = 0.0,
    price_cpu_hour: Annotated[float, typer.Option(help="of one core", min=0)] = 0.0,
    profile: Annotated[
        Path | None, typer.Option(help="folder of Snakemake's profile; by default that of SNAKEMAKE_PROFILE")
    ] = None,
    rows: Annotated[
        int, typer.Option(help="with --calibrate: of each dataset, in the larger copy", min=8)
    ] = 256,
    steps: Annotated[
        int, typer.Option(help="with --calibrate: of the training, in the larger copy", min=4)
    ] = 40,
    prompts: Annotated[
        int, typer.Option(help="with --calibrate: of each task, in the larger copy", min=2)
    ] = 4,
) -> None:
    """Say what a run will take: hours, GPU hours, money, memory, disk and network of every stage, with intervals.

    The rates are those of jobs that were made on this kind of machine, by runs of this project or by --calibrate,
    whose further options are Snakemake's. The plan is kept beside the run's logs, for its report.
    """
    from darkroom.config import load_project
    from darkroom.planning.calibrate import Size
    from darkroom.planning.calibrate import calibrate as measure
    from darkroom.planning.observations import keep
    from darkroom.planning.observe import observe
    from darkroom.planning.place import read_place
    from darkroom.planning.plan import list_datasets, make_plan
    from darkroom.planning.table import closing_lines, lacking_lines, table_lines
    from darkroom.publish.listed import phases

    try:
        if context.args and not calibrate:
            raise ValueError(f"{context.args[0]}: unknown option; Snakemake's go with --calibrate")
        project = load_project(run)
        place = read_place(profile or Path(os.environ.get("SNAKEMAKE_PROFILE", "profiles/local")))
        numbers = list_datasets(project)
        given = {} if kept is None else {"kept": kept}
        found = make_plan(project, numbers, keep(observe()), place, given)
        if found.lacking and calibrate:
            for phase in phases(project):
                of_phase = {name: numbers[name] for name in phase.datasets}
                keep(measure(phase, of_phase, Size(rows, steps, prompts), context.args))
            found = make_plan(project, numbers, keep([]), place, given)
    except (OSError, ValueError) as error:
        raise refused(error) from None
    if found.lacking:
        raise refused("\n".join(lacking_lines(found)))
    _tell(table_lines(found, price_cpu_hour, price_gpu_hour))
    _tell(closing_lines(found, place))
    typer.echo(f"kept for the report: {found.write()}")


def _tell(lines: Sequence[str]) -> None:
    for line in lines:
        typer.echo(line)
