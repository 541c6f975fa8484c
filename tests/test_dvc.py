"""dvc.yaml and the rules say the same: stages, commands, parameters, dependencies, outputs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from darkroom.config import Project, load_project
from darkroom.config.load import _chain
from darkroom.stages import (
    DATASET_SECTIONS,
    RUN_SECTIONS,
    STAGES,
    UPSTREAM,
    component_names,
    manifest_path,
)

ROOT = Path(__file__).parents[1]


def resolved() -> dict[str, dict[str, Any]]:
    """`stage@item` -> the stage as DVC itself resolves it."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        return {stage.addressing: stage for stage in repo.index.stages}


def expected_params(project: Project, stage: str, root: Path = ROOT) -> dict[str, set[str]]:
    """File -> keys: every section that a stage is made from, in every file of the chain that sets it."""
    kind, name = ("datasets", project.run.dataset) if stage in DATASET_SECTIONS else ("runs", project.name)
    sections = {**DATASET_SECTIONS, **RUN_SECTIONS}[stage]
    params: dict[str, set[str]] = {}
    for layer in _chain(root / "config" / kind, name, kind):
        keys = {section for section in sections if section in layer.values}
        if keys:
            params[f"config/{kind}/{layer.name}.yaml"] = keys
    if component_names(project, stage):
        params["config/components.yaml"] = set(component_names(project, stage))
    return params


def declared_params(stage: Any) -> dict[str, set[str]]:
    return {
        str(Path(dep.fs_path).relative_to(ROOT)): set(dep.params)
        for dep in stage.deps
        if hasattr(dep, "params")
    }


def test_every_pipeline_stage_is_a_dvc_stage_of_every_published_item() -> None:
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert tuple(declared) == STAGES
    assert all(list(body["foreach"]) == ["demo"] for body in declared.values())


@pytest.mark.parametrize("stage", STAGES)
def test_a_dvc_stage_has_the_parameters_dependencies_and_outputs_of_its_rule(stage: str) -> None:
    project = load_project("demo", ROOT)
    entry = resolved()[f"{stage}@demo"]
    assert entry.cmd == f"snakemake {stage} --config run=demo"
    assert declared_params(entry) == expected_params(project, stage)
    paths = {str(Path(dep.fs_path).relative_to(ROOT)) for dep in entry.deps if not hasattr(dep, "params")}
    components = {project.component(name).path for name in component_names(project, stage)}
    upstream = {str(manifest_path(project, name)) for name in UPSTREAM[stage]}
    assert paths == upstream | components
    outs = {str(Path(out.fs_path).relative_to(ROOT)): out for out in entry.outs}
    assert str(manifest_path(project, stage)) in outs
    assert all(out.persist for out in outs.values())


def test_a_value_taken_from_the_extended_run_counts_as_a_parameter(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "config/runs/longer.yaml").write_text(
        "extends: demo\ntrain: {num_steps: 7, num_warmup_steps: 2}\n"
    )
    params = expected_params(load_project("longer", tmp_path), "train", tmp_path)
    assert params["config/runs/longer.yaml"] == {"train"}
    assert params["config/runs/demo.yaml"] == {"seed", "model", "train"}
