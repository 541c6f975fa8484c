"""What a run will take: lines through what jobs took, times what the run has to do."""

import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.config import ConfigError, Project, load_project
from darkroom.config.load import read_section
from darkroom.config.run import Run
from darkroom.jobs import job
from darkroom.machine import LINE, machine_kind, num_gpus, read_used, used_line
from darkroom.planning import fit
from darkroom.planning.calibrate import Size, write_small
from darkroom.planning.estimate import estimate, total
from darkroom.planning.observations import Observation, keep, read_observations
from darkroom.planning.observe import observe
from darkroom.planning.place import Place, read_place
from darkroom.planning.plan import make_plan
from darkroom.planning.table import closing_lines, lacking_lines, span, table_lines
from darkroom.planning.work import STEPS, Work, cut, key_of, works
from darkroom.publish.listed import CHOICE, Choice
from darkroom.publish.reproduce import prepare
from darkroom.report.planned import read_planned
from darkroom.report.times import digest_without_times
from darkroom.stages import STAGES, manifest_path, members, stage_settings
from darkroom.store import write_json, write_manifest, write_table

ROOT = Path(__file__).parents[1]
HERE = Place("this", slots=4, gpus={"train_run": 1})
RUN = "sd2-imagenet-tiny"


# So few that they can be counted.
FEW = """
train: {num_steps: 60, checkpoint_every_steps: 30}
draw: {max_prompts: 6, num_pictures_per_prompt: 1}
"""


def configured(folder: Path) -> Path:
    """A folder with the project's configuration, in which the run does little, and its code, and no results."""
    shutil.copytree(ROOT / "config", folder / "config")
    for name in ("src", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    run = folder / f"config/runs/{RUN}.yaml"
    run.write_text(run.read_text() + FEW)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(configured(tmp_path_factory.mktemp("configured")))
        return load_project(RUN)


@pytest.fixture
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's configuration and code, and no results."""
    monkeypatch.chdir(configured(tmp_path))
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "profiles/local")
    return tmp_path


def measured(work: Work, units: float, seconds: float, **more: float) -> Observation:
    time = 1000 * units + seconds
    return Observation(
        work.stage, work.name, work.key, "this", units, time, f"{work.name}.tsv", seconds, **more
    )


def of_all_works(project: Project, start: float = 2.0, each: float = 0.5) -> list[Observation]:
    """Every work of a run, measured at two sizes without noise: start + each x units seconds and bytes."""
    amounts = {name: _amounts(24) for name in project.datasets}
    found = []
    for stage in STAGES:
        for of in members(project, stage):
            for work in works(of, stage, amounts):
                first = 0.0 if work.name in (STEPS, "train_run beside") else start
                for units in (10.0, 40.0):
                    took = first + each * units
                    if work.rule in ("files", "checkpoints"):
                        found.append(
                            replace(measured(work, units, took), seconds=None, machine="", count=took)
                        )
                    else:
                        found.append(measured(work, units, took, memory_mib=100 + units, cpu_s=took / 2))
    for stage, name in (("filter", "kept"), ("cache", "cached")):
        key = key_of(project, stage)
        found.append(Observation(stage, name, key, "", 24.0, 1.0, stage, count=18.0))
    return found


def _amounts(rows: int):
    from darkroom.planning.work import Amounts

    return Amounts(rows)


# The arithmetic.


def test_a_line_through_jobs_without_noise_is_the_line_they_lie_on() -> None:
    line = fit.fit([1, 2, 5], [3, 5, 11])
    assert (line.start, line.each) == pytest.approx((1, 2))
    assert line.freedom == 1 and line.squares == pytest.approx(0, abs=1e-18)
    assert line.of_job(10) == pytest.approx(21)


