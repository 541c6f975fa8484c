"""The whole chain on a small demo world: what one command makes, twice, killed, and after a change."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TinyProject

from darkroom.stages import STAGES
from darkroom.store import read_table, sha256_file

pytestmark = pytest.mark.slow


@pytest.fixture
def changeable(finished_project: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    """A copy of the finished project, with its times, that a test may change."""
    copy = TinyProject.__new__(TinyProject)
    copy.folder = tmp_path / "copy"
    shutil.copytree(finished_project.folder, copy.folder, symlinks=True)
    yield copy
    shutil.rmtree(copy.folder)


def hashed_files(folder: Path) -> dict[str, str]:
    """Every result but the report page, which tells times: name -> digest."""
    results = folder / "results"
    return {
        str(path.relative_to(results)): sha256_file(path)
        for path in sorted(results.rglob("*"))
        if path.is_file() and path.name not in ("report.html", ".snakemake_timestamp")
    }


def test_one_command_makes_every_stage_and_names_the_report_last(finished_project: TinyProject) -> None:
    lines = finished_project.first_output.strip().splitlines()
    assert lines[-1].split() == [
        "report",
        str(finished_project.made_in / "results/runs/demo/report/report.html"),
    ]
    for stage in STAGES[:-1]:
        assert any(line.startswith(f"{stage:<10} ") for line in lines), stage


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
    changeable.edit("config/datasets/demo.yaml", {"filter": {"min_side_px": 100}})
    planned = changeable.planned()
    assert {
        "filter_part",
        "filter",
        "recaption_part",
        "bucket_part",
        "cache_part",
        "train",
        "report",
    } <= planned
    assert not planned & {"urls", "download_part", "download", "filter_score_part", "filter_duplicates"}
    output = changeable.run("dvc", "repro", "filter@demo")
    assert "download_part" not in output and "filter_score_part" not in output
    assert "Stage 'download@demo' didn't change" in output
    assert "filter@demo" not in changeable.run("dvc", "status", "filter@demo", "-q", check=False)
    assert changeable.planned("filter") == set()


def test_a_training_option_reruns_train_evaluate_and_report_alone(changeable: TinyProject) -> None:
    changeable.edit("config/runs/demo.yaml", {"train": {"learning_rate": 0.0005}})
    assert changeable.planned() == {"train", "evaluate", "report"}
    changeable.run("snakemake", "train", "--quiet", "all")
    changed = changeable.run("dvc", "status")
    assert "train@demo" not in changed and "evaluate@demo" in changed


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
        time.sleep(moments.uniform(4, 20))
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    project.run("snakemake", "--quiet", "all")
    assert hashed_files(project.folder) == hashed_files(finished_project.folder)
    assert project.planned() == set()
    assert "up to date" in project.run("dvc", "status")


def test_a_second_driver_in_the_same_folder_is_refused(changeable: TinyProject) -> None:
    import fcntl

    with open(changeable.folder / ".snakemake/driver.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        output = changeable.run("snakemake", "-R", "report", "--quiet", "all", check=False)
    assert "another snakemake is at work in this folder" in output


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
