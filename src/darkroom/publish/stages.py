"""`dvc.yaml`, generated: one DVC stage for each pipeline stage of every published run.

Snakemake decides what is made again and deletes what it replaces, so every output has `persist`: DVC would
otherwise delete it before Snakemake is asked. Stages that runs share stand there once, under the name of the
folder that holds them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from darkroom.config import Project, load_project
from darkroom.config.load import layers_of
from darkroom.config.retries import retries_path
from darkroom.publish.listed import chain_of, published_runs
from darkroom.publish.tracked import tracked_names, tracked_path
from darkroom.settings.base import Section
from darkroom.settings.paths import local_path
from darkroom.stages import (
    DATASET_SECTIONS,
    RUN_SECTIONS,
    STAGES,
    component_names,
    folder,
    upstream_paths,
)

_HEADER = """\
# Written by `darkroom publish --write` from the runs that config/config.yaml lists as published; do not edit.
# What Snakemake makes, DVC identifies: `dvc repro train-demo` calls Snakemake for the stage `train` of the run
# `demo`. `persist` leaves deleting and rebuilding to Snakemake.
"""
# What DVC identifies of a stage beside its manifest and its tracked files.
_OUTS = {"train": ["model"], "watch": ["best"], "draw": ["pictures"]}
# The stages that read the prompts.
_OF_PROMPTS = ("watch", "draw")
# How DVC draws the copies of tables that Git tracks.
_AXES = {
    "funnel.csv": {"template": "bar_horizontal", "x": "remaining", "y": "criterion"},
    "loss.csv": {"x": "step", "y": "loss"},
    "steps.csv": {"x": "step"},
}


def stage_name(project: Project, stage: str) -> str:
    """What DVC calls a stage, e.g. `train-demo`: the pipeline's name and that of the folder with its results,
    which is the dataset's, the cache's or the run's."""
    return f"{stage}-{folder(project, stage).parent.name}"


def stage_entry(project: Project, stage: str, root: str | Path = ".") -> dict[str, Any]:
    """A stage as it stands in dvc.yaml."""
    here, kept = folder(project, stage), {"persist": True}
    entry: dict[str, Any] = {"cmd": f"snakemake {stage} --config run={project.name}"}
    deps = [str(path) for path in upstream_paths(project, stage).values()]
    deps += _component_folders(project, stage, Path(root)) + _prompt_files(project, stage, Path(root))
    if deps:
        entry["deps"] = deps
    entry["params"] = [{path: keys} for path, keys in _params(project, stage, root).items()]
    entry["outs"] = [{str(here / name): kept} for name in out_names(stage)]
    return entry


def out_names(stage: str) -> list[str]:
    """What DVC identifies of a stage, by its path from the stage's folder; `dvc pull` brings this much."""
    return ["manifest.json", *_OUTS.get(stage, []), *tracked_names(stage)]


def out_paths(entry: Mapping[str, Any]) -> list[str]:
    """The same of an entry of dvc.yaml, from the project's folder."""
    return [path for out in entry["outs"] for path in out]


def stage_entries(root: str | Path = ".") -> dict[str, dict[str, Any]]:
    """DVC's name -> entry, of every stage of every published run, in the order of the pipeline.

    Raises:
        ConfigError: the list of published runs, or one of the runs, is wrong.
    """
    found: dict[tuple[int, str], tuple[Project, str]] = {}
    for run in published_runs(root):
        for project, stage in chain_of(load_project(run, root), root):
            # Of runs that share a stage, the first makes it.
            found.setdefault((STAGES.index(stage), stage_name(project, stage)), (project, stage))
    ordered = sorted(found, key=lambda place: place[0])
    return {name: stage_entry(*found[number, name], root) for number, name in ordered}


def pipeline_text(root: str | Path = ".") -> str:
    """The whole of dvc.yaml."""
    entries = stage_entries(root)
    # A blank line before every stage but the first.
    stages = re.sub(r"(?m)(?<!^stages:\n)^  (?=\S)", "\n  ", _yaml({"stages": entries}))
    return "\n".join(
        [_HEADER + stages, *(_yaml({key: shown}) for key, shown in _shown(entries).items() if shown)]
    )


def _yaml(body: dict[str, Any]) -> str:
    return yaml.dump(body, Dumper=_Indented, sort_keys=False, width=120, allow_unicode=True)


def _shown(entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Plots and metrics of what Git tracks, which a clone without data has too."""
    plots: list[dict[str, Any]] = []
    metrics: list[str] = []
    for name in entries:
        for file in tracked_names(name.partition("-")[0]):
            path = str(tracked_path(name, file))
            if file in _AXES:
                plots.append({path: _AXES[file]})
            else:
                metrics.append(path)
    return {"metrics": metrics, "plots": plots}


class _Indented(yaml.SafeDumper):
    """Lists are indented below their key, and a value that comes twice is written twice."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _params(project: Project, stage: str, root: str | Path) -> dict[str, list[str]]:
    """File -> keys: every section that a stage is made from, in every file of the chain that sets it."""
    config = project.dataset if stage in DATASET_SECTIONS else project.run
    kind, name = ("dataset", project.dataset_name) if stage in DATASET_SECTIONS else ("run", project.name)
    sections = {**DATASET_SECTIONS, **RUN_SECTIONS}[stage]
    params = {}
    for layer in layers_of(kind, name, root):
        told = {section: layer.values[section] for section in sections if section in layer.values}
        keys = [
            key for name, values in told.items() for key in _recorded(name, getattr(config, name), values)
        ]
        if keys:
            params[f"config/{kind}s/{layer.name}.yaml"] = keys
    if stage == "download" and project.retries.rounds:
        params[str(retries_path(project.dataset_name))] = ["rounds"]
    components = component_names(project, stage)
    return {**params, **({"config/components.yaml": components} if components else {})}


def _recorded(name: str, section: Any, values: Any) -> list[str]:
    """The key of a section; of one with options that are not recorded, those of the others that a file sets."""
    fields = type(section).model_fields if isinstance(section, Section) else {}
    hidden = {option for option, field in fields.items() if field.exclude}
    if not hidden or not isinstance(values, dict):
        return [name]
    return [f"{name}.{option}" for option in values if option not in hidden]


def _component_folders(project: Project, stage: str, root: Path) -> list[str]:
    """Components that lie in the project; those that lie elsewhere are known by their settings."""
    paths = {project.component(name).path for name in component_names(project, stage)}
    return sorted(path for path in paths if _in_project(path) and (root / path).is_dir())


def _prompt_files(project: Project, stage: str, root: Path) -> list[str]:
    """The file of prompts that pictures are drawn of, if it lies in the project."""
    path = getattr(project.run.draw.prompts, "path", None) if stage in _OF_PROMPTS else None
    return [path] if path and _in_project(path) and (root / path).is_file() else []


def _in_project(path: str) -> bool:
    return not path.startswith("$") and not local_path(path).is_absolute()
