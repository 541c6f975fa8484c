"""What plans are made from: logs and benchmarks of jobs, small copies of runs, and profiles."""

# ruff: noqa: F811 (tests take the fixtures that are imported)

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import yaml
from planning_runs import BENCHMARK, ROOT, RUN, in_project, measured, project  # noqa: F401 (fixtures)
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.config import ConfigError, Project, load_project
from darkroom.config.load import read_section
from darkroom.jobs import job
from darkroom.machine import LINE, machine_kind, num_gpus, read_used, used_line
from darkroom.planning.calibrate import Size, write_small
from darkroom.planning.observations import keep, read_observations
from darkroom.planning.observe import observe
from darkroom.planning.place import read_place
from darkroom.planning.work import Work, key_of
from darkroom.publish.listed import CHOICE, Choice
from darkroom.publish.reproduce import prepare
from darkroom.report.times import digest_without_times
from darkroom.stages import STAGES, manifest_path, members, stage_settings
from darkroom.store import write_json, write_manifest, write_table

# What was measured.


def test_a_job_ends_its_log_with_what_it_used_and_begins_it_with_the_machine(tmp_path: Path) -> None:
    with job(tmp_path / "job.log"):
        pass
    lines = (tmp_path / "job.log").read_text().splitlines()
    assert lines[0] == f"{LINE}{machine_kind()}"
    used = read_used(lines[-1])
    assert used is not None and used.cpu_s > 0 and used.memory_mib > 1
    assert read_used("used: nothing") is None and read_used(used_line())


