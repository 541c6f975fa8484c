"""The stages: what each is made from, where it lies, and whether what lies there is still true.

Rules, `dvc.yaml` and the checks read the same tables, so that none of them can drift from the others.
"""

from pathlib import Path
from typing import Any

from darkroom.config import Project
from darkroom.store import read_manifest, sha256_path

# Stage -> the sections of the dataset's and of the run's configuration that it is made from.
DATASET_SECTIONS = {
    "download": ("source", "rows_per_part", "download"),
    "filter": ("filter",),
    "recaption": ("recaption",),
}
RUN_SECTIONS = {
    "bucket": ("dataset", "bucket"),
    "cache": ("cache",),
    "train": ("seed", "model", "train"),
    "evaluate": ("evaluate",),
    "report": ("description",),
}
# Stage -> the stages whose manifests its own manifest names.
UPSTREAM = {
    "download": (),
    "filter": ("download",),
    "recaption": ("filter",),
    "bucket": ("filter",),
    "cache": ("recaption", "bucket"),
    "train": ("cache",),
    "evaluate": ("bucket", "train"),
    "report": ("evaluate",),
}
STAGES = tuple(UPSTREAM)


def folder(project: Project, stage: str) -> Path:
    """Where a stage's files lie: with the dataset, with the run that owns the cache, or with the run."""
    if stage in DATASET_SECTIONS:
        return Path("results/datasets") / project.run.dataset / stage
    owner = project.cache_owner if stage in ("bucket", "cache") else project.name
    return Path("results/runs") / owner / stage


def manifest_path(project: Project, stage: str) -> Path:
    """The stage's manifest."""
    return folder(project, stage) / "manifest.json"


def upstream_paths(project: Project, stage: str) -> dict[str, Path]:
    """The manifests that a stage's own names: those of UPSTREAM, and of a training the phase before it."""
    paths = {name: manifest_path(project, name) for name in UPSTREAM[stage]}
    before = project.run.train.initial_run
    if stage == "train" and before is not None:
        paths["initial"] = Path("results/runs") / before / "train" / "manifest.json"
    return paths


def component_names(project: Project, stage: str) -> list[str]:
    """The pretrained components that a stage uses, sorted."""
    run = project.run
    encoding = [run.cache.vae, *(encoder.name for encoder in run.cache.encoders)]
    names = {
        "recaption": [project.dataset.recaption.captioner] if project.dataset.recaption else [],
        "cache": encoding,
        "train": [*encoding, *([run.model.pretrained] if run.model.pretrained else [])],
        "evaluate": [run.evaluate.clip],
    }
    return sorted(set(names.get(stage, [])))


def stage_settings(project: Project, stage: str) -> dict[str, Any]:
    """Everything of the configuration that a stage is made from, as plain values for its manifest."""
    config = project.dataset if stage in DATASET_SECTIONS else project.run
    values = config.model_dump(mode="json")
    sections = {**DATASET_SECTIONS, **RUN_SECTIONS}[stage]
    components = {
        name: project.component(name).model_dump(mode="json") for name in component_names(project, stage)
    }
    return {**{key: values[key] for key in sections}, **({"components": components} if components else {})}


def problems(project: Project, stage: str) -> list[str]:
    """Why a stage's manifest is not current with the configuration and with the manifests above it."""
    path = manifest_path(project, stage)
    if not path.exists():
        return [f"{path}: missing"]
    body = read_manifest(path)
    found = []
    if body["params"] != stage_settings(project, stage):
        found.append(f"{path}: was made with other settings than the configuration's")
    for name, above in upstream_paths(project, stage).items():
        if not above.exists():
            found.append(f"{above}: missing")
        elif body["upstream"].get(name) != sha256_path(above):
            found.append(f"{path}: was made from another {name} than {above}")
    return found


def current_stages(project: Project) -> list[str]:
    """The stages that are current and whose whole chain above is, in order."""
    current: list[str] = []
    for stage in STAGES:
        if set(UPSTREAM[stage]) <= set(current) and not problems(project, stage):
            current.append(stage)
    return current
