"""dvc.yaml says what the configuration and the rules say."""

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import warm
import yaml

from darkroom.config import ConfigError, Project, load_project
from darkroom.config.load import layers_of
from darkroom.publish import pipeline_text, published_runs, stage_entries, stage_entry, stage_name
from darkroom.publish.listed import chain_of
from darkroom.publish.recorded import current_options
from darkroom.stages import (
    DATASET_SECTIONS,
    RUN_SECTIONS,
    STAGES,
    component_names,
    manifest_path,
    members,
    upstream_paths,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """A folder with the repository's configuration and components, to change."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "src").symlink_to(ROOT / "src")
    return tmp_path


def publish(root: Path, *runs: str) -> None:
    (root / "config/config.yaml").write_text(yaml.safe_dump({"run": "demo", "published": list(runs)}))


DEMO_STAGES = [stage for stage in STAGES if members(load_project("demo", ROOT), stage)]


@functools.cache
def resolved() -> dict[str, Any]:
    """Name -> the stage as DVC itself reads it."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        return {stage.addressing: stage for stage in repo.index.stages}


def expected_params(project: Project, stage: str, root: Path = ROOT) -> dict[str, set[str]]:
    """File -> keys: every section that a stage is made from, in every file of the chain that sets it."""
    kind, name = ("dataset", project.run.dataset) if stage in DATASET_SECTIONS else ("run", project.name)
    sections = {**DATASET_SECTIONS, **RUN_SECTIONS}[stage]
    params: dict[str, set[str]] = {}
    for layer in layers_of(kind, name, root):
        keys = {section for section in sections if section in layer.values}
        if keys:
            params[f"config/{kind}s/{layer.name}.yaml"] = keys
    if component_names(project, stage):
        params["config/components.yaml"] = set(component_names(project, stage))
    return params


def params_of(entry: dict[str, Any]) -> dict[str, set[str]]:
    return {path: set(keys) for item in entry["params"] for path, keys in item.items()}


def test_dvc_yaml_is_what_the_configuration_gives() -> None:
    assert (ROOT / "dvc.yaml").read_text() == pipeline_text(ROOT), "give `darkroom publish --write`"
    demo, runs = load_project("demo", ROOT), [load_project(run, ROOT) for run in published_runs(ROOT)]
    assert set(resolved()) == {stage_name(*of) for run in runs for of in chain_of(run, ROOT)}
    assert set(resolved()) >= {stage_name(demo, stage) for stage in DEMO_STAGES}


@pytest.mark.parametrize("stage", DEMO_STAGES)
def test_a_dvc_stage_has_the_parameters_dependencies_and_outputs_of_its_rule(stage: str) -> None:
    project = load_project("demo", ROOT)
    entry = resolved()[stage_name(load_project("demo", ROOT), stage)]
    assert entry.cmd == f"snakemake {stage} --config run=demo"
    declared = {str(Path(d.fs_path).relative_to(ROOT)): d for d in entry.deps if hasattr(d, "params")}
    assert {path: set(dep.params) for path, dep in declared.items()} == expected_params(project, stage)
    paths = {str(Path(dep.fs_path).relative_to(ROOT)) for dep in entry.deps if not hasattr(dep, "params")}
    components = {project.component(name).path for name in component_names(project, stage)}
    assert paths == {str(path) for path in upstream_paths(project, stage).values()} | components
    outs = {str(Path(out.fs_path).relative_to(ROOT)): out for out in entry.outs}
    assert str(manifest_path(project, stage)) in outs
    assert all(out.persist for out in outs.values())


def test_a_published_run_that_extends_another_has_its_parameters_from_both_files_and_shares_its_cache(
    configuration: Path,
) -> None:
    (configuration / "config/runs/longer.yaml").write_text(
        "extends: demo\ntrain: {num_steps: 7, num_warmup_steps: 2}\n"
    )
    publish(configuration, "longer", "demo")
    entries = stage_entries(configuration)
    demo = load_project("demo", configuration)
    shared = {stage_name(demo, stage) for stage in DEMO_STAGES}
    assert set(entries) == shared | {
        f"{stage}-longer" for stage in ("train", "draw", "measure", "evaluate", "report")
    }
    assert params_of(entries["train-longer"]) == expected_params(
        load_project("longer", configuration), "train", configuration
    )
    assert params_of(entries["train-longer"])["config/runs/demo.yaml"] == {"seed", "model", "train"}
    assert params_of(entries["train-longer"])["config/runs/longer.yaml"] == {"train"}
    assert f"results/caches/{demo.cache}/cache/manifest.json" in entries["train-longer"]["deps"]
    # What both share is made by the run that stands first.
    assert entries[f"cache-{demo.cache}"]["cmd"] == "snakemake cache --config run=longer"


def test_a_published_run_of_two_phases_has_the_first_as_far_as_the_second_needs_it(
    configuration: Path,
) -> None:
    publish(configuration, "sd2-at-scale-tiny")
    entries = stage_entries(configuration)
    first = "sd2-at-scale-256-tiny"
    assert f"train-{first}" in entries and f"evaluate-{first}" not in entries
    deps = entries["train-sd2-at-scale-tiny"]["deps"]
    assert f"results/runs/{first}/train/manifest.json" in deps
    assert f"results/runs/{first}/train/manifest.json" in entries[f"train-{first}"]["outs"][0]


def test_a_file_of_prompts_in_the_project_is_a_dependency_of_the_pictures_alone() -> None:
    prompts = "src/darkroom_demo/pictures/prompts/shapes.jsonl"
    project = load_project("flux-tiny", ROOT)
    reading = {stage for stage in DEMO_STAGES if prompts in stage_entry(project, stage, ROOT).get("deps", [])}
    assert reading == {"draw"}


def test_a_component_that_lies_outside_the_project_is_no_dependency_but_a_parameter(
    configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_CLIP", str(ROOT / "src/darkroom_demo/components/clip"))
    path = configuration / "config/components.yaml"
    text = path.read_text().replace(
        "demo-clip:\n  kind: clip\n  path: src/darkroom_demo/components/clip",
        "demo-clip:\n  kind: clip\n  path: $MY_CLIP",
    )
    assert "$MY_CLIP" in text
    path.write_text(text)
    entry = stage_entries(configuration)["measure-demo"]
    assert all(dep.startswith("results/") for dep in entry["deps"])
    assert params_of(entry)["config/components.yaml"] == {"demo-clip"}


def test_options_that_are_not_recorded_are_no_parameters(
    configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = configuration / "config/datasets/demo.yaml"
    dataset = yaml.safe_load(path.read_text())
    server = {
        "kind": "server",
        "url": "http://127.0.0.1:1/v1",
        "model": "m",
        "captions": {"long": {"prompt": "l"}, "short": {"prompt": "s"}},
    }
    dataset["recaption"] = {**server, "requests": {"concurrency": 3}}
    path.write_text(yaml.safe_dump(dataset))
    entry = stage_entries(configuration)["recaption-demo"]
    told = {f"recaption.{option}": value for option, value in server.items()}
    assert params_of(entry)["config/datasets/demo.yaml"] == set(told)
    # As DVC reads them, and writes them into dvc.lock.
    monkeypatch.chdir(configuration)
    assert current_options(entry)["config/datasets/demo.yaml"] == told


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ("[demmo]", r"config\.yaml: published: no run 'demmo' in .*did you mean 'demo'"),
        ("[demo, demo]", r"config\.yaml: published: lists 'demo' twice"),
        ("demo", r"config\.yaml: published: .*list"),
    ],
)
def test_a_mistake_in_the_list_of_published_runs_is_named(
    configuration: Path, published: str, message: str
) -> None:
    (configuration / "config/config.yaml").write_text(f"run: demo\npublished: {published}\n")
    with pytest.raises(ConfigError, match=message):
        published_runs(configuration)


def test_publish_says_where_dvc_yaml_is_behind_and_writes_it(configuration: Path) -> None:
    def darkroom(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = warm.jobs.environment(os.environ)
        return subprocess.run(
            ["darkroom", *arguments], cwd=configuration, env=environment, capture_output=True, text=True
        )

    publish(configuration, "demo")
    behind = darkroom("publish")
    assert behind.returncode == 1 and "`darkroom publish --write`" in behind.stderr
    assert darkroom("publish", "--write").returncode == 0
    assert darkroom("publish").returncode == 0
    assert (configuration / "dvc.yaml").read_text() == pipeline_text(configuration)
