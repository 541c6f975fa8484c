"""`darkroom demo ...`: what a person does with the demo world."""

import contextlib
import signal
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The demo world.")


@app.command()
def serve(
    run: Annotated[str, typer.Option(help="a run whose dataset is a demo world")] = "demo",
    port: Annotated[int, typer.Option(help="port on 127.0.0.1; 0 takes a free one")] = 8907,
) -> None:
    """Serve the demo world on 127.0.0.1, to look at it in a browser; Ctrl-C ends it."""
    from darkroom.config import load_project
    from darkroom_demo.section import DemoSource
    from darkroom_demo.server import serve as serve_world
    from darkroom_demo.world import DemoWorld

    source = load_project(run).dataset.source
    if not isinstance(source, DemoSource):
        raise typer.BadParameter(f"run {run!r} has a dataset with a {source.kind} source, not a demo world")
    with serve_world(DemoWorld(source), port=port) as server:
        typer.echo(f"the demo world is at http://127.0.0.1:{server.port}/ until Ctrl-C")
        with contextlib.suppress(KeyboardInterrupt):
            # Not an event's wait: polars' own handler of Ctrl-C has the kernel go on with that.
            signal.pause()


@app.command("train-components")
def train_components(
    out: Annotated[Path, typer.Option(help="folder for vae/, clip/ and so on")],
    only: Annotated[str, typer.Option(help="one of vae, clip, captioner, watermark; all by default")] = "",
    num_threads: Annotated[int, typer.Option(help="CPU threads")] = 1,
) -> None:
    """Train the demo's small components from scratch, as those in the repository were."""
    from darkroom_demo.pretrain import train_all

    train_all(out, only=only, num_threads=num_threads)