def test_jobs_without_units_have_a_mean_whose_sum_has_the_variance_of_the_textbook() -> None:
    values = np.array([8.0, 10.0, 12.0])
    line = fit.fit([0, 0, 0], values)
    assert line.start == pytest.approx(10) and line.each == 0
    found = fit.add_up(line, [(0.0, 5)], spread=0.2)
    # Five means that share one estimate, and five noises of their own.
    assert found.mean == pytest.approx(50)
    assert found.variance == pytest.approx(0.2**2 * (25 * 100 / 3 + 5 * 100))
    assert fit.pooled_spread([line]) == (pytest.approx(math.sqrt(0.08 / 2)), 2)


@pytest.mark.parametrize(
    ("units", "values", "start", "each"),
    [([1, 4], [1, 8], 0, None), ([1, 4], [8, 2], None, 0)],
)
def test_neither_start_nor_rate_is_negative(units, values, start, each) -> None:
    line = fit.fit(units, values)
    assert line.start >= 0 and line.each >= 0
    assert (line.start if start == 0 else line.each) == 0


def test_a_rate_that_noise_hides_is_not_surely_none() -> None:
    line = fit.fit([32, 128], [13, 12])
    assert line.each == 0
    near, far = (fit.add_up(line, [(units, 1)], spread=0.1) for units in (128.0, 12_800.0))
    assert near.half < 0.2 * near.mean
    assert far.half > far.mean, "a hundred times the size may take many times as long"


def test_jobs_of_one_size_tell_sizes_near_it_and_no_others() -> None:
    line = fit.fit([100, 100], [10, 10])
    assert line.of_job(100) == pytest.approx(10)
    assert line.of_job(50) == pytest.approx(10), "rather too long than too short"
    assert line.of_job(200) == pytest.approx(20)
    assert [line.reaches(units) for units in (49, 50, 200, 201)] == [False, True, True, False]
    assert fit.add_up(line, [(200.0, 1)], 0.0).variance == pytest.approx(25), "half of what the start may be"


def test_an_interval_of_one_measurement_is_normal_and_of_few_wider() -> None:
    assert fit.quantile(0) == pytest.approx(1.96, abs=1e-3)
    assert fit.quantile(2) == pytest.approx(4.303, abs=1e-3)
    assert fit.pooled_spread([fit.fit([0], [3.0])]) == (fit.UNKNOWN_SPREAD, 0)


jobs_measured = st.lists(st.tuples(st.integers(0, 10**6), st.floats(1e-3, 1e6)), min_size=1, max_size=8)


@hypothesis_settings(max_examples=60, deadline=None)
@given(jobs_measured, st.integers(0, 10**7), st.integers(0, 10**7), st.integers(1, 50))
def test_more_units_never_cost_less(measured_jobs, one, other, number) -> None:
    line = fit.fit(*zip(*measured_jobs, strict=True))
    less, more = sorted((one, other))
    assert line.start >= 0 and line.each >= 0
    assert fit.add_up(line, [(less, number)], 0.1).mean <= fit.add_up(line, [(more, number)], 0.1).mean
    assert fit.add_up(line, [(more, number)], 0.1).mean <= fit.add_up(line, [(more, number + 1)], 0.1).mean


def test_nothing_is_fitted_through_nothing() -> None:
    for units, values in (([], []), ([1], [0]), ([-1], [1])):
        with pytest.raises(ValueError, match="jobs that took something"):
            fit.fit(units, values)


def test_a_stage_is_its_jobs_on_the_cores_that_share_them() -> None:
    work = Work("cache", "cache_part", "k", ((10.0, 9), (5.0, 1)), threads=2)
    observations = [measured(work, units, 2 + units, memory_mib=50 + units) for units in (1.0, 20.0)]
    row = estimate([work], observations, HERE)[0]["cache"]
    assert row.jobs == 10
    assert row.job_s == pytest.approx(9 * 12 + 7)
    assert row.core_s == pytest.approx(2 * row.job_s)
    assert row.wall_s == pytest.approx(row.job_s / 2), "two jobs of two cores at a time on four cores"
    assert row.memory_mib == pytest.approx(60)
    alone = estimate([replace(work, sizes=((10.0, 1),))], observations, HERE)[0]["cache"]
    assert alone.wall_s == pytest.approx(12), "no stage is shorter than its longest job"
    both = total({"a": row, "b": alone})
    assert both.wall_s == pytest.approx(row.wall_s + alone.wall_s)
    assert both.job_s_half == pytest.approx(math.hypot(row.job_s_half, alone.job_s_half))
    assert row.money(cpu_hour=3600, gpu_hour=1) == pytest.approx(row.core_s)


