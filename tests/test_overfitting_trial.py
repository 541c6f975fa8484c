"""The trial of an overfitted training: its runs are valid, and it says what its tables show."""

import sys
from argparse import Namespace

import numpy as np
import polars as pl
import pytest
from conftest import ROOT

from darkroom.config import load_project

sys.path.insert(0, str(ROOT / "trials"))
import overfitting


def test_its_runs_are_valid_and_those_that_are_compared_train_alike(tmp_path):
    overfitting.prepare(tmp_path / "clone", Namespace(scenes=30))
    overfitting.write_run(tmp_path / "clone", "overfitted", 400, {"every_steps": 100, "max_prompts": 2})
    overfitting.write_run(tmp_path / "clone", "alone", 400, None)
    judged, alone = (load_project(run, tmp_path / "clone") for run in ("overfitted", "alone"))
    assert judged.run.watch.steps(400) == [100, 200, 300, 400]
    assert judged.run.train == alone.run.train
    assert alone.run.watch is None


def test_the_variance_about_a_trend_is_that_of_the_noise_alone():
    steps = np.arange(2000.0)
    noise = np.random.default_rng(0).normal(0, 0.1, len(steps))
    assert overfitting.jitter(list(1e-6 * steps**2 - 3e-3 * steps + 5)) < 1e-12
    assert overfitting.jitter(list(1e-6 * steps**2 - 3e-3 * steps + noise)) == pytest.approx(0.01, rel=0.1)


def test_it_says_how_far_below_the_best_a_chosen_step_is(capsys):
    table = pl.DataFrame({
        "step": [10, 20, 30], "geneval": [0.2, 0.6, 0.5], "geneval_low": [0.1, 0.5, 0.4],
        "geneval_high": [0.3, 0.7, 0.6], "validation_loss": [0.9, 0.8, 0.7],
    })  # fmt: skip
    overfitting.tell_steps(table, table.with_columns(geneval=pl.Series([0.1, 0.5, 0.4])))
    told = capsys.readouterr().out
    assert "best of all: step 20, GenEval 0.600" in told
    assert "the lowest validation loss chooses step 30: GenEval 0.500, 0.100 below the best" in told
    assert "GenEval on a few prompts chooses step 20: GenEval 0.600, 0.000 below the best" in told


def test_rates_are_those_of_one_run_without_the_first_line_of_each_job(tmp_path):
    for run, rates in (("overfitted", (9, 100, 101)), ("alone", (8, 50))):
        log = tmp_path / f"logs/runs/{run}/watch/train-10.log"
        log.parent.mkdir(parents=True)
        lines = [
            f"train: step {10 * (i + 1)}/40, loss 1.0, {rate}.0 img/s, 0.0%" for i, rate in enumerate(rates)
        ]
        log.write_text("\n".join(lines))
    assert overfitting.rates(tmp_path, "overfitted", 30) == [100.0, 101.0]
    assert overfitting.rates(tmp_path, "overfitted", 20) == [100.0]
    assert overfitting.rates(tmp_path, "alone", 30) == [50.0]
