# Helper functions only: which runs are made, where their files lie, which parts they have.
import difflib
import functools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from darkroom.config import ConfigError, load_project
from darkroom.config.load import NAME
from darkroom.config.retries import retries_path
from darkroom.download.manners.crawl import check_contact
from darkroom.graph import KINDS, make_graph, run_names
from darkroom.publish import published_runs
from darkroom.publish.listed import first_parts
from darkroom.sources.table import is_fetched, look_at
from darkroom.sources.withdrawn import read_withdrawn
from darkroom.stages import (
    OPTIONAL,
    STAGES,
    VERSIONS,
    above,
    manifest_path,
    members,
    settings_digest,
    stage_settings,
)
from darkroom.store import in_key_order, part_index, part_name, round_of, sha256_json


def load_graph():
    """The runs that the configuration names, or an error that names the wrong key."""
    try:
        known = {
            "run": config.get("run"),
            "published": published_runs(Path(CONFIG).parent),
            "first_parts": first_parts(Path(CONFIG).parent),
            "autoencoder": config.get("autoencoder"),
        }
        unknown = sorted(key for key in config if config[key] != known.get(key))
        if unknown:
            raise WorkflowError(
                f"--config {unknown[0]}: unknown key; only run=NAME and autoencoder=NAME can be given"
            )
        return make_graph(
            run_names(config["run"]), functools.partial(load_project, config=CONFIG)
        )
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


GRAPH = load_graph()
# Parts of the driver are Python beside the rules.
sys.path.insert(0, str(Path(workflow.basedir, "workflow")))
DATASET, DATASET_LOGS = "results/datasets/{dataset}", "logs/datasets/{dataset}"
CACHE, CACHE_LOGS = "results/caches/{cache}", "logs/caches/{cache}"
RUN, RUN_LOGS = "results/runs/{run}", "logs/runs/{run}"


def look_at_source(name, dataset):
    """The state of each part of a dataset, which no machine decides."""
    try:
        withdrawn = read_withdrawn(name, CONFIG)
        parts = look_at(
            dataset.source, dataset.rows_per_part, name, withdrawn=withdrawn
        ).parts
    except (OSError, ValueError) as error:
        raise WorkflowError(str(error)) from None
    try:
        check_contact(dataset.manners, dataset.download, is_fetched(dataset.source))
    except ValueError as error:
        raise WorkflowError(f"config/datasets/{name}.yaml: {error}") from None
    return parts[: first_parts(Path(CONFIG).parent)]


STATES = {
    name: look_at_source(name, project.dataset)
    for name, project in GRAPH.datasets.items()
}


def parts_of(name, project):
    """The parts of a dataset: those of the list, and those in which rounds of retries fetch rows again."""
    listed = list(map(part_name, range(len(STATES[name]))))
    for part, sources in project.retries.parts.items():
        for gone in {s for s in sources if not round_of(s)} - set(listed):
            raise WorkflowError(
                f"{retries_path(name, CONFIG)}: {part} fetches rows of {gone} again, which the list does not have (any"
                " more); remove the file, and all rounds of this dataset are forgotten"
            )
    return [*listed, *project.retries.parts]


PARTS = {name: parts_of(name, project) for name, project in GRAPH.datasets.items()}


def project_of(wildcards):
    """The run of a job, or one of those that share the cache or the dataset of the job."""
    names = {kind: wildcards[kind] for kind in KINDS if kind in wildcards.keys()}
    try:
        return GRAPH.project(**names)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


def of_run(get):
    """A function of a job's wildcards: what `get` finds in the configuration of its run."""
    return lambda wildcards: get(project_of(wildcards))


def made_with(stage):
    """A function of a job's wildcards: the digest of a stage's settings."""
    return of_run(lambda project: digest_of(project.name, project.run.dataset, stage))


@functools.cache
def digest_of(run, dataset, stage):
    """The digest of a stage's settings; many parts have the same."""
    project = GRAPH.runs[run]
    of_dataset = (of for of in project.members if of.run.dataset == dataset)
    return settings_digest(next(of_dataset, project), stage)


