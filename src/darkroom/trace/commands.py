"""`darkroom trace` and `darkroom withdraw`."""

from pathlib import Path
from typing import Annotated

import typer

from darkroom.refused import refused


def trace(what: Annotated[str, typer.Argument(help="a uid, a URL, or a file with a picture")]) -> None:
    """Tell everything that was made from a picture: by which stages, in which caches, runs and measurements.

    Ends with 1 where nothing here was made from it.
    """
    from darkroom.sources.withdrawn import digest_of, read_withdrawn
    from darkroom.store.found import shown
    from darkroom.trace.made import cache_lines, run_lines, stage_lines, uses
    from darkroom.trace.rows import find, not_found

    try:
        found = find(what)
    except (OSError, ValueError) as error:
        raise refused(error) from None
    datasets = sorted(path.stem for path in Path("config/withdrawn").glob("*.txt"))
    digests = {digest_of(what), *(digest_of(one.row["url"]) for one in found if one.row["url"])}
    for dataset in (name for name in datasets if digests & read_withdrawn(name)):
        typer.echo(f"withdrawn from {dataset} (config/withdrawn/{dataset}.txt)")
    for one in found:
        row = one.row
        typer.echo(f"dataset {one.dataset}, {one.part}, row {row['row']}, uid {row['uid']}")
        lines = [f"URL: {shown(row['url'] or '')}", one.how, f"status: {row['status']}"]
        if row["error"]:
            lines[-1] += f" ({row['error']})"
        if row["status"] == "ok":
            tar = one.table.with_suffix(".tar")
            lines[-1] += f", {row['width']}x{row['height']}, SHA-256 {row['sha256']}"
            lines.append(f"JPEG: bytes {row['offset']} to {row['offset'] + row['size'] - 1} of {tar}")
        lines += [f"caption of the list: {row['caption']}" if row["caption"] else ""]
        lines += [*stage_lines(one), *cache_lines(one), *run_lines(uses(one))]
        for line in filter(None, lines):
            typer.echo(f"  {line}")
    if not found:
        typer.echo(not_found(what), err=True)
        raise typer.Exit(1)


def withdraw(
    urls: Annotated[list[str] | None, typer.Argument(help="URLs, as lists have them")] = None,
    file: Annotated[Path | None, typer.Option(help="more URLs, one a line")] = None,
    uid: Annotated[
        list[str] | None, typer.Option(help="a sample's, instead of its URL; again for more")
    ] = None,
    dataset: Annotated[
        str, typer.Option(help="withdraw from this one; by default from all whose lists have the URLs")
    ] = "",
) -> None:
    """Withdraw URLs from datasets, in config/withdrawn/, and say what has to be made again with which command.

    The rows become empty ones; nothing of them is in any result that is made from then on.
    """
    from darkroom.config import ConfigError
    from darkroom.config.load import load_dataset
    from darkroom.trace.withdraw import urls_of, what_follows, withdraw

    try:
        named = [*(urls or [])]
        if file is not None:
            named += [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        named += urls_of(uid or [])
        if not named:
            raise ValueError("give URLs, --file or --uid")
        if dataset:
            load_dataset(dataset, named_by="--dataset")
        made = withdraw(named, dataset)
        lines = list(what_follows(named, made))
    except (ConfigError, OSError, ValueError) as error:
        raise refused(error) from None
    for line in lines:
        typer.echo(line)
    typer.echo("snakemake -n tells what is to be made again; git add config/withdrawn")
