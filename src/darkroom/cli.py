"""`darkroom ...`: what a person calls by hand. The pipeline itself is `snakemake`."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from darkroom.all_runs.command import report
from darkroom.audit.command import audit
from darkroom.draw.command import draw
from darkroom.export import export
from darkroom.kinds import installed, not_installed
from darkroom.measuring.command import measure
from darkroom.planning.command import plan
from darkroom.push.command import push
from darkroom.refused import refused
from darkroom.trace import commands as tracing
from darkroom.train.command import ema

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
cluster = typer.Typer(no_args_is_help=True, help="The SLURM cluster of this login node.")
app.add_typer(cluster, name="cluster")
app.command()(tracing.trace)
app.command()(tracing.withdraw)
app.command()(measure)
app.command()(draw)
app.command()(audit)
app.command()(export)
app.command()(push)
app.command()(ema)
app.command()(report)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(plan)
# What other packages add, e.g. `darkroom demo ...`.
for point in installed("darkroom.commands"):
    app.add_typer(point.load(), name=point.name)


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"darkroom {version('darkroom')}, {Path(__file__).parent}")
        raise typer.Exit


@app.callback()
def refuse_another_projects_library(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="say which darkroom this is, and where"
        ),
    ] = False,
) -> None:
    """A clone that is used with another's environment would otherwise be checked by the other's code."""
    here, used = Path("src/darkroom").resolve(), Path(__file__).parent.resolve()
    if (here / "__init__.py").is_file() and here != used:
        typer.echo(
            f"this is the project {Path.cwd()}, but {sys.executable} runs the library of {used.parents[1]}; "
            f"`make setup` gives this project an environment of its own",
            err=True,
        )
        raise typer.Exit(2)
    missing = not_installed(Path("pyproject.toml")) if here == used else []
    if missing:
        typer.echo(
            f"{sys.executable} was set up before pyproject.toml named {', '.join(missing)}; `make setup` brings it"
            " up to date",
            err=True,
        )
        raise typer.Exit(2)


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration (config/schema.json)."""
    from darkroom.config import schema_text

    typer.echo(schema_text(), nl=False)


@app.command()
def publish(
    run: Annotated[str, typer.Argument(help="a finished run to publish, or to publish again")] = "",
    write: Annotated[
        bool, typer.Option("--write", help="write what is not in step, and publish nothing")
    ] = False,
    sign: Annotated[Path | None, typer.Option(help="SSH key to sign it with, as Git signs")] = None,
) -> None:
    """Publish a run: dvc.yaml, dvc.lock, its metrics, manifests and model card for Git, README's table.

    Without a run, say where dvc.yaml and README.md are not in step with what is published.
    """
    from darkroom.config import ConfigError
    from darkroom.publish.add import out_of_step, write_generated
    from darkroom.publish.add import publish as publish_run

    if (run and write) or (sign and not run):
        raise typer.BadParameter("--write goes without a run, and --sign with one")
    try:
        told = publish_run(run, sign) if run else write_generated() if write else []
        behind = out_of_step()
    except ConfigError as error:
        raise refused(error) from None
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    for line in told:
        typer.echo(line)
    for line in behind:
        typer.echo(f"{line}; give `darkroom publish --write`", err=True)
    if run and not behind:
        typer.echo(
            f"{run} is published: git add config dvc.yaml dvc.lock published README.md; git commit; dvc push"
        )
    raise typer.Exit(1 if behind else 0)


@app.command()
def verify(
    run: Annotated[str, typer.Argument(help="name of a run in config/runs")],
    signers: Annotated[
        Path | None,
        typer.Option(help="who may have signed what was published; a file as ssh-keygen's ALLOWED SIGNERS"),
    ] = None,
) -> None:
    """Check a run: every file that is here, the chain of manifests, the configuration, and what was published."""
    from darkroom.config import ConfigError, load_project
    from darkroom.publish.verify import closing_line, stage_lines
    from darkroom.publish.verify import verify as check

    try:
        verdict = check(load_project(run), signers)
    except ConfigError as error:
        raise refused(error) from None
    for line in [*stage_lines(verdict), *(f"not checked: {line}" for line in verdict.unchecked)]:
        typer.echo(line)
    for line in verdict.wrong:
        typer.echo(line, err=True)
    typer.echo(closing_line(verdict))
    raise typer.Exit(1 if verdict.wrong else 0)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def reproduce(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="a published run")],
    folder: Annotated[
        Path | None, typer.Option(help="where it is made, apart from results/; by default reproduced/RUN")
    ] = None,
) -> None:
    """Make a published run again and say, metric by metric, how it compares; more options are Snakemake's.

    Says "the same bytes", "within the published intervals" or "different", and ends with 1 where one is different.
    """
    from darkroom.config import ConfigError, load_project
    from darkroom.publish import reproduce as again

    try:
        project = load_project(run)
        again.published_metrics(project)
        where = folder or again.SCRATCH / run
        again.prepare(where)
        again.make_again(project, where, context.args)
        found = again.compare_again(project, where)
        first = again.first_difference(project, where)
    except ConfigError as error:
        raise refused(error) from None
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    for line in again.reproduced_lines(found):
        typer.echo(line)
    if first:
        typer.echo(f"the first stage with other bytes than dvc.lock holds: {first}")
    typer.echo(again.closing_line(run, found))
    raise typer.Exit(1 if any(row.verdict == "different" for row in found) else 0)


