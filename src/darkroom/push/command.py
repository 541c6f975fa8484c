"""`darkroom push`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from darkroom.refused import refused


def push(
    run: Annotated[str, typer.Argument(help="a finished run")],
    repo_id: Annotated[
        str, typer.Argument(help="repository of Hugging Face, OWNER/NAME; made if it is not there")
    ],
    private: Annotated[
        bool, typer.Option("--private/--public", help="whether you and your organization alone see it")
    ] = True,
    license: Annotated[
        str, typer.Option(help="the model's licence by the Hub's id, such as apache-2.0; public ones need it")
    ] = "",
    license_name: Annotated[str, typer.Option(help="of --license other: what it is called")] = "",
    license_link: Annotated[str, typer.Option(help="of --license other: where its text is")] = "",
    format: Annotated[
        str, typer.Option("--format", help="diffusers, or a format of `darkroom export`")
    ] = "diffusers",
    dtype: Annotated[str | None, typer.Option(help="of another --format than diffusers")] = None,
) -> None:
    """Send a finished run's model to a repository of Hugging Face, with a model card made from its manifests.

    HF_TOKEN in the environment holds a token that may write; HF_ENDPOINT may name another hub.
    """
    from darkroom.config import ConfigError, load_project
    from darkroom.formats.table import FORMATS
    from darkroom.push.contents import DIFFUSERS, contents
    from darkroom.push.hub import check_repo_id, push_files, token_of_environment
    from darkroom.push.licence import licence_head

    try:
        check_repo_id(repo_id)
        token = token_of_environment()
        licence = licence_head(license, license_name, license_link, private)
        if format not in (DIFFUSERS, *FORMATS):
            raise ValueError(f"--format {format} is none of {', '.join((DIFFUSERS, *FORMATS))}")
        if dtype and format == DIFFUSERS:
            raise ValueError(
                f"--dtype goes with --format {', '.join(FORMATS)}; a diffusers folder goes as it is"
            )
        project = load_project(run)
        with tempfile.TemporaryDirectory(prefix="darkroom-push-") as scratch:
            sent = contents(project, repo_id, licence, format, dtype, Path(scratch))
            message = f"{run}: model {sent.model_sha256[:16]}, {format}"
            pushed = push_files(repo_id, sent.files, sent.card, message, token, private)
    except (ConfigError, OSError, ValueError) as error:
        raise refused(error) from None
    for note in sent.notes:
        typer.echo(f"note: {note}", err=True)
    if pushed.others:
        typer.echo(f"note: {repo_id} also holds, of before: {', '.join(pushed.others)}", err=True)
    what = f"{len(sent.files) + 1} files of {run}, {'private' if private else 'public'}"
    if pushed.is_new:
        typer.echo(f"{pushed.url}: {what}, commit {pushed.commit}")
    else:
        typer.echo(f"{pushed.url}: nothing new, {what}, are there since commit {pushed.commit}")
