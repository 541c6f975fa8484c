"""What a run will take: lines through what jobs took, times what the run has to do."""

# ruff: noqa: F811 (tests take the fixtures that are imported)

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from planning_runs import (  # noqa: F401 (fixtures)
    BENCHMARK,
    HERE,
    ROOT,
    RUN,
    in_project,
    measured,
    of_all_works,
    project,
)
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.config import Project, load_project
from darkroom.config.run import Run
from darkroom.machine import machine_kind
from darkroom.planning import fit
from darkroom.planning.estimate import estimate, total
from darkroom.planning.observations import keep
from darkroom.planning.place import Place
from darkroom.planning.plan import make_plan
from darkroom.planning.table import closing_lines, lacking_lines, span, table_lines
from darkroom.planning.work import Amounts, Work, cut, key_of, works
from darkroom.report.planned import read_planned
from darkroom.stages import STAGES, members
from darkroom.store import write_json

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
    amounts = {name: Amounts(24) for name in both.datasets}
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