@app.command()
def adopt(run: Annotated[str, typer.Argument(help="name of a run in config/runs")]) -> None:
    """Take over results that were made elsewhere, if their manifests prove that they are this run's."""
    from darkroom.config import ConfigError, load_project
    from darkroom.publish.adopt import adopt as note
    from darkroom.publish.adopt import look_at

    try:
        project = load_project(run)
        found = look_at(project)
    except (ConfigError, ValueError) as error:
        raise refused(error) from None
    for line in found.wrong:
        typer.echo(line, err=True)
    if found.wrong or not found.stages:
        typer.echo(f"nothing was adopted: {'see above' if found.wrong else 'no manifest is here'}", err=True)
        raise typer.Exit(1)
    if note(project, found.stages):
        typer.echo("nothing was adopted: snakemake --touch failed", err=True)
        raise typer.Exit(1)
    typer.echo(
        f"adopted: {', '.join(found.stages)}; {found.num_absent} of {found.num_files} files are not here"
    )


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def retry(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="name of a dataset in config/datasets")],
    run: Annotated[
        str,
        typer.Option(help="a run of this dataset; by default the one of config/config.yaml, or the first"),
    ] = "",
) -> None:
    """Fetch the rows of a dataset again that failed and may not fail now; more options are Snakemake's.

    One round, written into config/retries/DATASET.yaml, and made by `snakemake download`. Where the last round was
    not finished, it goes on with that.
    """
    from darkroom import retry as rounds
    from darkroom.config import ConfigError

    try:
        project = rounds.project_of(dataset, run)
        told = rounds.begin(project)
        typer.echo(told.sentence)
        code = rounds.make(project, context.args) if told.is_to_make else 0
    except ConfigError as error:
        raise refused(error) from None
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if not code and told.is_to_make:
        typer.echo(rounds.outcome(project))
    raise typer.Exit(code)


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
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32")] = "auto",
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
        raise refused(error) from None


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="evaluated runs, with the same prompts; of one alone, what was published"),
    ],
    latex: Annotated[bool, typer.Option(help="print a table for LaTeX, with the package booktabs")] = False,
    page: Annotated[
        Path | None, typer.Option(help="HTML file to write, with pictures of the same prompts side by side")
    ] = None,
) -> None:
    """Print the scores of runs' models, and their differences to the first one's, paired by prompt.

    Of one run alone, whether each score agrees with the published one; ends with 1 where one does not.
    """
    from darkroom.evaluate.compare import compare as compare_folders
    from darkroom.evaluate.comparison import comparison_latex, comparison_markdown

    if len(runs) == 1:
        _compare_with_published(runs[0])
        return
    if len(set(runs)) < len(runs):
        raise typer.BadParameter("name every run once")
    folders = {run: Path("results/runs") / run for run in runs}
    try:
        found = compare_folders({run: folder / "evaluate" for run, folder in folders.items()})
        typer.echo((comparison_latex if latex else comparison_markdown)(found), nl=False)
        if page is not None:
            from darkroom.report.comparison import build_comparison

            typer.echo(f"{build_comparison(folders, page)} written", err=True)
    except (OSError, ValueError) as error:
        raise refused(error) from None


def _compare_with_published(run: str) -> None:
    from darkroom.config import ConfigError, load_project
    from darkroom.evaluate.agreement import agreement_lines, agreements
    from darkroom.publish import stage_name, tracked_path
    from darkroom.stages import folder

    name = "metrics.json"
    try:
        project = load_project(run)
        here = folder(project, "evaluate") / name
        published = tracked_path(stage_name(project, "evaluate"), name)
        for path, makes in ((here, f"snakemake evaluate --config run={run}"), (published, "")):
            if not path.exists():
                raise ValueError(f"{path}: missing; {makes or f'{run} was not published in this clone'}")
        found = agreements(*(json.loads(path.read_text(encoding="utf-8")) for path in (here, published)))
    except (ConfigError, ValueError) as error:
        raise refused(error) from None
    for line in agreement_lines(found):
        typer.echo(line)
    num_wrong = sum(row.agrees is False for row in found)
    num_judged = sum(row.agrees is not None for row in found)
    typer.echo(f"{num_judged - num_wrong} of {num_judged} scores agree with the published ones of {run}")
    if num_wrong:
        raise typer.Exit(1)


@cluster.command("check")
def cluster_check(
    profile: Annotated[Path, typer.Option(help="folder of a profile for the cluster")] = Path(
        "profiles/slurm"
    ),
) -> None:
    """Say what of a profile this cluster cannot give; nothing is submitted."""
    from darkroom.slurm import check, check_rules, read_profile, survey, try_requests
    from darkroom.slurm.check import describe, rule_names

    try:
        requests = read_profile(profile)
        findings = try_requests(requests, check(requests, survey()))
    except (OSError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    findings = [*check_rules(requests, rule_names(Path.cwd())), *findings]
    for request in requests:
        wrong = any(finding.fatal for finding in findings if finding.rule == request.rule)
        typer.echo(f"{request.rule:<18} {'cannot run' if wrong else 'ok':<10}  {describe(request)}")
    for finding in findings:
        typer.echo(f"{'' if finding.fatal else 'note: '}{finding.rule}: {finding.text}", err=finding.fatal)
    raise typer.Exit(1 if any(finding.fatal for finding in findings) else 0)


if __name__ == "__main__":
    app()
