"""`darkroom draw`."""

from pathlib import Path
from typing import Annotated

import typer

from darkroom.refused import refused


def draw(
    model: Annotated[str, typer.Argument(help="a run's name, or a model's folder")],
    prompts: Annotated[Path, typer.Argument(help="file of prompts: one a line, or .jsonl with prompt")],
    out: Annotated[
        Path, typer.Option(help="folder for chunks of pictures; what is there is not drawn again")
    ],
    num_pictures: Annotated[int, typer.Option(help="of each prompt", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="picture k of prompt p has a seed of (seed, p, k)", min=0)] = 0,
    steps: Annotated[int | None, typer.Option(help="steps from noise to picture")] = None,
    guidance: Annotated[float | None, typer.Option(help="guidance scale; 1 is none")] = None,
    width: Annotated[int | None, typer.Option(help="pixels")] = None,
    height: Annotated[int | None, typer.Option(help="pixels")] = None,
    batch_size: Annotated[int, typer.Option(help="pictures a forward pass", min=1)] = 16,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32")] = "auto",
    prompts_per_chunk: Annotated[int, typer.Option(help="prompts of one tar", min=1)] = 256,
    share: Annotated[str, typer.Option(help="2/8: draw what the second of eight processes draws")] = "1/1",
) -> None:
    """Draw pictures of many prompts into tars, in as many processes as there are; goes on where it was killed."""
    from darkroom.config.run import Draw, Sampling
    from darkroom.draw.many import Share, draw_many
    from darkroom.sample.command import find_model

    try:
        folder, default = find_model(model)
        asked = {
            "num_inference_steps": steps,
            "guidance_scale": guidance,
            "width_px": width,
            "height_px": height,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        settings = Draw(
            prompts={"kind": "file", "path": str(prompts)},
            num_pictures_per_prompt=num_pictures,
            seed=seed,
            batch_size=batch_size,
            dtype=dtype,
            prompts_per_chunk=prompts_per_chunk,
            sampling=Sampling(**(default.model_dump() | given)),
        )
        counts = draw_many(folder, settings, out, Share.read(share), typer.echo)
    except (OSError, ValueError) as error:
        raise refused(error) from None
    typer.echo(f"{out}: {counts['chunks']} chunks, {counts['pictures']} pictures drawn now")