def all_settings(stage):
    """A function of a job's wildcards: a stage's settings, for its manifest."""
    return of_run(functools.partial(stage_settings, stage=stage))


def filled(pattern, project):
    """`pattern` with the names of a run, its cache and its dataset; a part's stays open.

    Of a run with several datasets that is one of its members, unless the pattern names only the run.
    """
    names = {"run": project.name, "part": "{part}"}
    if "{cache}" in pattern or "{dataset}" in pattern:
        names |= {"cache": project.cache, "dataset": project.dataset_name}
    return pattern.format(**names)


def wanted_of(wildcards, if_wanted):
    """A job's run as each of its datasets knows it, of those for which `if_wanted` is true."""
    members_of = project_of(wildcards).members
    return [of for of in members_of if if_wanted is None or if_wanted(of)]


def of_job(pattern, if_wanted=None):
    """An input function: the file of the cache or the dataset that a job belongs to.

    A job of a run with several datasets has one for each. None, where `if_wanted` is false.
    """

    def path(wildcards):
        paths = [filled(pattern, of) for of in wanted_of(wildcards, if_wanted)]
        return paths[0] if len(paths) == 1 else paths

    return path


def for_parts(pattern, if_wanted=None):
    """An input function: such a file for every part of the dataset, or of one dataset after another."""

    def paths(wildcards):
        found = [
            paths_of_parts(filled(pattern, of), of.dataset_name)
            for of in wanted_of(wildcards, if_wanted)
        ]
        return found[0] if len(found) == 1 else sum(found, [])

    return paths


@functools.cache
def paths_of_parts(pattern, dataset):
    """One path a part; runs that share a dataset or a cache share the list."""
    return [pattern.replace("{part}", part) for part in PARTS[dataset]]


def for_shell(files):
    """The file or the files of an input as words of a command."""
    return shlex.join([files] if isinstance(files, str) else map(str, files))


def if_online(project):
    """Whether training reads pictures itself."""
    return project.run.cache.online


def unless_online(project):
    """Whether pictures are encoded before the training."""
    return not project.run.cache.online


def if_priors(project):
    """Whether training weighs DreamBooth's class pictures apart, which the tables of the download tell."""
    return project.run.train.prior_weight is not None


def if_rewritten(project):
    """Whether a language model writes captions of the dataset's captions."""
    return project.dataset.rewrite is not None


def if_read_by(stage, name):
    """Whether a stage of the dataset reads what another makes."""
    return lambda project: name in above(project, stage)


def manifests(stage):
    """An input function: the manifests of a stage of the runs that were asked for."""
    paths = [
        str(manifest_path(of, stage))
        for project in GRAPH.asked
        for of in members(project, stage)
    ]

    def once_each(wildcards):
        # Not before: while rules are read, Snakemake has no options yet.
        refuse_options_of_no_rule()
        refuse_components(stage)
        if not paths:
            raise WorkflowError(
                f"{stage}: nothing that was asked for has the section {OPTIONAL[stage]}"
            )
        return list(dict.fromkeys(paths))

    return once_each


def initial_manifest(project):
    """The manifest of the phase that a training goes on from, if there is one."""
    before = project.run.train.initial_run
    return (
        []
        if before is None
        else filled(f"{RUN}/train/manifest.json", GRAPH.runs[before])
    )


def manifests_above(project):
    """The manifests of all stages that a report tells of."""
    return [
        str(manifest_path(of, stage))
        for stage in STAGES
        if stage != "report"
        for of in members(project, stage)
    ]


def kinds_of_sources(project):
    """The kind of the dataset's source; a list of those of several datasets."""
    kinds = [dataset.source.kind for dataset in project.datasets.values()]
    return kinds if len(kinds) > 1 else kinds[0]


