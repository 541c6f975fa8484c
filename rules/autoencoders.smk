# Helper functions only: the autoencoders that were asked for, and what they are made from.
from darkroom.autoencoder.project import load_autoencoder
from darkroom.graph import named

AUTOENCODER = "results/autoencoders/{autoencoder}"
AUTOENCODER_LOGS = "logs/autoencoders/{autoencoder}"


def load_autoencoders():
    """Name -> autoencoder, or an error that names the wrong key."""
    if "autoencoder" not in config:
        return {}
    try:
        found = {
            name: load_autoencoder(name, config=CONFIG)
            for name in named("autoencoder", config["autoencoder"])
        }
    except ConfigError as error:
        raise WorkflowError(str(error)) from None
    for name, project in found.items():
        dataset = project.autoencoder.dataset
        if dataset not in GRAPH.datasets:
            raise WorkflowError(
                f"config/autoencoders/{name}.yaml: dataset: {dataset} is of none of the runs"
                f" {', '.join(GRAPH.runs)}, which tell how it is made; name a run on it:"
                f" --config run=NAME autoencoder={name}"
            )
    return found


AUTOENCODERS = load_autoencoders()


def compared_autoencoders(wildcards):
    """The manifests of the comparisons of all that were asked for."""
    refuse_options_of_no_rule()
    if not AUTOENCODERS:
        known = ", ".join(
            sorted(p.stem for p in Path(CONFIG, "autoencoders").glob("*.yaml"))
        )
        raise WorkflowError(
            f"no autoencoder is named; write --config autoencoder=NAME (known: {known or 'none'})"
        )
    refuse_components("filter")
    for project in AUTOENCODERS.values():
        for stage in ("train", "compare"):
            for name in project.component_names(stage):
                refuse_component(name)
    return [
        f"{AUTOENCODER}/compare/manifest.json".format(autoencoder=name)
        for name in AUTOENCODERS
    ]


def autoencoder_of(wildcards):
    """The autoencoder of a job."""
    if wildcards.autoencoder not in AUTOENCODERS:
        raise WorkflowError(
            f"autoencoder {wildcards.autoencoder}: write --config autoencoder={wildcards.autoencoder}"
        )
    return AUTOENCODERS[wildcards.autoencoder]


def autoencoder_pictures(wildcards):
    """The tables and pictures of the dataset that an autoencoder learns from."""
    dataset = autoencoder_of(wildcards).autoencoder.dataset

    def of_parts(pattern):
        return paths_of_parts(pattern.replace("{dataset}", dataset), dataset)

    return {
        "download": f"{DATASET}/download/manifest.json".format(dataset=dataset),
        "filter": f"{DATASET}/filter/manifest.json".format(dataset=dataset),
        "tables": of_parts(f"{DATASET}/download/{{part}}.parquet"),
        "tars": of_parts(f"{DATASET}/download/{{part}}.tar"),
        "selections": of_parts(f"{DATASET}/filter/{{part}}.parquet"),
        "copies": files_telling_copies([GRAPH.datasets[dataset]]),
    }


def of_autoencoder(get, stage):
    """A function of a job's wildcards: what `get` finds in its autoencoder, for one of its two stages."""
    return lambda wildcards: get(autoencoder_of(wildcards), stage)


def autoencoder_settings(project, stage):
    """A stage's settings, for its manifest."""
    return project.settings(stage)


def autoencoder_component_files(project, stage):
    """The files of a stage's components on this machine."""
    return [p for name in project.component_names(stage) for p in component_files(name)]


def threads_of_autoencoder(wildcards):
    """The CPU threads of its training."""
    return autoencoder_of(wildcards).autoencoder.train.num_threads or 2
