"""The whole chain on a small demo world: what one command makes, twice, killed, and after a change."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TinyProject

from darkroom.config import load_project
from darkroom.lock import locked
from darkroom.stages import STAGES, members
from darkroom.store import read_table, sha256_file

pytestmark = pytest.mark.slow

DRAW = ("draw_prompts", "draw_chunk", "draw_manifest")
MEASURE = ("measure_metric", "measure_manifest")


def hashed_files(folder: Path) -> dict[str, str]:
    """Every result but the report page, which tells times: name -> digest."""
    results = folder / "results"
    return {
        str(path.relative_to(results)): sha256_file(path)
        for path in sorted(results.rglob("*"))
        if path.is_file()
        and path.name not in ("report.html", ".snakemake_timestamp")
        and path.parent.name != ".driver"
    }


def log_of(project: TinyProject, stage: str) -> Path:
    name = stage if stage in ("train", "evaluate", "report") else "manifest"
    return (
        project.folder
        / "logs"
        / project.results(stage).relative_to(project.folder / "results")
        / f"{name}.log"
    )


def test_one_command_tells_of_every_stage_and_ends_with_the_report(finished_project: TinyProject) -> None:
    lines = finished_project.first_output.strip().splitlines()
    assert lines[-1].split() == [
        "report",
        str(finished_project.made_in / "results/runs/demo/report/report.html"),
    ]
    stages = [stage for stage in STAGES if members(load_project("demo", ROOT), stage)]
    for stage in stages:
        ending = rf"\[stage \d+ of {len(stages)}, [^]]*\d s\] {stage:<10} "
        (told,) = [line for line in lines if re.match(ending, line)]
        assert told.split("] ")[1] in log_of(finished_project, stage).read_text(), stage
    assert any(re.match(rf"finished in .* s: \d+ jobs in {len(stages)} stages$", line) for line in lines)
    assert any(line.startswith("dropped by filter: ") for line in lines)
    assert "dvc.lock was brought up to date" in lines
    assert lines[1].startswith("to do: ")
    cache = finished_project.results("cache").parent.relative_to(finished_project.folder)
    assert lines[2] == f"run demo, dataset demo, cache {cache}"


def test_the_sample_of_the_docs_is_what_a_run_prints(finished_project: TinyProject) -> None:
    page = (ROOT / "docs/rerun-a-stage.md").read_text().split("## What you see")[1]
    (sample,) = re.findall(r"^```text\n(.*?)\n```", page.split("\n## ")[0], re.MULTILINE | re.DOTALL)
    printed = finished_project.first_output
    for line in sample.splitlines():
        pattern = re.escape(line).replace(re.escape("..."), ".*")
        pattern = re.sub(r"(\d+\\ (min|s)\b(\\ )?)+", r"[\\dhmins ]+", pattern)
        pattern = re.sub(r"(?<!\\)\d+", r"[\\d,]+", pattern)
        assert re.search(f"^{pattern}$", printed, re.MULTILINE), line


def test_afterwards_snakemake_and_dvc_agree_that_nothing_is_to_do(finished_project: TinyProject) -> None:
    assert finished_project.planned() == set()
    assert "up to date" in finished_project.run("dvc", "status")
    before = hashed_files(finished_project.folder)
    output = finished_project.run("dvc", "repro")
    assert "Running stage" not in output
    assert hashed_files(finished_project.folder) == before


def test_metrics_and_plots_show_in_dvc(finished_project: TinyProject) -> None:
    assert "overall" in finished_project.run("dvc", "metrics", "show")
    finished_project.run("dvc", "plots", "show", "-o", "logs/plots")
    assert "loss" in (finished_project.folder / "logs/plots/index.html").read_text()


def test_every_url_of_the_list_is_in_exactly_one_row_of_the_funnel(finished_project: TinyProject) -> None:
    dataset = finished_project.folder / "results/datasets/demo"
    urls = read_table(dataset / "urls.parquet")
    rows = [row for t in sorted(dataset.glob("filter/part-?????.parquet")) for row in read_table(t)["row"]]
    assert sorted(rows) == urls["row"].to_list()
    funnel = json.loads((dataset / "filter/funnel.json").read_text())
    assert sum(step["first_failure"] for step in funnel["criteria"]) + funnel["kept"] == len(urls)


def test_every_fault_that_the_server_plays_has_the_status_it_should_have(
    finished_project: TinyProject,
) -> None:
    dataset = finished_project.folder / "results/datasets/demo"
    truth = read_table(dataset / "truth.parquet").select("row", "fault", "expected_status")
    for part in sorted(dataset.glob("download/part-?????.parquet")):
        both = read_table(part).join(truth, on="row")
        wrong = both.filter(both["status"] != both["expected_status"])
        assert wrong.is_empty(), wrong.select(
            "row", "url", "fault", "status", "expected_status", "error"
        ).rows()


def test_a_second_run_from_scratch_gives_the_same_bytes(
    finished_project: TinyProject, make_tiny_project: Callable[[str], TinyProject]
) -> None:
    other = make_tiny_project("again")
    other.run("snakemake", "--quiet", "all")
    assert hashed_files(other.folder) == hashed_files(finished_project.folder)
    assert (other.folder / "dvc.lock").read_text() == (finished_project.folder / "dvc.lock").read_text()


def test_a_filter_threshold_reruns_the_selection_and_what_follows_but_no_download_and_no_scoring(
    changeable: TinyProject,
) -> None:
    keep = [{"column": "min_side_px", "min": 100}, {"column": "WIDTH", "min": 1}]
    changeable.edit("config/datasets/demo.yaml", {"keep": keep})
    planned = changeable.planned()
    assert {
        "filter_part",
        "filter_manifest",
        "recaption_part",
        "bucket_part",
        "cache_part",
        "train_run",
        "report_run",
    } <= planned
    assert not planned & {
        "urls",
        "download_part",
        "download_manifest",
        "score_part",
        "score_dataset",
        "score_manifest",
    }
    output = changeable.run("dvc", "repro", "filter-demo")
    assert "download_part" not in output and "score_part" not in output
    assert "Stage 'download-demo' didn't change" in output
    assert "filter-demo" not in changeable.run("dvc", "status", "filter-demo", "-q", check=False)
    assert changeable.planned("filter") == set()


def test_a_training_option_reruns_train_and_what_follows_alone(changeable: TinyProject) -> None:
    changeable.edit("config/runs/demo.yaml", {"train": {"learning_rate": 0.0005}})
    drawn = set(DRAW) - {"draw_prompts"}
    measured = {"measure_features", *MEASURE}
    assert changeable.planned() == {"train_run", *drawn, *measured, "evaluate_run", "report_run"}
    changeable.run("snakemake", "train", "--quiet", "all")
    changed = changeable.run("dvc", "status")
    assert "train-demo" not in changed and "draw-demo" in changed


def test_only_an_option_of_the_drawing_draws_again(changeable: TinyProject) -> None:
    def planned(values: dict[str, Any]) -> set[str]:
        before = changeable.read("config/runs/demo.yaml")
        changeable.edit("config/runs/demo.yaml", values)
        found = changeable.planned()
        changeable.write("config/runs/demo.yaml", before)
        return found

    assert planned({"evaluate": {"num_bootstrap": 30}}) == {"evaluate_run", "report_run"}
    fewer = {"frechet_clip_distance": {"num_reference_pictures": 30}}
    assert planned({"measure": fewer}) == {"measure_references", *MEASURE, "evaluate_run", "report_run"}
    assert planned({"measure": {"kernel_clip_distance": None}}) == {
        "measure_manifest",
        "evaluate_run",
        "report_run",
    }
    drawn = {"draw": {"sampling": {"num_inference_steps": 4}}}
    assert planned(drawn) == {*DRAW, "measure_features", *MEASURE, "evaluate_run", "report_run"}
    changeable.edit("config/runs/demo.yaml", {"measure": {"kernel_clip_distance": None}})
    changeable.run("snakemake", "--quiet", "all")
    changeable.edit("config/runs/demo.yaml", {"measure": {"kernel_clip_distance": {"clip": "demo-clip"}}})
    output = changeable.run("snakemake", "-n")
    # By default it compares with more real pictures than the other one does.
    assert changeable.planned() == {"measure_references", *MEASURE, "evaluate_run", "report_run"}
    assert re.findall(r"wildcards: run=demo, metric=(\w+)", output) == ["kernel_clip_distance"]


def test_one_stage_reruns_by_name(changeable: TinyProject) -> None:
    shutil.rmtree(changeable.folder / "results/datasets/demo/filter")
    before = sha256_file(changeable.folder / "results/datasets/demo/download/manifest.json")
    changeable.run("snakemake", "filter", "--quiet", "all")
    assert sha256_file(changeable.folder / "results/datasets/demo/download/manifest.json") == before
    assert (changeable.folder / "results/datasets/demo/filter/manifest.json").exists()


def test_verify_names_the_file_that_was_changed(changeable: TinyProject) -> None:
    changeable.run("darkroom", "verify", "demo")
    tar = changeable.folder / "results/datasets/demo/download/part-00000.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 255
    tar.write_bytes(data)
    assert "part-00000.tar: changed since" in changeable.run("darkroom", "verify", "demo", check=False)


def test_a_mistake_in_the_configuration_fails_the_dry_run(changeable: TinyProject) -> None:
    changeable.edit("config/runs/demo.yaml", {"cache": {"vae": "demo-vea"}})
    output = changeable.run("snakemake", "-n", check=False)
    assert "cache.vae: no vae 'demo-vea' in config/components.yaml; did you mean 'demo-vae'?" in output
    assert "Traceback" not in output


def test_killed_ten_times_at_random_moments_the_same_command_finishes_with_the_same_bytes(
    finished_project: TinyProject, make_tiny_project: Callable[[str], TinyProject]
) -> None:
    project = make_tiny_project("killed")
    moments = random.Random(0)
    for _ in range(10):
        driver = subprocess.Popen(
            ["snakemake", "--quiet", "all"], cwd=project.folder, env=project.environment,
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        # Four seconds are the start; ten such rests together are a good part of the chain and not more.
        time.sleep(moments.uniform(4, 14))
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    project.run("snakemake", "--quiet", "all")
    assert hashed_files(project.folder) == hashed_files(finished_project.folder)
    assert project.planned() == set()
    assert "up to date" in project.run("dvc", "status")


def test_a_second_driver_in_the_same_folder_is_refused(changeable: TinyProject) -> None:
    with locked(changeable.folder / "results/.driver", 0, what="snakemake"):
        output = changeable.run("snakemake", "-R", "report_run", "--quiet", "all", check=False)
    assert f"another snakemake is at work on results (process {os.getpid()} on" in output


def test_the_model_loads_in_a_script_that_imports_only_diffusers(finished_project: TinyProject) -> None:
    script = (
        "import sys; sys.modules['darkroom'] = None\n"
        "from diffusers import DiffusionPipeline\n"
        "folder = 'results/runs/demo/train/model'\n"
        "pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)\n"
        "picture = pipe('a photo of a red circle', width=96, height=64, num_inference_steps=2).images[0]\n"
        "assert picture.size == (96, 64)\n"
    )
    finished_project.run("python", "-c", script)
