"""Judged steps: the best of them, when a training stops, and what is kept of it on the way."""

import json
import os

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_train_loop import SETTINGS, assert_equal, make_models
from test_train_loop import cache as cache

from darkroom.config import ConfigError, load_project
from darkroom.config.watch import Watch
from darkroom.store import sha256_path, write_table
from darkroom.train.averages import KeptAverages
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun
from darkroom.watch.judged import Judged, best_of, is_enough, read_judged, write_not_reached
from darkroom.watch.legs import mark_stopped, stopped_after, stops_after
from darkroom.watch.stage import gather


def judged(scores, metric="clip_score"):
    return [Judged(100 * (n + 1), "", {metric: score}, {}, {}) for n, score in enumerate(scores)]


def test_the_best_is_the_first_of_the_highest_or_of_a_distance_the_lowest():
    assert best_of(judged([1, 3, 2, 3]), "clip_score").step == 200
    assert best_of(judged([2, 3, 1, 1], "fid"), "fid").step == 300


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(1, 4))
def test_enough_is_when_none_of_the_last_ones_is_better_than_all_before(scores, patience):
    expected = len(scores) > patience and max(scores[:-patience]) >= max(scores[-patience:])
    assert is_enough(judged(scores), "clip_score", patience) == expected
    assert not is_enough(judged(scores), "clip_score", None)


def written(folder, step, score, model="m"):
    path = folder / f"step-{step:08d}.scores.json"
    scores = {"clip_score": score, "clip_score_low": score - 1, "clip_score_high": score + 1}
    scores["geneval"] = {"overall": score / 100, "single_object": 0.5}
    path.write_text(json.dumps({"step": step, "model": model, "scores": scores, "protocol": {"seed": 0}}))
    return path


WATCH = Watch(every_steps=100, best="clip_score", patience=2)


def test_a_leg_looks_at_what_was_judged_before_the_one_before(tmp_path):
    before = tmp_path / "models/step-00000400"
    before.mkdir(parents=True)
    worse = [written(tmp_path, step, score) for step, score in ((100, 60), (200, 50), (300, 55))]
    assert stops_after(WATCH, None, []) is None
    assert stops_after(WATCH, before, worse[:2]) is None
    # It stops where the leg before ended: that is as far as the weights are.
    assert stops_after(WATCH, before, worse) == 400
    assert stops_after(WATCH.model_copy(update={"patience": None}), before, worse) is None
    # Legs after one that did not train do not train either.
    stopped = tmp_path / "models/step-00000500"
    mark_stopped(stopped, 400)
    assert stopped_after(stopped) == 400 and stopped_after(before) is None
    assert stops_after(WATCH, stopped, []) == 400


def test_steps_that_were_not_reached_are_none(tmp_path):
    first = written(tmp_path, 100, 60)
    write_not_reached(tmp_path / "later.json", 200, 100)
    (found,) = read_judged([first, tmp_path / "later.json"])
    assert found.scores == {"geneval": 0.6, "clip_score": 60}
    assert found.bounds == {"clip_score": (59, 61)}


@pytest.fixture
def steps(tmp_path):
    """Scores, models and history of three judged steps and one that was not reached."""
    models, scores = [], []
    for step, score in ((100, 50), (200, 60), (300, 55)):
        model = tmp_path / f"models/step-{step:08d}"
        model.mkdir(parents=True)
        (model / "weights").write_text(str(step))
        (model / ".snakemake_timestamp").touch()
        models.append(model)
        scores.append(written(tmp_path, step, score, sha256_path(model)))
    mark_stopped(tmp_path / "models/step-00000400", 300)
    write_not_reached(tmp_path / "step-00000400.scores.json", 400, 300)
    history = pl.DataFrame({"step": [100, 200, 300], "validation_loss": [0.5, None, 0.3]})
    write_table(tmp_path / "history.parquet", history, sort_by="step")
    return (
        [*scores, tmp_path / "step-00000400.scores.json"],
        [*models, tmp_path / "models/step-00000400"],
        tmp_path / "history.parquet",
    )


def gathered(steps, folder):
    scores, models, history = steps
    return gather(scores, models, "clip_score", history, folder / "steps.csv", folder / "best")


