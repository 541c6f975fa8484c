# Helper functions only: what a training reads, and the legs of one that is judged on the way.
# A leg of a training is started as the training itself, and a step is judged as pictures are drawn.
for overwritten in (
    workflow.resource_settings.overwrite_resources,
    workflow.resource_settings.overwrite_threads,
):
    for name, like in (("train_leg", "train_run"), ("watch_step", "draw_chunk")):
        if like in overwritten and name not in overwritten:
            overwritten[name] = overwritten[like]


def train_inputs(wildcards):
    """What a training reads; of a run on several datasets of each, in their order."""
    project = project_of(wildcards)
    return {
        "cache": of_job(f"{CACHE}/cache/manifest.json")(wildcards),
        "null": of_job(f"{CACHE}/cache/null.safetensors")(wildcards),
        "tensors": for_parts(f"{CACHE}/cache/{{part}}.safetensors")(wildcards),
        "tables": for_parts(f"{CACHE}/cache/{{part}}.parquet")(wildcards),
        "pretrained": component_files(project.run.model.pretrained),
        "initial": initial_manifest(project),
        "class_tables": for_parts(f"{DATASET}/download/{{part}}.parquet", if_priors)(
            wildcards
        ),
        "download": of_job(f"{DATASET}/download/manifest.json", if_online)(wildcards),
        "tars": for_parts(f"{DATASET}/download/{{part}}.tar", if_online)(wildcards),
        "copies": files_of_copies(project),
    }


def more_of_training(wildcards, input):
    """The options of a training that not every run has, as words of its command."""
    given = {
        "initial": input.initial,
        "class-tables": input.class_tables,
        "download": input.download,
        "copies": input.copies,
        "legs": input.get("legs"),
        "before": input.get("before"),
        "judged": input.get("judged"),
    }
    words = [f"--{name} {for_shell(files)}" for name, files in given.items() if files]
    return " ".join(words)


def watched_steps(project):
    """The steps of a training that are judged, by the names of their folders; none where none are."""
    watch = project.run.watch
    steps = [] if watch is None else watch.steps(project.run.train.num_steps)
    return [f"step-{step:08d}" for step in steps]


def steps_before(wildcards):
    """The judged steps before a job's."""
    steps = watched_steps(project_of(wildcards))
    if wildcards.step not in steps:
        raise WorkflowError(
            f"{wildcards.run}: {wildcards.step} is not judged; judged are {', '.join(steps) or 'none'}"
        )
    return steps[: steps.index(wildcards.step)]


def leg_before(wildcards):
    """The leg that a leg goes on from; none for the first."""
    pattern = f"{RUN}/watch/models/{{step}}"
    return expand(pattern, run=wildcards.run, step=steps_before(wildcards)[-1:])


def judged_before(wildcards):
    """What a leg of a training that may stop looks at: the steps but the last, which is judged meanwhile."""
    if project_of(wildcards).run.watch.patience is None:
        return []
    pattern = f"{RUN}/watch/{{step}}.scores.json"
    return expand(pattern, run=wildcards.run, step=steps_before(wildcards)[:-1])


def last_leg(wildcards):
    """The leg at whose end a training that is judged on the way stands; none for others."""
    steps = watched_steps(project_of(wildcards))
    return expand(f"{RUN}/watch/models/{{step}}", run=wildcards.run, step=steps[-1:])


def of_steps(name):
    """An input function: a file or folder of each judged step."""
    pattern = f"{RUN}/watch/{name}"
    return of_run(
        lambda project: expand(pattern, run=project.name, step=watched_steps(project))
    )


def watched_metrics(project):
    """The metrics that steps are judged by, with their options."""
    chosen = project.run.measure.chosen
    return {name: settings(chosen[name]) for name in project.run.watch.measured}


def watched_components(project):
    """The components of the metrics that steps are judged by, with their settings."""
    return {name: component(name) for name in component_names(project, "watch")}


def watched_component_files(project):
    """The files of these on this machine."""
    return [
        path for name in watched_components(project) for path in component_files(name)
    ]


def watched_references(wildcards):
    """The pictures of the dataset, where such a metric compares with them."""
    names = project_of(wildcards).run.watch.measured
    if not any(METRICS[name].references for name in names):
        return {}
    return {
        "tables": for_parts(f"{DATASET}/download/{{part}}.parquet")(wildcards),
        "tars": for_parts(f"{DATASET}/download/{{part}}.tar")(wildcards),
        "buckets": for_parts(f"{CACHE}/bucket/{{part}}.parquet")(wildcards),
    }