def test_a_kind_of_machine_is_its_processors_and_gpus(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A  CPU, fast\nmodel name\t: A CPU\n")
    for number in range(2):
        (tmp_path / f"gpus/{number}").mkdir(parents=True)
        (tmp_path / f"gpus/{number}/information").write_text("Model: \t\t NVIDIA H200\nIRQ:   1\n")
    kind = machine_kind(tmp_path / "cpuinfo", tmp_path / "gpus")
    assert kind.endswith(" x A CPU fast, 2 x NVIDIA H200")
    assert num_gpus(kind) == 2 and num_gpus(machine_kind(tmp_path / "cpuinfo", tmp_path)) == 0


USED = "used: 1.50 CPU s, waited 0.15 of 1.50 s for a core, at most 201.5 MiB\n"


def write_download(root: Path, project: Project, seconds: float = 1.67) -> None:
    """A finished download as the rules leave it: table, manifest, benchmark and log."""
    folder = root / manifest_path(project, "download").parent
    logs = root / "logs/datasets" / project.dataset_name / "download"
    folder.mkdir(parents=True)
    logs.mkdir(parents=True)
    table = pl.DataFrame({"row": range(24), "uid": [f"{k:032x}" for k in range(24)], "num_bytes": [100] * 24})
    write_table(folder / "part-00000.parquet", table)
    settings = stage_settings(project, "download")
    write_manifest(
        folder / "manifest.json", stage="download", params=settings, upstream={}, counts={"rows": 24}
    )
    row = f"{seconds}\t0:00:01\t194.37\t2430.34\t69.98\t117.97\t0.00\t0.43\t50.99\t1.34\n"
    (logs / "part-00000.tsv").write_text(BENCHMARK + row)
    (logs / "part-00000.log").write_text(f"{LINE}this\nworks\n{USED}")


def test_what_a_finished_job_took_is_read_from_its_benchmark_and_its_log(
    in_project: Path, project: Project
) -> None:
    write_download(in_project, project)
    found = {row.work: row for row in observe()}
    part = found["download_part"]
    assert (part.units, part.cpu_s, part.memory_mib) == (24, 1.5, 201.5)
    assert part.seconds == pytest.approx(1.67 * 0.9), "without waiting for cores that others had"
    assert (part.machine, part.key) == ("this", key_of(project, "download"))
    assert part.network_bytes == 0, "these pictures are files"
    size = (in_project / "results/datasets/demo-classes/download/part-00000.parquet").stat().st_size
    assert found["files"].count >= size and found["files"].units == 24


@pytest.mark.parametrize("spoil", ["settings", "log", "benchmark"])
def test_jobs_of_which_something_is_not_known_say_nothing(
    in_project: Path, project: Project, spoil: str
) -> None:
    write_download(in_project, project)
    logs = in_project / "logs/datasets/demo-classes/download"
    if spoil == "settings":
        path = in_project / manifest_path(project, "download")
        path.write_text(path.read_text().replace('"jpeg_quality": 95', '"jpeg_quality": 94'))
    elif spoil == "log":
        (logs / "part-00000.log").write_text("of a version that did not tell the machine\n")
    else:
        (logs / "part-00000.tsv").write_text(BENCHMARK)
    assert [row for row in observe() if row.seconds] == []


def test_rates_are_kept_once_outlive_their_logs_and_are_refused_where_they_are_none(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    work = Work("draw", "draw_chunk", "k", ((1.0, 1),))
    rows = [measured(work, units, 3.0) for units in (1.0, 2.0)]
    assert keep(rows, path) == rows == keep(rows, path) == keep([], path) == read_observations(path)
    many = [replace(rows[0], time=float(k)) for k in range(100)]
    assert [row.time for row in keep(many, path)][-1] == 2003.0, "the newest are kept"
    assert len(read_observations(path)) == 64
    path.write_text('{"version": 1, "observations": [{"stage": 1}]}')
    with pytest.raises(ValueError, match=r"no rates of this version .* remove it"):
        read_observations(path)


# Small copies.


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "config/runs").glob("*.yaml")))
def test_the_small_copies_of_every_run_are_valid_and_have_its_rates(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    try:
        run = load_project(name)
    except ConfigError as error:
        pytest.skip(str(error))
    for folder in ("runs", "datasets"):
        (tmp_path / folder).mkdir()
    (tmp_path / "components.yaml").symlink_to(ROOT / "config/components.yaml")
    (tmp_path / CHOICE).write_text("run: demo\npublished: []\n")
    write_small(run, dict.fromkeys(run.datasets, 1000), Size(256, 40, 4).smaller, tmp_path)
    small = load_project(name, config=tmp_path)
    assert small.run.train.num_steps <= 10
    assert all(dataset.rows_per_part <= 64 for dataset in small.datasets.values())
    for stage in STAGES:
        for one, other in zip(members(run, stage), members(small, stage), strict=True):
            assert key_of(one, stage) == key_of(other, stage), stage
    assert read_section(Choice, tmp_path / CHOICE).first_parts == 1


def test_a_small_copy_is_planned_by_the_real_rules_with_one_part_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    demo = load_project("demo")
    folder = tmp_path / "copy"
    prepare(folder)
    write_small(demo, {"demo": 5300}, Size(256, 40, 4), folder / "config")
    command = [sys.executable, "-m", "snakemake", "-n", "cache", "--profile", "profiles/local"]
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert re.search(r"^download_part +1$", told.stdout, re.MULTILINE), "of 21 parts that the list has"


def test_the_two_sizes_that_are_measured_differ_in_all_they_can() -> None:
    least = Size(rows=8, steps=4, prompts=2)
    assert least.smaller == Size(2, 1, 1)
    for option, value in (("--rows", 7), ("--steps", 3), ("--prompts", 1)):
        assert CliRunner().invoke(app, ["plan", RUN, "--calibrate", option, str(value)]).exit_code == 2


def test_a_part_of_a_dataset_is_not_published(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"run": "demo", "published": ["demo"], "first_parts": 1}))
    with pytest.raises(ConfigError, match="first_parts: a part of a dataset is not published"):
        read_section(Choice, path)


def test_profiles_say_what_jobs_get() -> None:
    here = read_place(ROOT / "profiles/local")
    assert here.machine == machine_kind() and here.slots >= 1
    cluster = read_place(ROOT / "profiles/slurm")
    assert (cluster.machine, cluster.slots) == (None, 200)
    assert cluster.gpus_of("train_run") == 4 and cluster.gpus_of("draw_chunk") == 1
    assert cluster.gpus_of("filter_part") == 0
    assert cluster.cores_of("train_run", 1) == 8
    with pytest.raises(ValueError, match="no such profile"):
        read_place(ROOT / "profiles/nowhere")


def test_a_page_with_a_plan_has_the_digest_of_one_without(tmp_path: Path) -> None:
    from report_inputs import STAGES as SHOWN
    from report_inputs import make_inputs

    from darkroom.report.build import build_report

    inputs = make_inputs(tmp_path)
    values = {"job_s": 10.0, "job_s_half": 4.0, "memory_mib": 300.0}
    write_json(tmp_path / "plan.json", {"stages": dict.fromkeys(SHOWN, values)})
    page = build_report(replace(inputs, plan=tmp_path / "plan.json"), tmp_path / "with.html")
    assert "Plan is off by" in page.read_text(encoding="utf-8")
    without = build_report(inputs, tmp_path / "without.html")
    assert digest_without_times(page, SHOWN) == digest_without_times(without, SHOWN)