def test_the_best_model_lies_beside_and_the_table_tells_all(steps, tmp_path):
    counts = gathered(steps, tmp_path)
    assert counts == {"judged": 3, "best_step": 200, "last_step": 300, "not_reached": 1}
    assert sorted(os.listdir(tmp_path / "best")) == ["weights"]
    assert (tmp_path / "best/weights").read_text() == "200"
    table = pl.read_csv(tmp_path / "steps.csv")
    assert table.columns == [
        "step",
        "geneval",
        "clip_score",
        "clip_score_low",
        "clip_score_high",
        "validation_loss",
    ]
    assert table["validation_loss"].to_list() == [0.5, None, 0.3]


def test_another_model_than_the_judged_one_and_another_protocol_are_refused(steps, tmp_path):
    (steps[1][1] / "weights").write_text("other")
    with pytest.raises(ValueError, match="step-00000200: is not the model that was judged"):
        gathered(steps, tmp_path)
    body = json.loads(steps[0][2].read_text())
    steps[0][2].write_text(json.dumps(body | {"protocol": {"seed": 1}}))
    with pytest.raises(ValueError, match=r"step-00000300.scores.json: judged otherwise than .*00000100"):
        gathered(steps, tmp_path)
    assert not (tmp_path / "best").exists() and not (tmp_path / "steps.csv").exists()


def test_a_training_in_legs_is_the_training_in_one_piece(cache, tmp_path):
    def trained(folder, *ends):
        for end in ends:
            model, average = make_models(cache)
            trainer = Trainer(
                Training(cache, model, average, SETTINGS, seed=0), TrainingRun(folder, log=lambda _: None)
            )
            history = trainer.train(end)
            assert history.num_done == (end or SETTINGS.num_steps)
        weights = {**model.state_dict(), **{f"ema/{k}": v for k, v in average.state_dict().items()}}
        return weights, history.rows

    whole = trained(tmp_path / "whole", None)
    assert_equal(trained(tmp_path / "legs", 7, 13, None), whole)
    # To an end that it is past it trains nothing.
    model, average = make_models(cache)
    again = Trainer(
        Training(cache, model, average, SETTINGS, seed=0),
        TrainingRun(tmp_path / "legs", log=lambda _: None),
    )
    assert again.train(7).num_done == SETTINGS.num_steps


def test_averages_are_kept_once_and_what_is_not_there_is_told(tmp_path):
    kept, exported = KeptAverages(tmp_path / "run"), []

    def export(step):
        def write(folder):
            exported.append(step)
            (folder / "part").mkdir(parents=True)
            (folder / "part/network").write_text(f"weights of step {step}")
            (folder / "encoder").write_text("the same")

        return write

    for step in (100, 200, 100):
        kept.keep(step, export(step))
    assert exported == [100, 200]
    for step in (100, 200):
        kept.copy(step, tmp_path / f"out-{step}")
    assert (tmp_path / "out-200/part/network").read_text() == "weights of step 200"
    inodes = {name: os.stat(tmp_path / name).st_ino for name in ("out-100/encoder", "out-200/encoder")}
    assert len(set(inodes.values())) == 1
    with pytest.raises(RuntimeError, match="past step 300, and its average of then was not kept"):
        kept.copy(300, tmp_path / "out-300")


def test_a_file_system_without_links_gets_copies(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    kept = KeptAverages(tmp_path / "run")
    for step in (1, 2):
        kept.keep(step, lambda folder: (folder.mkdir(), (folder / "same").write_text("x")))
    kept.copy(2, tmp_path / "out")
    assert (tmp_path / "out/same").read_text() == "x"


@pytest.mark.parametrize(
    ("watch", "says"),
    [
        (
            {"every_steps": 1200, "best": "geneval"},
            "watch.every_steps 1200 must be below train.num_steps 1200",
        ),
        ({"every_steps": 300, "best": "fid"}, "watch.best: measure has no fid; it has geneval, clip_score"),
        ({"every_steps": 300, "best": "geneval", "metrics": ["kid"]}, "watch.metrics: measure has no kid"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_starts(tmp_path, watch, says):
    import shutil

    import yaml
    from test_docs import ROOT

    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "config/runs/mine.yaml").write_text(yaml.safe_dump({"extends": "demo", "watch": watch}))
    with pytest.raises(ConfigError, match=says):
        load_project("mine", tmp_path)


def test_the_last_step_is_judged_however_the_steps_are_cut():
    assert Watch(every_steps=300, best="fid").steps(1000) == [300, 600, 900, 1000]
    assert Watch(every_steps=300, best="fid").steps(900) == [300, 600, 900]
