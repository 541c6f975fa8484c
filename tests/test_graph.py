"""One graph for several runs: what they share is planned once, and what was left undone is not forgotten."""

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from conftest import TinyProject
from safetensors.torch import save_file

from darkroom.config import ConfigError, load_project
from darkroom.graph import make_graph, run_names
from darkroom.stages import OPTIONAL, STAGES

LARGER = {"extends": "demo", "bucket": {"resolution_px": 80}}
RUNS = {
    "longer": {"extends": "demo", "train": {"num_steps": 14}},
    # Siblings that agree, though neither extends the other nor what they agree on.
    "large": LARGER,
    "large-too": {**LARGER, "seed": 7},
    "on-a": {"extends": "demo", "cache": {"online": True}},
    "on-b": {"extends": "on-a", "train": {"initial_run": "on-a"}},
}


@pytest.fixture(scope="module")
def project(make_tiny_project: Callable[[str], TinyProject]) -> TinyProject:
    """A project with several runs in which nothing was made."""
    made = make_tiny_project("graph")
    for name, values in RUNS.items():
        made.write(f"config/runs/{name}.yaml", values)
    return made


def jobs(project: TinyProject, runs: str, *arguments: str) -> Counter[str]:
    """Rule -> number of jobs of a plan."""
    output = project.run("snakemake", "-n", *arguments, "--config", f"run={runs}")
    table = output.split("Job stats:")[1].split("\n\n")[0]
    return Counter({name: int(number) for name, number in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)})


def test_run_names_are_a_list_or_separated_by_commas_and_each_counts_once() -> None:
    assert run_names("a, b,a") == run_names(["a", "b"]) == ["a", "b"]
    assert run_names("a") == ["a"]
    for wrong in ("", "a,", None, []):
        with pytest.raises(ConfigError, match="names no run; write run=NAME"):
            run_names(wrong)


def test_a_graph_has_the_phases_before_a_run_and_one_project_for_what_runs_share(
    project: TinyProject,
) -> None:
    graph = make_graph(["on-b", "large", "large-too"], lambda name: load_project(name, project.folder))
    assert list(graph.runs) == ["on-b", "large", "large-too", "on-a"]
    assert [run.name for run in graph.asked] == ["on-b", "large", "large-too"]
    assert graph.runs["large"].cache == graph.runs["large-too"].cache != graph.runs["on-a"].cache
    assert [run.name for run in graph.caches.values()] == ["on-b", "large"]
    assert graph.project(run="large-too", cache=graph.runs["on-a"].cache).name == "large-too"
    assert graph.project(cache=graph.runs["on-a"].cache, part="part-00000").name == "on-b"
    with pytest.raises(
        ConfigError, match=r"run 'demo' belongs to none of the runs on-b, .*--config run=NAME"
    ):
        graph.project(run="demo")


@pytest.mark.slow
def test_runs_that_agree_make_what_they_share_once(project: TinyProject) -> None:
    one, two = jobs(project, "large"), jobs(project, "large,large-too")
    own = {name for name in two if two[name] != one[name]} - {"total"}
    stages = {name.split("_")[0] for name in own}
    assert stages == {"train", "draw", "measure", "evaluate", "report"}
    assert all(two[name] == 2 * one[name] for name in own)
    # Another cache of the same dataset: only buckets and cache more.
    three = jobs(project, "large,large-too,longer")
    assert three["download_part"] == one["download_part"]
    assert three["cache_part"] == 2 * one["cache_part"] > 0


