"""The stages: what each is made from, where it lies, and whether what lies there is still true.

Rules, `dvc.yaml` and the checks read the same tables, so that none of them can drift from the others.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom import (
    bucket,
    cache,
    download,
    draw,
    evaluate,
    metrics,
    recaption,
    report,
    rewrite,
    score,
    train,
    watch,
)
from darkroom import filter as selection
from darkroom.components.base import named_components
from darkroom.config import Project
from darkroom.differences import told
from darkroom.metrics.table import METRICS
from darkroom.scorers.table import SCORERS
from darkroom.settings.base import Section
from darkroom.store import in_key_order, read_manifest, round_of, sha256_json, sha256_path

# Stage -> the sections of the dataset's and of the run's configuration that it is made from.
DATASET_SECTIONS = {
    "download": ("source", "rows_per_part", "download"),
    "score": ("scorers",),
    "filter": ("keep",),
    "recaption": ("recaption", "own_captions", "caption_gates"),
    "rewrite": ("rewrite", "rewrite_gates"),
}
# A run on one dataset has no `datasets`.
RUN_SECTIONS = {
    "bucket": ("dataset", "datasets", "bucket"),
    "cache": ("cache",),
    "train": ("datasets", "seed", "model", "train"),
    "watch": ("watch", "draw", "measure", "evaluate"),
    "draw": ("draw",),
    "measure": ("datasets", "measure"),
    "evaluate": ("evaluate",),
    "report": ("description",),
}
# Of these, what runs with the same dataset, buckets and encoders share.
CACHE_STAGES = ("bucket", "cache")
# Stage -> the section without which there is no such stage.
OPTIONAL = {"rewrite": "rewrite", "watch": "watch"}
# Stage -> the stages whose manifests its own manifest names, as far as it reads them, see `above`.
UPSTREAM = {
    "download": (),
    "score": ("download",),
    "filter": ("score",),
    "recaption": ("filter",),
    "rewrite": ("recaption",),
    "bucket": ("filter", "recaption", "rewrite"),
    "cache": ("recaption", "rewrite", "bucket"),
    "train": ("cache",),
    "watch": ("train",),
    "draw": ("train",),
    "measure": ("bucket", "draw"),
    "evaluate": ("train", "draw", "measure"),
    "report": ("watch", "evaluate"),
}
STAGES = tuple(UPSTREAM)
# Stage -> what of its code is recorded with its settings: integers that stand beside the code itself.
VERSIONS = {
    "download": {"version": download.VERSION},
    "score": {"version": score.VERSION},
    "filter": {"version": selection.VERSION},
    "recaption": {"version": recaption.VERSION},
    "rewrite": {"version": rewrite.VERSION},
    "bucket": {"version": bucket.VERSION},
    "cache": {"version": cache.VERSION},
    "train": {"version": train.VERSION},
    "watch": {"version": watch.VERSION},
    "draw": {"version": draw.VERSION},
    "measure": {"version": metrics.VERSION},
    "evaluate": {"version": evaluate.VERSION},
    "report": {"version": report.VERSION},
}
# Stage -> the sections whose components it uses, where these are not its own: training draws samples.
COMPONENT_SECTIONS = {"train": ("cache", "model")}


def members(project: Project, stage: str) -> tuple[Project, ...]:
    """Of whom a stage is made: of the datasets of a run that have it, as each knows the run, or of the run."""
    of_run, section = stage not in (*DATASET_SECTIONS, *CACHE_STAGES), OPTIONAL.get(stage)
    return tuple(
        of
        for of in ((project,) if of_run else project.members)
        if section is None or getattr(of.run if of_run else of.dataset, section) is not None
    )


def folder(project: Project, stage: str) -> Path:
    """Where a stage's files lie: with the dataset, with the cache, or with the run.

    Raises:
        ConfigError: the stage is one of each dataset, and the run has several: ask for one of its `members`.
    """
    if stage in DATASET_SECTIONS:
        return Path("results/datasets") / project.dataset_name / stage
    if stage in CACHE_STAGES:
        return Path("results/caches") / project.cache / stage
    return Path("results/runs") / project.name / stage


def manifest_path(project: Project, stage: str) -> Path:
    """The stage's manifest."""
    return folder(project, stage) / "manifest.json"


def above(project: Project, stage: str) -> tuple[str, ...]:
    """The stages that a stage is made from: those of UPSTREAM that are there and that it reads.

    Of a stage of each dataset ask for one of its `members`.
    """
    return tuple(
        name for name in UPSTREAM[stage] if members(project, name) and _is_read(project, stage, name)
    )


def _is_read(project: Project, stage: str, name: str) -> bool:
    """Whether a stage reads another of UPSTREAM: buckets need no captions unless gates drop pictures for them."""
    if stage != "bucket" or name == "filter":
        return True
    dataset = project.dataset
    gates = {"recaption": dataset.caption_gates, "rewrite": dataset.rewrite_gates}[name]
    return gates is not None and gates.drops


def upstream_paths(project: Project, stage: str) -> dict[str, Path]:
    """The manifests that a stage's own names: of the stages `above`, and of a training the phase before it.

    Where a run has several datasets, their manifests are `cache/NAME` and so on.
    """
    paths = {}
    for name in above(project, stage):
        several = members(project, name)
        for of in several:
            paths[name if len(several) == 1 else f"{name}/{of.dataset_name}"] = manifest_path(of, name)
    before = project.run.train.initial_run
    if stage == "train" and before is not None:
        paths["initial"] = Path("results/runs") / before / "train" / "manifest.json"
    return paths


