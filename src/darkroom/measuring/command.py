"""`darkroom measure`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darkroom.refused import refused

if TYPE_CHECKING:
    from darkroom.measuring.measure import Result

_SHOWN = 10


def measure(
    folder: Annotated[Path, typer.Argument(help="a folder of PNG, JPEG or WebP pictures")],
    metrics: Annotated[str, typer.Option(help="names of metrics, with commas: fid,kid,clip_score")],
    reference: Annotated[
        Path | None, typer.Option(help="folder of real pictures, or their statistics (.npz with mu, sigma)")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="table (.csv, .parquet, .jsonl) with columns file and prompt")
    ] = None,
    component: Annotated[
        list[str] | None,
        typer.Option(help="KIND=FOLDER, or a name of config/components.yaml: inception=..., clip=..."),
    ] = None,
    resize: Annotated[str, typer.Option(help="of fid and kid: tf1, clean or torchmetrics")] = "",
    batch_size: Annotated[int | None, typer.Option(help="pictures a forward pass", min=1)] = None,
    keep: Annotated[
        Path | None, typer.Option(help="folder that features of pictures are kept in, for the next time")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="new folder for metrics.json and pictures.csv")] = None,
) -> None:
    """Measure metrics on a folder of pictures, whoever made them.

    Ends with 1 where one of the metrics could not be measured.
    """
    from darkroom.measuring.chosen import choose
    from darkroom.measuring.measure import measure_folder

    try:
        if out is not None and out.exists():
            raise ValueError(f"{out} is there already; name another folder, or remove it")
        names = list(dict.fromkeys(name.strip() for name in metrics.split(",") if name.strip()))
        asked = _pairs(component or [])
        chosen = choose(names, asked, {"resize": resize or None, "batch_size": batch_size})
        found = measure_folder(folder, chosen, reference, prompts, keep)
        if out is not None:
            found.write(out)
    except (OSError, ValueError) as error:
        raise refused(_reason(error)) from None
    for line in lines(found):
        typer.echo(line)
    failed = found.body.get("not_measured", {})
    for name, why in failed.items():
        typer.echo(f"{name} was not measured: {why}", err=True)
    raise typer.Exit(1 if failed else 0)


def _reason(error: Exception) -> str:
    """An error of pydantic's begins with a count."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return str(error)


def _pairs(told: list[str]) -> dict[str, str]:
    pairs = {}
    for text in told:
        kind, is_pair, value = text.partition("=")
        if not (kind and is_pair and value):
            raise ValueError(
                f"--component {text}: should be KIND=FOLDER, such as inception=weights/inception"
            )
        pairs[kind] = value
    return pairs


def lines(found: "Result") -> list[str]:
    """A table of the scores, how each is defined, and what was left out."""
    from darkroom.evaluate.scores import score_names
    from darkroom.metrics.table import METRICS

    body = found.body
    told = ["| | score | better |", "|---|---|---|"]
    for name, value in body["scores"].items():
        metric = METRICS[name].named(body["protocol"][name])
        named = score_names(metric, value) if metric.is_nested else {metric.column: metric.label}
        for column, label in named.items():
            number = value[column] if metric.is_nested else value
            told.append(f"| {label} | {number:.{metric.digits}f} | {metric.direction} |")
    told += ["", *(f"{name}: {of.get('definition', '')}" for name, of in body["protocol"].items())]
    told += _folder_lines("pictures", body["pictures"])
    if "number" in body.get("reference", {}):
        told += _folder_lines("real pictures", body["reference"])
    if "prompts" in body:
        of = body["prompts"]
        told.append(
            f"prompts: of {of['number']} pictures; {of['pictures_without_prompt']} have none,"
            f" {of['rows_without_picture']} rows name no picture"
        )
    return told


def _folder_lines(what: str, of: dict[str, Any]) -> list[str]:
    from darkroom.store.found import shown

    unreadable = of["unreadable"]
    told = [
        f"{what}: {of['number']}; {len(unreadable)} cannot be read, {of['other_files']} files are no pictures"
    ]
    told += [f"  {shown(name)}: {shown(why)}" for name, why in list(unreadable.items())[:_SHOWN]]
    if len(unreadable) > _SHOWN:
        told.append(f"  and {len(unreadable) - _SHOWN} more, which metrics.json names (--out)")
    return told