@pytest.mark.slow
def test_ten_runs_of_a_dataset_of_200_parts_share_its_jobs(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    project = make_tiny_project("ten")
    pl.DataFrame(
        {"URL": [None] * 2000, "TEXT": [None] * 2000}, schema_overrides={"URL": pl.String, "TEXT": pl.String}
    ).write_parquet(project.folder / "list.parquet")
    source = {"kind": "list", "path": "list.parquet"}
    dataset = {**project.read("config/datasets/demo.yaml"), "source": source, "rows_per_part": 10}
    del dataset["keep"]  # names columns that this list has not
    project.write("config/datasets/demo.yaml", dataset)
    names = [f"run-{number}" for number in range(10)]
    for number, name in enumerate(names):
        project.write(f"config/runs/{name}.yaml", {"extends": "demo", "seed": number})
    # What that costs is measured by speed/plan.py.
    one, ten = jobs(project, names[0]), jobs(project, ",".join(names))
    of_a_run = (
        "train_run",
        "draw_prompts",
        "draw_chunk",
        "draw_manifest",
        "measure_features",
        "measure_metric",
        "measure_manifest",
    )
    for rule, number in one.items():
        if rule in (*of_a_run, "evaluate_run", "report_run"):
            assert ten[rule] == 10 * number, rule
        elif rule != "total":
            assert ten[rule] == number, rule
    assert one["cache_part"] == 200


@pytest.mark.slow
def test_a_phase_is_an_ordinary_run_as_far_as_the_next_one_needs_it(project: TinyProject) -> None:
    online = jobs(project, "on-b")
    assert online["train_run"] == 2 and online["evaluate_run"] == online["report_run"] == 1
    assert online["cache_part"] == jobs(project, "on-a")["cache_part"]
    both = jobs(project, "on-a,on-b")
    assert both["train_run"] == both["report_run"] == 2
    three = jobs(project, "sd3-scratch-tiny")
    assert three["train_run"] == 3 and three["report_run"] == 1


@pytest.mark.slow
def test_every_stage_is_a_target(project: TinyProject) -> None:
    for stage, section in OPTIONAL.items():
        told = project.run("snakemake", "-n", stage, check=False)
        assert f"{stage}: nothing that was asked for has the section {section}" in told
    for number, stage in enumerate(STAGES):
        if stage in OPTIONAL:
            continue
        made = jobs(project, "demo,longer", stage)
        assert {name.split("_")[0] for name in made} - {"urls", "total"} <= set(STAGES[: number + 1])
        ends = made[f"{stage}_manifest"] + made[f"{stage}_run"]
        assert ends == (2 if stage in ("train", "draw", "measure", "evaluate", "report") else 1), stage


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config", "run=demo,longr"), "no run 'longr' in config/runs; did you mean 'longer'?"),
        (("--config", "run=demo,"), "run: 'demo,' names no run"),
        (("train", "-R", "train"), "-R train: a stage is only a target; name one of its rules: train_run"),
        (("--set-resources", "cache:mem_mb=1"), "name one of its rules: cache_part, cache_null, "),
        (("--set-threads", "trian_run=1"), "trian_run: no rule has this name; did you mean train_run?"),
        (("results/runs/longer/train/manifest.json",), "run 'longer' belongs to none of the runs demo"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused_with_what_would_be_right(
    project: TinyProject, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(AssertionError, match="ended with 1:") as refusal:
        project.run("snakemake", "-n", *arguments)
    output = str(refusal.value)
    assert message in output and "nothing to be done" not in output


@pytest.mark.slow
def test_what_a_failed_run_left_undone_is_still_to_do(finished_project: TinyProject, tmp_path: Path) -> None:
    project = finished_project.copy(tmp_path / "project")
    manifests = [
        project.results(stage) / "manifest.json" for stage in ("cache", "train", "evaluate", "report")
    ]
    kept = [project.results(stage) / "manifest.json" for stage in ("download", "recaption", "bucket")]
    weights = project.folder / "src/darkroom_demo/components/vae/diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    # Cut short it is refused, also where all that was made with it is there.
    weights.write_bytes(whole[:-1])
    for arguments in (("-n",), ("train",), ("cache", "-n")):
        assert f"{weights.relative_to(project.folder)} has {len(whole) - 1:,} bytes" in project.run(
            "snakemake", *arguments, check=False
        ), arguments
    assert project.planned("filter") == set()
    # What is planned with looks at headers alone, and this one is right.
    save_file({"other": torch.zeros(1)}, weights)
    for command in (("snakemake", "-n"), ("snakemake", "--touch", "filter")):
        project.run(*command)
        assert all(path.exists() for path in [*manifests, *kept]), command
    output = project.run("snakemake", "train", check=False)
    assert "failed: cache_part" in output
    planned = project.planned("train")
    assert {"cache_part", "cache_manifest", "train_run"} <= planned
    assert "not made" in project.run("snakemake", "train", check=False)
    assert all(path.exists() for path in kept)
    # Mended by a copy that is older than all results: Snakemake sees no newer input any more.
    weights.write_bytes(whole)
    shutil.copystat(project.folder / "Snakefile", weights)
    assert {"cache_part", "train_run"} <= project.planned("train")
    assert "failed" not in project.run("snakemake", "train", "--quiet", "all")
    assert project.planned("train") == set()
