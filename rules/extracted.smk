# Which features of pictures metrics share, and where they lie.
from dataclasses import asdict
from itertools import chain

from darkroom.metrics.embeddings import asked_features
from darkroom.metrics.extracted import REAL


def features_asked(project, metrics):
    """The features that these metrics of a run ask for: name of their files -> what is asked."""
    return {
        asked.name(COMPONENTS[asked.extractor.component]): asked
        for name in metrics
        for asked in asked_features(
            project.run.measure.chosen[name], METRICS[name].references, MODELS
        )
    }


FEATURES = {
    name: asked
    for project in GRAPH.runs.values()
    for name, asked in features_asked(project, project.run.measure.chosen).items()
}


def feature_files(project, metrics):
    """The files of the features that these metrics of a run ask for: one of each job.

    Those of real pictures lie with the cache, for all runs that have it; of a run on several datasets it depends on
    the training which pictures these are.
    """
    shared = f"{CACHE}/features" if len(project.members) == 1 else f"{RUN}/features"
    return {
        asked: [
            filled(
                f"{shared if asked.of == REAL else f'{RUN}/features'}/{name}.{span.start}-{span.stop}.safetensors",
                project,
            )
            for span in asked.spans(
                asked.number or number_drawn(project),
                project.run.measure.pictures_per_job,
            )
        ]
        for name, asked in features_asked(project, metrics).items()
    }


def number_drawn(project):
    """Pictures that a run draws from a model."""
    return len(RECORDS[project.name]) * project.run.draw.num_pictures_per_prompt


def features_of_metric(wildcards):
    """An input function: what a metric finds there."""
    files = feature_files(project_of(wildcards), [wildcards.metric])
    return list(chain.from_iterable(files.values()))


def real_features_watched(wildcards):
    """An input function: the features of real pictures that steps of a training are compared with."""
    project = project_of(wildcards)
    files = feature_files(project, project.run.watch.measured)
    # Of several datasets the first pictures are taken, whatever the training will have seen of each.
    several = len(project.members) > 1
    real = [paths for asked, paths in files.items() if asked.of == REAL and not several]
    return list(chain.from_iterable(real))


def asked_of_job(wildcards):
    """What a job computes features by."""
    of = wildcards.get("model", REAL)
    name = f"{wildcards.features}.{of}"
    if name not in FEATURES:
        raise WorkflowError(f"no metric of a run asks for the features {name}")
    return FEATURES[name]


def extractor_of_job(wildcards):
    """The same as plain values, for `params`."""
    asked = asked_of_job(wildcards)
    return {
        "extractor": asdict(asked.extractor),
        "number": asked.number,
        "component": component(asked.extractor.component),
        **VERSIONS["measure"],
    }


def extractor_files(wildcards):
    """The files of its component on this machine."""
    return component_files(asked_of_job(wildcards).extractor.component)


def drawn_by_model(ending):
    """An input function: the drawn pictures of one model, or their tables."""
    pattern = f"{RUN}/draw/pictures/{{model}}/{{chunk}}.{ending}"
    return lambda wildcards: [
        path
        for path in of_chunks(wildcards.run, pattern)
        if Path(path).parent.name == wildcards.model
    ]
