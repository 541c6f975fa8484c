# Helper functions only: which pictures a run draws, and which metrics are measured on them.
from darkroom.benchmarks.table import prompt_files, read_prompts
from darkroom.components.base import named_components
from darkroom.draw.chunks import chunk_names
from darkroom.metrics.table import METRICS, split_by_applicability
from darkroom.stages import metric_digest


def read_records(project):
    """The prompts that a run draws, or an error that names the wrong file and line."""
    try:
        return read_prompts(project.run.draw.prompts, project.run.draw.max_prompts)
    except (OSError, ValueError) as error:
        raise WorkflowError(str(error)) from None


RECORDS = {name: read_records(project) for name, project in GRAPH.runs.items()}
# Model -> the folder of the training that it lies in.
MODELS = {"trained": "model", "untrained": "untrained"}


def prompts_source(project):
    """The files that the prompts come from."""
    return [str(path) for path in prompt_files(project.run.draw.prompts)]


def chosen_metrics(project):
    """The metrics that are measured. One that says nothing of the prompts is not; evaluate tells why."""
    return split_by_applicability(project.run.measure.chosen, RECORDS[project.name])[0]


def refuse_metrics(project):
    """Refuse what a metric cannot be measured on or with. What jobs need that is not here they may have."""
    for name in chosen_metrics(project):
        section = project.run.measure.chosen[name]
        try:
            METRICS[name].check(section, RECORDS[project.name], project.components)
        except ValueError as error:
            raise WorkflowError(f"config/runs/{project.name}.yaml: {error}") from None
        lacks = METRICS[name].missing(section)
        if lacks and workflow.is_main_process:
            logger.warning(f"config/runs/{project.name}.yaml: {lacks}")


@functools.cache
def of_chunks(run, pattern):
    """The files of all chunks, model by model."""
    chunks = chunk_names(GRAPH.runs[run].run.draw, len(RECORDS[run]))
    return expand(pattern, run=run, model=MODELS, chunk=chunks)


def drawn(ending):
    """An input function: the drawn pictures, or their tables."""
    pattern = f"{RUN}/draw/pictures/{{model}}/{{chunk}}.{ending}"
    return of_run(lambda project: of_chunks(project.name, pattern))


def measured(name):
    """An input function: a file of each metric that is measured."""
    pattern = f"{RUN}/measure/{name}"
    return of_run(
        lambda project: expand(
            pattern, run=project.name, metric=chosen_metrics(project)
        )
    )


def model_folder(wildcards):
    """The model that a job draws from."""
    return f"{RUN}/train/{MODELS[wildcards.model]}".format(run=wildcards.run)


def metric_settings(wildcards):
    """The options of a job's metric."""
    return project_of(wildcards).run.measure.chosen[wildcards.metric]


def metric_components(wildcards):
    """The names of the components that they name."""
    return sorted(
        {named.name for named in named_components(metric_settings(wildcards))}
    )


def metric_component_files(wildcards):
    """The files of these on this machine."""
    return [
        path for name in metric_components(wildcards) for path in component_files(name)
    ]


def digests_of_metrics(project):
    """What each measured metric is made with."""
    return [metric_digest(project, metric) for metric in chosen_metrics(project)]


def real_pictures(wildcards):
    """The pictures of the dataset, for metrics that compare with them."""
    return all_real_pictures(wildcards) if METRICS[wildcards.metric].references else {}


def all_real_pictures(wildcards):
    """The pictures of the dataset that a job belongs to; of a run on several datasets of all of them."""
    # How much of its samples a training on several datasets took of each, its manifest tells.
    trained = {}
    if len(project_of(wildcards).members) > 1:
        trained = {"trained": f"{RUN}/train/manifest.json".format(**wildcards)}
    return {
        **trained,
        "tables": for_parts(f"{DATASET}/download/{{part}}.parquet")(wildcards),
        "tars": for_parts(f"{DATASET}/download/{{part}}.tar")(wildcards),
        "buckets": for_parts(f"{CACHE}/bucket/{{part}}.parquet")(wildcards),
    }