def test_rates_of_another_kind_of_machine_do_not_count_but_on_a_cluster() -> None:
    work = Work("draw", "draw_chunk", "k", ((1.0, 1),))
    elsewhere = [replace(measured(work, units, 3 + units), machine="another") for units in (1.0, 2.0)]
    assert estimate([work], elsewhere, HERE)[1][0].why == "never measured"
    cluster = Place(None, slots=10, gpus={"": 0, "draw_chunk": 2}, cores={"draw_chunk": 8})
    row = estimate([work], elsewhere, cluster)[0]["draw"]
    assert (row.gpu_s, row.core_s) == (pytest.approx(8), pytest.approx(32))


# What a run has to do.


def test_units_are_cut_into_jobs_and_none_is_lost() -> None:
    assert cut(25, 10) == ((10.0, 2), (5.0, 1))
    assert cut(20, 10) == ((10.0, 2),)
    assert cut(0, 10) == ((0.0, 1),)


def test_a_rate_depends_on_what_is_done_and_not_on_how_much(project: Project) -> None:
    train = project.run.train

    def with_train(**values: int) -> Project:
        changed = train.model_copy(update=values)
        return replace(project, run=project.run.model_copy(update={"train": changed}))

    longer, larger = with_train(num_steps=999), with_train(microbatch_size=4)
    assert key_of(project, "train") == key_of(longer, "train") != key_of(larger, "train")
    assert key_of(project, "cache") == key_of(larger, "cache")


def test_a_plan_is_units_times_rates_stage_by_stage(project: Project) -> None:
    found = make_plan(project, {"demo-classes": 24}, of_all_works(project), HERE, {})
    assert not found.lacking and list(found.stages) == [s for s in STAGES if members(project, s)]
    assert {share.value for share in found.shares} == {0.75}
    # 60 steps of 8 samples; one start; checkpoints after 30 and 60 steps, and the end.
    assert found.stages["train"].job_s == pytest.approx(2 + 0.5 * 480 + 0.5 * 3)
    assert found.stages["cache"].job_s == pytest.approx(2 + (2 + 0.5 * 24 * 0.75 * 0.75))
    assert found.stages["draw"].job_s == pytest.approx(2 * (2 + 0.5 * 6))
    assert found.stages["draw"].disk_bytes == pytest.approx(2 + 0.5 * 12)
    assert found.total.gpu_s == pytest.approx(found.stages["train"].job_s)
    longer = make_plan(project, {"demo-classes": 24_000}, of_all_works(project), HERE, {})
    assert all(longer.stages[s].job_s >= row.job_s for s, row in found.stages.items())


def test_a_run_on_several_datasets_that_is_judged_on_the_way_is_planned_too(project: Project) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        other = load_project("flux-tiny")
    values = project.run.model_dump(mode="json") | {
        "dataset": None,
        "datasets": [{"name": "demo-classes"}, {"name": "demo-pictures"}],
        "watch": {"every_steps": 40, "best": "clip_score"},
    }
    both = replace(project, run=Run(**values), datasets=project.datasets | other.datasets)
    amounts = {name: _amounts(24) for name in both.datasets}
    found = {
        stage: [work.name for of in members(both, stage) for work in works(of, stage, amounts)]
        for stage in STAGES
    }
    assert found["cache"] == ["cache_null", "cache_part", "files"] * 2
    assert found["train"] == ["train_run after legs", "files", "checkpoints"]
    legs = next(work for work in works(both, "watch", amounts) if work.name == "train_leg")
    assert legs.sizes == ((160.0, 1), (320.0, 1)), "60 steps of 8 samples"