def component_names(project: Project, stage: str) -> list[str]:
    """The pretrained components that a stage uses, sorted."""
    sections = COMPONENT_SECTIONS.get(stage, {**DATASET_SECTIONS, **RUN_SECTIONS}[stage])
    found = [
        getattr(of.dataset if stage in DATASET_SECTIONS else of.run, key)
        for of in members(project, stage)
        for key in sections
    ]
    if stage == "watch":
        found = list(_watched(project).values())
    return sorted({named.name for section in found for named in named_components(section)})


def stage_settings(project: Project, stage: str) -> dict[str, Any]:
    """What a stage is made from besides its inputs: its sections of the configuration, its components and
    the version of its code, as plain values for its manifest."""
    config = project.dataset if stage in DATASET_SECTIONS else project.run
    values = config.model_dump(mode="json")
    sections = {**DATASET_SECTIONS, **RUN_SECTIONS}[stage]
    components = {
        name: project.component(name).model_dump(mode="json") for name in component_names(project, stage)
    }
    named: dict[str, Any] = {"components": components} if components else {}
    if stage == "score":
        # Of the code, each scorer has its own version.
        named["versions"] = {name: SCORERS[name].version for name in project.dataset.scorers.listed()}
    if stage == "watch":
        # A metric that steps are not judged by judges none again.
        values["measure"] = {name: values["measure"][name] for name in _watched(project)}
        named["versions"] = {name: VERSIONS[name]["version"] for name in ("draw", "measure", "evaluate")}
    # In what order the code has its options makes nothing stale.
    return in_key_order(
        {**{key: values[key] for key in sections if key in values}, **named, **VERSIONS[stage]}
    )


def metric_digest(project: Project, metric: str) -> str:
    """SHA-256 of what one metric is measured with: its options and components, and the code's version.

    A metric's own manifest tells it, so that another metric's options make none of its numbers stale.
    """
    section = project.run.measure.chosen[metric]
    components = {"components": {}, **_components(project, section)}
    options = section.model_dump(mode="json")
    shares = [share.model_dump(mode="json") for share in project.run.datasets]
    references = {"datasets": shares} if shares and METRICS[metric].references else {}
    body = {"metric": metric, "options": options, **components, **references, **VERSIONS["measure"]}
    return sha256_json(body)


def _watched(project: Project) -> dict[str, Section]:
    """The metrics that steps are judged by, with their options."""
    watch = project.run.watch
    return {} if watch is None else {name: project.run.measure.chosen[name] for name in watch.measured}


def _components(project: Project, section: Section) -> dict[str, Any]:
    """The settings of the components that a section names, under `components`; nothing where it names none."""
    names = sorted({named.name for named in named_components(section)})
    components = {name: project.component(name).model_dump(mode="json") for name in names}
    return {"components": components} if components else {}


def scorer_digest(project: Project, scorer: str) -> str:
    """SHA-256 of what one scorer's columns are made with: its options and components, the versions of its code and
    the stage's, and the same of the scorers that it comes after."""
    section = project.dataset.scorers.listed()[scorer]
    options, components = section.model_dump(mode="json"), _components(project, section)
    versions = {"scorer_version": SCORERS[scorer].version, **VERSIONS["score"]}
    before = {name: scorer_digest(project, name) for name in SCORERS[scorer].after}
    after = {"after": before} if before else {}
    return sha256_json({"scorer": scorer, "options": options, **components, **versions, **after})


def settings_digest(project: Project, stage: str) -> str:
    """SHA-256 of `stage_settings`: what each part's manifest says it was made with."""
    return sha256_json(stage_settings(project, stage))


def problems(project: Project, stage: str) -> list[str]:
    """Why a stage's manifest is not current with the configuration and with the manifests above it.

    A stage of each dataset is current where all of its manifests are.
    """
    return [line for of in members(project, stage) for line in _problems(of, stage)]


def _problems(project: Project, stage: str) -> list[str]:
    path = manifest_path(project, stage)
    if not path.exists():
        return [f"{path}: missing"]
    try:
        body = read_manifest(path)
    except ValueError as error:
        return [str(error)]
    if not {"params", "upstream"} <= body.keys():
        return [f"{path}: no manifest of a stage; remove it, and it is made again"]
    found = settings_problems(project, stage, body, path)
    if stage == "download" and retried_parts(body) != list(project.retries.parts):
        found.append(f"{path}: has not the rounds of retries that the configuration names")
    for name, above in upstream_paths(project, stage).items():
        if not above.exists():
            found.append(f"{above}: missing")
        elif body["upstream"].get(name) != sha256_path(above):
            found.append(f"{path}: was made from another {name} than {above}")
    return found


def retried_parts(body: Mapping[str, Any]) -> list[str]:
    """The parts of rounds of retries that a manifest names, in order."""
    names = [name.removesuffix(".json") for name in body.get("parts", {})]
    return sorted((name for name in names if round_of(name)), key=lambda name: (round_of(name), name))


def settings_problems(project: Project, stage: str, body: Mapping[str, Any], path: Path) -> list[str]:
    """Whether a manifest, read from `path`, was made with the configuration and this code; a sentence if not."""
    settings = stage_settings(project, stage)
    versions = {key: body["params"].get(key) for key in VERSIONS[stage]}
    made_with = {**body["params"], **VERSIONS[stage]}
    if made_with != settings:
        return [
            f"{path}: was made with other settings than the configuration's ({told(made_with, settings)})"
        ]
    if versions != VERSIONS[stage]:
        return [f"{path}: was made by another version of the stage than this code's"]
    return []


def current_stages(project: Project) -> list[str]:
    """The stages that are current and whose whole chain above is, in order."""
    current: list[str] = []
    for stage in STAGES:
        needed = {name for of in members(project, stage) for name in above(of, stage)}
        if needed <= set(current) and not problems(project, stage):
            current.append(stage)
    return current
