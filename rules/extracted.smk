# Which features of pictures metrics share, and where they lie.
from dataclasses import asdict

from darkroom.metrics.embeddings import asked_features
from darkroom.metrics.extracted import REAL


def features_asked(project, metrics):
    """The features that these metrics of a run ask for: name of the files of such features -> what is asked."""
    return {
        features_name(asked): asked
        for name in metrics
        for asked in asked_features(
            project.run.measure.chosen[name], METRICS[name].references, MODELS
        )
    }


def features_name(asked):
    """How files of such features are called: by all that they depend on but the pictures."""
    return f"{asked.digest(COMPONENTS[asked.extractor.component])[:16]}.{asked.of}"


FEATURES = {
    name: asked
    for project in GRAPH.runs.values()
    for name, asked in features_asked(project, project.run.measure.chosen).items()
}


def feature_files(project, metrics):
    """The files of the features that these metrics of a run ask for.

    Those of real pictures lie with the cache, for all runs that have it; of a run on several datasets it depends on
    the training which pictures these are.
    """
    shared = f"{CACHE}/features" if len(project.members) == 1 else f"{RUN}/features"
    return {
        asked: filled(
            f"{shared if asked.of == REAL else f'{RUN}/features'}/{name}.safetensors",
            project,
        )
        for name, asked in features_asked(project, metrics).items()
    }


def features_of_metric(wildcards):
    """An input function: what a metric finds there."""
    return list(feature_files(project_of(wildcards), [wildcards.metric]).values())


def real_features_watched(wildcards):
    """An input function: the features of real pictures that steps of a training are compared with."""
    project = project_of(wildcards)
    files = feature_files(project, project.run.watch.measured)
    # Of several datasets the first pictures are taken, whatever the training will have seen of each.
    several = len(project.members) > 1
    return [path for asked, path in files.items() if asked.of == REAL and not several]


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