def test_a_share_that_was_seen_in_part_has_an_interval_and_one_that_is_given_none(project: Project) -> None:
    observations = of_all_works(project)
    seen = make_plan(project, {"demo-classes": 1000}, observations, HERE, {})
    kept = next(share for share in seen.shares if share.name == "kept")
    assert kept.low < 0.75 < kept.high and "18 of the first 24" in kept.line
    given_kept = make_plan(project, {"demo-classes": 1000}, observations, HERE, {"kept": 0.75})
    assert "as --kept says" in "\n".join(closing_lines(given_kept, HERE))
    assert seen.stages["cache"].job_s == pytest.approx(given_kept.stages["cache"].job_s)
    assert seen.stages["cache"].job_s_half > given_kept.stages["cache"].job_s_half


def test_a_table_has_a_line_a_stage_money_at_the_prices_and_what_it_was_made_from(project: Project) -> None:
    found = make_plan(project, {"demo-classes": 24}, of_all_works(project), HERE, {})
    lines = table_lines(found, price_cpu_hour=0.0, price_gpu_hour=3.0)
    assert [line.split()[0] for line in lines] == ["stage", *found.stages, "total"]
    assert "money" in lines[0] and "money" not in table_lines(found, 0.0, 0.0)[0]
    closing = "\n".join(closing_lines(found, HERE))
    assert "jobs measured on this" in closing and "demo-classes: 24 rows" in closing and "4 cores" in closing
    assert [span(s) for s in (9.0, 120, 7200, 172800)] == ["9.0 s", "2.0 min", "2.0 h", "2.0 d"]


def test_a_plan_without_a_rate_names_the_stage_and_the_command_that_measures_it(project: Project) -> None:
    known = [row for row in of_all_works(project) if row.work != "draw_chunk"]
    found = make_plan(project, {"demo-classes": 24}, known, HERE, {})
    lines = lacking_lines(found)
    assert lines == [
        "draw: draw_chunk: never measured",
        f"no plan without these rates: run `darkroom plan {RUN} --calibrate`, or these stages",
    ]


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
BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


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


# The command.


def test_the_command_refuses_to_guess_and_says_what_to_run(in_project: Path) -> None:
    found = CliRunner().invoke(app, ["plan", RUN])
    assert found.exit_code == 2
    assert "train: train_run steps: never measured" in found.output
    assert f"darkroom plan {RUN} --calibrate" in found.output
    assert not (in_project / "logs").exists()
    unknown = CliRunner().invoke(app, ["plan", RUN, "--cores=1"])
    assert unknown.exit_code == 2 and "--cores=1: unknown option" in unknown.output
    assert CliRunner().invoke(app, ["plan", "nobody"]).exit_code == 2


def test_the_command_prints_the_table_and_keeps_the_plan_for_the_report(
    in_project: Path, project: Project
) -> None:
    rows = [replace(row, machine=row.machine and machine_kind()) for row in of_all_works(project)]
    keep(rows)
    found = CliRunner().invoke(app, ["plan", RUN, "--price-cpu-hour", "0.1"])
    assert found.exit_code == 0, found.output
    assert "money" in found.output and "total" in found.output
    plan = in_project / f"logs/runs/{RUN}/plan.json"
    assert f"kept for the report: {plan.relative_to(in_project)}" in found.output
    logs = plan.parent / "train"
    logs.mkdir()
    (logs / "train.tsv").write_text(BENCHMARK + "250.0\t0:04:10\t1.0\n")
    (logs / "train.log").write_text("used: 1.50 CPU s, waited 0.00 of 2.00 s for a core, at most 50.0 MiB\n")
    row = read_planned(plan, {"train": [logs / "train.tsv"]})[0]
    assert (row["stage"], row["actual"], row["actual_memory"]) == ("train", "4 min 10 s", 50.0)
    assert row["error"] == f"{100 * (243.5 / 250 - 1):+.0f} %".replace("-", "\N{MINUS SIGN}")
    write_json(plan, {"stages": {"train": {}}})
    with pytest.raises(ValueError, match="is no plan of `darkroom plan`"):
        read_planned(plan, {})


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
