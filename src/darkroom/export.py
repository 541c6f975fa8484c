"""`darkroom export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.refused import refused

if TYPE_CHECKING:
    from darkroom.formats.base import ExportedModel


def export(
    model: Annotated[str, typer.Argument(help="a run's name, or a model's folder")],
    format: Annotated[str, typer.Option("--format", help="single_file, lora_kohya or gguf")],
    out: Annotated[Path | None, typer.Option(help="file to write; by default named after the model")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float16, bfloat16 or float32; of gguf q8_0, q5_1, q5_0, q4_1 or q4_0 too"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace the file if it is there")] = False,
) -> None:
    """Write a trained model as one file for other tools, such as ComfyUI."""
    from darkroom.formats.table import FORMATS

    try:
        path, notes = export_file(model, format, out, dtype, force)
    except (OSError, ValueError) as error:
        raise refused(error) from None
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {dtype or FORMATS[format].dtypes[0]}")


def export_file(
    name: str, wanted: str, out: Path | None = None, dtype: str | None = None, replace: bool = False
) -> tuple[Path, list[str]]:
    """Write a run's model or a model's folder in a format; the file, and what its reader has to know.

    dtype: None is the format's first.

    Raises:
        ValueError: the model, format or dtype is not known, the format cannot hold the model, or the file exists.
    """
    from darkroom.formats.table import FORMATS
    from darkroom.store import replacing

    if wanted not in FORMATS:
        raise ValueError(f"--format {wanted} is none of {', '.join(FORMATS)}")
    form = FORMATS[wanted]
    dtype = dtype or form.dtypes[0]
    if dtype not in form.dtypes:
        raise ValueError(f"--dtype {dtype} is none of {', '.join(form.dtypes)}, which {wanted} has")
    model = find_exported(name)
    out = out or Path((model.name or model.folder.resolve().name) + form.ending)
    suffix = Path(f"name{form.ending}").suffix
    if out.suffix != suffix:
        raise ValueError(f"--out {out}: its name should end with {suffix}, by which tools know what it is")
    if out.is_dir() or (out.exists() and not replace):
        raise ValueError(f"{out} is there already; give --force to replace it, or another name with --out")
    form.check(model)
    tensors, metadata, notes = form.tensors(model, dtype)
    with replacing(out) as beside:
        form.write(beside, tensors, metadata, dtype)
    return out, notes


def find_exported(name: str, root: Path = Path()) -> "ExportedModel":
    """A run's model by the run's name, with what its manifest says, or a model's folder.

    Raises:
        ValueError: it is neither, or the run is not trained.
    """
    from darkroom.formats.base import ExportedModel
    from darkroom.sample.command import find_model
    from darkroom.store import read_manifest, sha256_file, sha256_json

    folder, sampling = find_model(name, root)
    if Path(name).is_dir():
        return ExportedModel(folder)
    path = folder.parent / "manifest.json"
    if not path.is_file():
        raise ValueError(f"{path}: missing; snakemake train --config run={name} makes it")
    manifest = read_manifest(path)
    told = {
        "modelspec.resolution": f"{sampling.width_px}x{sampling.height_px}",
        "darkroom.train_manifest_sha256": sha256_file(path),
        "darkroom.train_params_sha256": sha256_json(manifest["params"]),
        **{f"darkroom.{stage}_sha256": digest for stage, digest in manifest["upstream"].items()},
    }
    return ExportedModel(folder, name, told)
