# Helper functions of score and filter: what the list has, which scorers there are, which a criterion asks.
import functools

from snakemake.exceptions import WorkflowError

from darkroom.components.base import named_components
from darkroom.filter import check_criteria
from darkroom.score.references import state_of
from darkroom.scorers.table import SCORERS
from darkroom.sources.table import list_columns
from darkroom.stages import scorer_digest


def list_carried(name, dataset):
    """The list's own columns, which the download's table carries; the dataset's criteria may name them."""
    try:
        columns = list_columns(dataset.source)
        check_criteria(dataset, columns)
    except ValueError as error:
        raise WorkflowError(f"config/datasets/{name}.yaml: {error}") from None
    return list(columns)


CARRIED = {
    name: list_carried(name, project.dataset)
    for name, project in GRAPH.datasets.items()
}


def look_at_references(name, dataset):
    """Of each set of pictures that a scorer compares with: where it lies, and what changes when its pictures do."""
    found = {}
    for scorer, options in dataset.scorers.listed().items():
        sets_of = SCORERS[scorer].references
        for reference, text in (sets_of(options) if sets_of else {}).items():
            try:
                found[reference] = [text, state_of(text)]
            except (OSError, ValueError) as error:
                where = (
                    f"config/datasets/{name}.yaml: scorers.{scorer}.sets.{reference}"
                )
                raise WorkflowError(f"{where}: {error}") from None
    return found


REFERENCES = {
    name: look_at_references(name, project.dataset)
    for name, project in GRAPH.datasets.items()
}


def reference_tables(wildcards):
    """The hashes of the sets of pictures that a job's scorer compares with."""
    options = project_of(wildcards).dataset.scorers.listed()[wildcards.scorer]
    sets_of = SCORERS[wildcards.scorer].references
    return [
        f"{DATASET}/score/references/{{reference}}.parquet".format(
            dataset=wildcards.dataset, reference=reference
        )
        for reference in (sets_of(options) if sets_of else ())
    ]


def scorers_asked(project):
    """The scorers whose columns a criterion names; what the others say does not matter to the filter."""
    named = {criterion.column for criterion in project.dataset.keep}
    listed = project.dataset.scorers.listed()
    return [name for name in listed if named & set(SCORERS[name].columns)]


def refuse_scorers(project):
    """Refuse those whose packages are not installed, before any job."""
    for of in members(project, "score"):
        for name in of.dataset.scorers.listed():
            extra = SCORERS[name].extra
            if extra is not None and workflow.is_main_process:
                try:
                    extra.require(name)
                except ValueError as error:
                    raise WorkflowError(
                        f"config/datasets/{of.dataset_name}.yaml: scorers: {error}"
                    ) from None


def of_round(part):
    """What the name of a scorer's file begins with, of all parts of a round: nothing, or e.g. `part-r01.`."""
    return f"{part.rpartition('-')[0]}." if round_of(part) else ""


def parts_of_round(dataset, of, earlier):
    """The parts that a scorer looks at together, whose files' names begin with `of`, or those of rounds before."""
    first = next((part for part in PARTS[dataset] if of_round(part) == of), None)
    if first is None:
        raise WorkflowError(f"{dataset} has no parts {of or 'of the list'}")
    return [
        part
        for part in PARTS[dataset]
        if (round_of(part) < round_of(first) if earlier else of_round(part) == of)
    ]


def tables_of_round(earlier):
    """An input function: the tables of the parts of a round that a scorer looks at together, or of those before."""

    def tables(wildcards):
        return [
            f"{DATASET}/download/{{part}}.parquet".format(
                dataset=wildcards.dataset, part=part
            )
            for part in parts_of_round(wildcards.dataset, wildcards.of, earlier)
        ]

    return tables


def scores_before(wildcards):
    """What the scorers that a scorer of the whole dataset comes after say of the same parts."""
    parts = [
        part
        for earlier in (True, False)
        for part in parts_of_round(wildcards.dataset, wildcards.of, earlier)
    ]
    after = SCORERS[wildcards.scorer].after
    return [
        path
        for part in parts
        for path in score_files(project_of(wildcards), part, after)
    ]


def score_files(project, part, scorers):
    """The files with the columns of `scorers`, for one part: of the part, or of the whole dataset."""
    folder = filled(f"{DATASET}/score", project)
    return [
        f"{folder}/{of_round(part) if SCORERS[name].reads == 'dataset' else f'{part}.'}{name}.parquet"
        for name in scorers
    ]


def asked_score_files(wildcards):
    """What the filter reads of a part's scores.

    What a scorer says of the whole dataset is new when a list has grown, but not what it says of a settled part.
    """
    project = project_of(wildcards)
    asked = scorers_asked(project)
    files = score_files(project, wildcards.part, asked)
    if not is_settled(wildcards.dataset, wildcards.part):
        return files
    return [
        ancient(path) if SCORERS[name].reads == "dataset" else path
        for name, path in zip(asked, files)
    ]


def asked_score_files_of(project):
    """What the criteria of a run's datasets look at, of all parts; each file once."""
    files = {
        path
        for member in project.members
        for part in PARTS[member.dataset_name]
        for path in score_files(member, part, scorers_asked(member))
    }
    return sorted(files)


def files_of_copies(project):
    """What scorers say of which pictures are copies of which, where a training holds pictures out; each file once."""
    if project.run.train.validation is None:
        return []
    return files_telling_copies(project.members)


def files_telling_copies(datasets):
    """The files of those scorers, of runs as datasets know them."""
    telling = [
        (member, name)
        for member in datasets
        for name in member.dataset.scorers.listed()
        if SCORERS[name].copy_of is not None
    ]
    files = {
        path
        for member, name in telling
        for part in PARTS[member.dataset_name]
        for path in score_files(member, part, [name])
    }
    return sorted(files)


@functools.cache
def score_files_of(dataset, ending):
    """The files of all scorers and parts of a dataset, each once."""
    project = GRAPH.datasets[dataset]
    listed = project.dataset.scorers.listed()
    files = {
        path for part in PARTS[dataset] for path in score_files(project, part, listed)
    }
    return sorted(path.removesuffix(".parquet") + ending for path in files)


def scored_tar(wildcards):
    """The pictures of a part, where its scorer reads them."""
    if SCORERS[wildcards.scorer].reads != "pixels":
        return []
    return f"{DATASET}/download/{{part}}.tar".format(**wildcards)


def scorer_options(wildcards):
    """The options of a scorer."""
    return settings(project_of(wildcards).dataset.scorers.listed()[wildcards.scorer])


def scorer_components(wildcards):
    """The components that a job's scorer names, with their settings."""
    options = project_of(wildcards).dataset.scorers.listed()[wildcards.scorer]
    return {named.name: component(named.name) for named in named_components(options)}


def scorer_component_files(wildcards):
    """The files of these on this machine."""
    return [
        path
        for name in sorted(scorer_components(wildcards))
        for path in component_files(name)
    ]


def scored_with(wildcards):
    """The digest of a scorer's options and versions."""
    return scorer_digest(project_of(wildcards), wildcards.scorer)


def all_scored_with(project):
    """The same for each scorer of a dataset."""
    return {
        name: scorer_digest(project, name) for name in project.dataset.scorers.listed()
    }