def folders_of_logs(project):
    """Where the logs of a run's stages lie."""
    shared = [
        filled(logs, member)
        for logs in (DATASET_LOGS, CACHE_LOGS)
        for member in project.members
    ]
    return [*shared, filled(RUN_LOGS, project)]


def part_state(what):
    """A function of a part's wildcards: what changes when its rows, or the files of its pictures, do.

    What rows of a round of retries are made from are tables, its inputs.
    """

    def state(wildcards):
        if round_of(wildcards.part):
            return None
        states = STATES[project_of(wildcards).dataset_name]
        index = part_index(wildcards.part)
        # A part that the dataset does not have (any more).
        return getattr(states[index], what) if index < len(states) else None

    return state


def retried_tables(wildcards):
    """The tables whose failed rows a part of a round of retries fetches again; none of a part of the list."""
    if not round_of(wildcards.part):
        return []
    sources = project_of(wildcards).retries.parts.get(wildcards.part)
    if sources is None:
        raise WorkflowError(
            f"{wildcards.part}: no round of retries of {wildcards.dataset} has this part"
        )
    return [
        f"{DATASET}/download/{{part}}.parquet".format(
            dataset=wildcards.dataset, part=part
        )
        for part in sources
    ]


@functools.cache
def source_state(dataset):
    """What changes when the list of a dataset does."""
    return sha256_json([state.rows for state in STATES[dataset]])


def settings(section):
    """A configuration section as plain values, for `params`; None for one that is switched off.

    In the order of their names: Snakemake takes another order, as where the code has moved an option, for a change.
    """
    return section and in_key_order(section.model_dump(mode="json"))


def refuse_options_of_no_rule():
    """Refuse options that name no rule, as a stage or a misspelt one: they would silently do nothing."""
    said = {
        "-R": workflow.dag_settings.forcerun,
        "set-resources": workflow.resource_settings.overwrite_resources,
        "set-threads": workflow.resource_settings.overwrite_threads,
    }
    rules = [rule.name for rule in workflow.rules]
    for option, names in said.items():
        for name in names:
            if name in STAGES:
                made_by = ", ".join(r for r in rules if r.startswith(f"{name}_"))
                raise WorkflowError(
                    f"{option} {name}: a stage is only a target; name one of its rules: {made_by}"
                )
            # -R takes files too, and Snakemake refuses what is neither.
            if option != "-R" and name not in rules:
                near = difflib.get_close_matches(name, rules, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise WorkflowError(f"{option} {name}: no rule has this name{hint}")


def begin_driving():
    """Hold the results and what the runs were started with; the executor watches over the jobs."""
    from driver import batch, lock, signals, stale, together, triggers

    for project in GRAPH.asked:
        for member in project.members:
            cache = filled(CACHE, member)
            logger.info(
                f"run {project.name}, dataset {member.dataset_name}, cache {cache}"
            )
    outputs = [output for job in workflow.dag.needrun_jobs() for output in job.output]
    lock.hold(outputs)
    triggers.refuse_times_of_code(workflow)
    batch.watch_over(workflow)
    pinned.hold(SNAPSHOT, ".snakemake/darkroom/pinned")
    stale.set_pictures_aside(workflow)
    stale.remove_manifests(workflow)
    stale.remove_unfinished(outputs)
    together.plan(workflow)
    if workflow.local_exec:
        signals.hand_on()


def end_driving():
    """Leave nothing that only this driver needs."""
    from driver import together

    together.clear(workflow)


def record_in_dvc():
    """Leave dvc.lock true, unless DVC is the caller and does so itself."""
    if "DVC_STAGE" not in os.environ:
        names = [project.name for project in GRAPH.asked]
        subprocess.run(
            [sys.executable, "workflow/scripts/dvc_commit.py", *names], check=True
        )


def prepare_for_dvc():
    """In the driver, before anything is planned: results that DVC can follow and Snakemake can replace."""
    if workflow.is_main_process:
        from driver import record

        record.prepare(workflow, GRAPH, record_in_dvc)


prepare_for_dvc()
