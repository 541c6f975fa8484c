"""`darkroom ema`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.refused import refused

if TYPE_CHECKING:
    from darkroom.train.phases import FinishedTraining

# Profiles that are further from the wanted one are told of.
_GOOD = 0.01


def ema(
    run: Annotated[str, typer.Argument(help="a trained run that has train.post_hoc_ema")],
    width: Annotated[
        float, typer.Option(help="of the average: its relative standard deviation, such as 0.1")
    ],
    step: Annotated[int | None, typer.Option(help="of a snapshot; by default the last one")] = None,
    out: Annotated[
        Path | None, typer.Option(help="new folder for the pipeline; by default named after run and width")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="also reconstruct each stored width from the others, and say how well"),
    ] = False,
) -> None:
    """Write the model of a training with weights averaged over another width, reconstructed from its snapshots."""
    from darkroom.imports import quick_imports

    with quick_imports():
        from darkroom.train.reconstruct import check_stored, check_width, reconstruct
        from darkroom.train.stage import export_reconstructed

    try:
        check_width(width)
        out = out or Path(f"{run}-ema-{width:g}" + ("" if step is None else f"-step-{step}"))
        if out.exists():
            raise ValueError(f"{out} is there already; name another folder with --out, or remove it")
        training = find_training(run)
        found = reconstruct(training, width, step)
        export_reconstructed(training, found.weights, out)
        held = check_stored(training, step) if check else []
    except (OSError, ValueError) as error:
        raise refused(error) from None
    typer.echo(
        f"{out}: width {width:g} from {found.num} averages; its profile is met to {found.profile_error:.1e}"
    )
    if found.profile_error > _GOOD:
        stored = " and ".join(f"{of:g}" for of in training.settings.post_hoc_ema.widths)  # type: ignore[union-attr]
        typer.echo(f"note: widths between the stored ones, {stored}, are met better", err=True)
    for one in held:
        typer.echo(
            f"check: width {one.width:g} from the others alone: weights to {one.error:.1e}, profile to"
            f" {one.profile_error:.1e}"
        )


def find_training(run: str, root: Path = Path()) -> "FinishedTraining":
    """A finished training by its run's name.

    Raises:
        ValueError: there is no such run, or it is not trained.
    """
    from darkroom.config import ConfigError, load_project
    from darkroom.train.phases import read_finished

    try:
        load_project(run, root)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    manifest = root / "results/runs" / run / "train/manifest.json"
    if not manifest.is_file():
        raise ValueError(f"{manifest}: missing; snakemake train --config run={run} makes it")
    return read_finished(manifest, root / "checkpoints" / run)
