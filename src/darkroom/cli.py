"""`darkroom ...`: what a person calls by hand. The pipeline itself is `snakemake`."""

import contextlib
import threading
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
demo = typer.Typer(no_args_is_help=True, help="The demo world.")
app.add_typer(demo, name="demo")
cluster = typer.Typer(no_args_is_help=True, help="The SLURM cluster of this login node.")
app.add_typer(cluster, name="cluster")


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration (config/schema.json)."""
    from darkroom.config import schema_text

    typer.echo(schema_text(), nl=False)


@app.command()
def verify(run: Annotated[str, typer.Argument(help="name of a run in config/runs")]) -> None:
    """Check a run's chain of manifests: settings, upstream digests, and every file that is here."""
    from darkroom.config import ConfigError, load_project
    from darkroom.stages import STAGES, manifest_path, problems
    from darkroom.store import read_manifest, verify_manifest

    try:
        project = load_project(run)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    wrong = []
    for stage in STAGES:
        path = manifest_path(project, stage)
        found = problems(project, stage)
        absent = 0
        if path.exists():
            files = verify_manifest(path)
            absent = sum(line.endswith(": missing") for line in files)
            found += [line for line in files if not line.endswith(": missing")]
            number = len(read_manifest(path)["files"])
            typer.echo(
                f"{stage:<10} {'wrong' if found else 'ok'}: {number - absent} of {number} files checked"
            )
        wrong += found
    for line in wrong:
        typer.echo(line, err=True)
    raise typer.Exit(1 if wrong else 0)


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="a run's name, or a model's folder")],
    prompts: Annotated[list[str] | None, typer.Argument(help="what the pictures show")] = None,
    out: Annotated[Path, typer.Option(help="folder to write, a new one")] = Path("samples"),
    prompts_file: Annotated[Path | None, typer.Option(help="more prompts, one a line")] = None,
    baseline: Annotated[str, typer.Option(help="run or folder of another model, drawn beside it")] = "",
    seed: Annotated[
        list[int], typer.Option(help="of a picture of each prompt; again for more; -1: random")
    ] = [0],  # noqa: B006
    num_pictures: Annotated[
        int, typer.Option(help="of each prompt and seed: with it and those that follow", min=1)
    ] = 1,
    sampler: Annotated[str, typer.Option(help="euler, heun, euler-stochastic, ddim or dpm++")] = "",
    steps: Annotated[int | None, typer.Option(help="steps from noise to picture")] = None,
    guidance: Annotated[float | None, typer.Option(help="guidance scale; 1 is none")] = None,
    guidance_convention: Annotated[
        str, typer.Option(help="diffusers, or paper, where 0 is none")
    ] = "diffusers",
    guidance_rescale: Annotated[
        float, typer.Option(help="share of overexposure taken back", min=0, max=1)
    ] = 0.0,
    negative: Annotated[str, typer.Option(help="what guidance moves away from")] = "",
    width: Annotated[int | None, typer.Option(help="pixels")] = None,
    height: Annotated[int | None, typer.Option(help="pixels")] = None,
    batch_size: Annotated[int, typer.Option(help="pictures a forward pass", min=1)] = 4,
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32")] = "bfloat16",
    gif: Annotated[bool, typer.Option(help="also write the denoising of each picture")] = False,
    clip: Annotated[str, typer.Option(help="CLIP that scores: a component's name, or a folder")] = "",
) -> None:
    """Draw pictures of many prompts from a model, or from two side by side."""
    from darkroom.sample.command import from_command_line

    asked = {"num_inference_steps": steps, "width_px": width, "height_px": height}
    try:
        from_command_line(
            model, [*(prompts or [])], prompts_file, baseline, seed, num_pictures, asked, guidance,
            guidance_convention, out, clip=clip, animate=gif, sampler=sampler or None,
            guidance_rescale=guidance_rescale, negative_prompt=negative, batch_size=batch_size, dtype=dtype,
        )  # fmt: skip
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@cluster.command("check")
def cluster_check(
    profile: Annotated[Path, typer.Option(help="folder of a profile for the cluster")] = Path(
        "profiles/slurm"
    ),
) -> None:
    """Say what of a profile this cluster cannot give; nothing is submitted."""
    from darkroom.cluster import check, read_profile, survey
    from darkroom.cluster.check import describe

    try:
        requests, found = read_profile(profile), survey()
    except (OSError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    findings = check(requests, found)
    for request in requests:
        wrong = any(finding.fatal for finding in findings if finding.rule == request.rule)
        typer.echo(f"{request.rule:<18} {'cannot run' if wrong else 'ok':<10}  {describe(request)}")
    for finding in findings:
        typer.echo(f"{'' if finding.fatal else 'note: '}{finding.rule}: {finding.text}", err=finding.fatal)
    raise typer.Exit(1 if any(finding.fatal for finding in findings) else 0)


@demo.command()
def serve(
    run: Annotated[str, typer.Option(help="a run whose dataset is a demo world")] = "demo",
    port: Annotated[int, typer.Option(help="port on 127.0.0.1; 0 takes a free one")] = 8907,
) -> None:
    """Serve the demo world on 127.0.0.1, to look at it in a browser; Ctrl-C ends it."""
    from darkroom.config import load_project
    from darkroom.config.dataset import DemoSource
    from darkroom.demo.server import serve as serve_world
    from darkroom.demo.world import DemoWorld

    source = load_project(run).dataset.source
    if not isinstance(source, DemoSource):
        raise typer.BadParameter(f"run {run!r} has a dataset with a {source.kind} source, not a demo world")
    with serve_world(DemoWorld(source), port=port) as server:
        typer.echo(f"the demo world is at http://127.0.0.1:{server.port}/ until Ctrl-C")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


@demo.command("train-components")
def train_components(
    out: Annotated[Path, typer.Option(help="folder for vae/, clip/ and captioner/")],
    only: Annotated[str, typer.Option(help="one of vae, clip, captioner; all by default")] = "",
    num_threads: Annotated[int, typer.Option(help="CPU threads")] = 1,
) -> None:
    """Train the demo's small VAE, CLIP and captioner from scratch, as those in the repository were."""
    from darkroom.demo.pretrain import train_all

    train_all(out, only=only, num_threads=num_threads)


if __name__ == "__main__":
    app()
