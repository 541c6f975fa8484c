"""What a person sees of a real `snakemake` that refuses or fails."""

from collections.abc import Callable

import pytest
import torch
from conftest import TinyProject
from safetensors.torch import save_file

from darkroom.config import load_project


@pytest.fixture(scope="module")
def project(make_tiny_project: Callable[[str], TinyProject]) -> TinyProject:
    return make_tiny_project("logger")


@pytest.mark.parametrize("quiet", [(), ("--quiet", "all"), ("--quiet",)])
def test_a_mistake_in_the_configuration_is_told_whatever_the_command(
    project: TinyProject, quiet: tuple[str, ...]
) -> None:
    before = project.read("config/runs/demo.yaml")
    train = before["train"]
    wrong = {"num_step" if key == "num_steps" else key: value for key, value in train.items()}
    project.write("config/runs/demo.yaml", {**before, "train": wrong})
    try:
        output = project.run("bash", "-c", f"snakemake {' '.join(quiet)}; echo rc $?")
        planned = project.run("snakemake", "-n", check=False)
    finally:
        project.write("config/runs/demo.yaml", before)
    message = "config/runs/demo.yaml: train.num_step: unknown key; did you mean 'num_steps'?"
    assert message in output
    assert message in planned
    assert output.endswith("rc 1\n")


def test_a_target_after_config_is_told_where_it_belongs(project: TinyProject) -> None:
    told = "give what to make first: snakemake filter --config run=NAME\n"
    output = project.run("bash", "-c", "snakemake --config run=demo filter; echo rc $?")
    assert told in output and "Traceback" not in output and output.endswith("rc 1\n")
    # A dry run has Snakemake's own words first.
    assert project.run("snakemake", "-n", "--config", "run=demo", "filter", check=False).endswith(told)
    assert "filter_manifest" in project.planned("filter", "--config", "run=demo")


def test_a_job_that_fails_shows_its_message_once(project: TinyProject) -> None:
    weights = project.folder / "src/darkroom_demo/components/clip/model.safetensors"
    whole = weights.read_bytes()
    # What is planned with looks at headers alone, and this one is right.
    save_file({"other": torch.zeros(1)}, weights)
    cache = f"caches/{load_project('demo', project.folder).cache}"
    try:
        output = project.run("bash", "-c", f"snakemake results/{cache}/cache/null.safetensors; echo rc $?")
    finally:
        weights.write_bytes(whole)
    log = f"logs/{cache}/cache/null.log"
    failed = output[output.index("failed: cache_null") :]
    assert f"  log: {log}\n" in failed
    assert "Error" in (message := (project.folder / log).read_text().strip().splitlines()[-1])
    assert output.count(message) == 1
    assert f"not made:\n  cache_null {cache.split('/')[1]}: {log}\n" in failed
    assert output.endswith("rc 1\n")
