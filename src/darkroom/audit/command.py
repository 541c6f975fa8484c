"""`darkroom audit`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.refused import refused

if TYPE_CHECKING:
    from darkroom.audit.scored import Scored
    from darkroom.score.pictures import Column

FOLDER = Path("results/audits")


def audit(
    dataset: Annotated[
        str, typer.Argument(help="name of a dataset in config/datasets, of which scores lie here")
    ],
    scorer: Annotated[str, typer.Option(help="whose scores are audited")] = "",
    column: Annotated[
        str, typer.Option(help="a column of the list, or one of a scorer that makes several")
    ] = "",
    sample: Annotated[int, typer.Option(help="pictures to label", min=20, max=5000)] = 200,
    seed: Annotated[int, typer.Option(help="of the sample", min=0, max=2**31)] = 0,
    labels: Annotated[Path | None, typer.Option(help="the table that the page saved (.csv)")] = None,
    precision: Annotated[
        float,
        typer.Option(help="wanted; with --labels, the lowest threshold that has it is told", min=0, max=1),
    ] = 0.95,
) -> None:
    """Show scores with their thresholds; or draw a sample to label, and say how precise a score is.

    Without --scorer and --column: a page with the distribution of every score, its thresholds, and the pictures
    nearest to them. With one: a page on which a sample is labelled. With --labels: precision and recall at every
    threshold.
    """
    from darkroom.audit.scored import Scored

    try:
        scored = Scored(dataset)
        if not (scorer or column):
            if labels is not None:
                raise ValueError("--labels: of which score? Give --scorer or --column too")
            told = _overview(scored)
        elif labels is None:
            told = _draw(scored, scored.column(scorer, column), sample, seed)
        else:
            told = _judge(scored, scored.column(scorer, column), labels, precision)
        told += _notes(dataset)
    except (OSError, ValueError) as error:
        raise refused(error) from None
    for line in told:
        typer.echo(line)


def _notes(dataset: str) -> list[str]:
    """Whether the scores were made with other settings than the configuration's, where a run has the dataset."""
    from darkroom.config import ConfigError
    from darkroom.retry import project_of
    from darkroom.stages import manifest_path, settings_problems
    from darkroom.store import read_manifest

    try:
        project = project_of(dataset)
    except ConfigError:
        return []
    path = manifest_path(project, "score")
    wrong = settings_problems(project, "score", read_manifest(path), path) if path.exists() else []
    return [f"note: {line}; run `snakemake score`" for line in wrong]


def _overview(scored: "Scored") -> list[str]:
    from darkroom.audit.overview import write_overview

    out = FOLDER / scored.name / "overview.html"
    return [*write_overview(scored, out), f"open {out}"]


def _draw(scored: "Scored", column: "Column", number: int, seed: int) -> list[str]:
    from darkroom.audit.label_page import write_label_page
    from darkroom.audit.sample import draw

    folder = FOLDER / scored.name / column.name
    drawn = draw(scored.read([column]), column.name, number, seed, scored.name, column.scorer)
    unreadable = write_label_page(drawn, scored, folder / "audit.html")
    drawn.write(folder)
    told = [
        f"{column.name} of {scored.name}: {drawn.rows.height:,} drawn of {drawn.pictures:,} pictures with a value,"
        f" from {len(drawn.strata)} strata; {drawn.unknown:,} have none"
    ]
    if unreadable:
        told.append(f"{unreadable:,} of the pictures drawn cannot be read; their places on the page say so")
    given = f"--scorer {column.scorer} --column" if column.scorer else "--column"
    return [
        *told,
        f"open {folder / 'audit.html'}, label, save the table, then:",
        f"  darkroom audit {scored.name} {given} {column.name} --labels FILE.csv",
    ]


def _judge(scored: "Scored", column: "Column", labels: Path, wanted: float) -> list[str]:
    from darkroom.audit.estimate import Estimator
    from darkroom.audit.labels import read_labels, tell_strangers
    from darkroom.audit.precision import Result
    from darkroom.audit.sample import read_audit

    folder = FOLDER / scored.name / column.name
    drawn = read_audit(folder)
    found = read_labels(labels, drawn.rows)
    if found.strangers:
        tell_strangers(found, scored.uids())
    estimates = list(Estimator(drawn, found.of).estimates())
    result = Result(drawn, found, estimates, wanted, scored.keep)
    result.write_csv(folder / "precision.csv")
    result.write_page(folder / "precision.html")
    return [*result.lines(), f"all {len(estimates)} thresholds: {folder}/precision.html and precision.csv"]
