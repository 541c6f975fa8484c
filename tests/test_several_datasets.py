"""A run on several datasets: what its configuration may say, and the whole chain, killed and resumed."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
import yaml
from conftest import ROOT, TinyProject

from darkroom.config import ConfigError, load_project
from darkroom.metrics.references import References, choose
from darkroom.publish.listed import chain_of
from darkroom.publish.stages import stage_entries, stage_name
from darkroom.stages import RUN_SECTIONS, metric_digest, stage_settings, upstream_paths
from darkroom.store import read_manifest, write_table

TWO = [{"name": "demo-pictures", "weight": 3}, {"name": "squares", "weight": 1, "repeats": 2}]


@pytest.fixture
def config(tmp_path):
    """A function that writes a run that extends the demo's, and loads it."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    shutil.copytree(ROOT / "src/darkroom_demo/components", tmp_path / "src/darkroom_demo/components")
    _squares(tmp_path)

    def load(name="mixed", **values):
        if len(values.get("datasets", [])) > 1 or values.get("dataset") in ("demo-pictures", "squares"):
            # Their captions are not the demo's.
            values["train"] = {"caption_choice": None, **values.get("train", {})}
        text = yaml.safe_dump({"extends": "demo", "dataset": None, **values})
        (tmp_path / f"config/runs/{name}.yaml").write_text(text)
        return load_project(name, tmp_path)

    return load


def _squares(folder):
    values = {
        "description": "Blue squares",
        "source": {"kind": "pictures", "folder": "src/darkroom_demo/pictures/shapes/blue_square"},
        "keep": [],
        "recaption": None,
    }
    (folder / "config/datasets/squares.yaml").write_text(yaml.safe_dump(values))


def test_datasets_with_unlike_captions_share_those_that_a_run_names(config):
    both = [{"name": "demo"}, {"name": "squares"}]
    missing = (
        r"mixed.yaml: train.caption_choice: is missing, and the datasets have other captions each"
        r" \(demo: original, long, short; squares: original\)"
    )
    with pytest.raises(ConfigError, match=missing):
        config(datasets=both)
    with pytest.raises(
        ConfigError, match=r"caption_choice.long: the dataset squares has no caption of this name"
    ):
        config(datasets=both, train={"caption_choice": {"original": 0.5, "long": 0.5, "short": None}})
    named = config(datasets=both, train={"caption_choice": {"original": 1, "long": None, "short": None}})
    assert named.run.train.caption_choice == {"original": 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "dataset: is missing; write dataset: NAME, or datasets: with a list"),
        ({"dataset": "demo", "datasets": TWO}, "datasets: dataset is given too; leave it out"),
        ({"datasets": [TWO[0], TWO[0]]}, "datasets: names demo-pictures twice; name it once, with repeats"),
        ({"datasets": [TWO[1]]}, "squares is the only one, so weight and repeats change nothing"),
        ({"datasets": [TWO[0], {"name": "squares"}]}, "squares has no weight and others have"),
        ({"datasets": [TWO[0], {"name": "squars", "weight": 1}]}, "datasets: no dataset 'squars'"),
        (
            {"datasets": [{**TWO[0], "weight": 0}, TWO[1]]},
            "datasets.0.weight: input should be greater than 0",
        ),
        ({"datasets": [{**TWO[0], "repeats": 0}, TWO[1]]}, "datasets.0.repeats: input should be greater"),
        ({"datasets": [{**TWO[0], "wieght": 2}]}, "datasets.0.wieght: unknown key; did you mean 'weight'"),
        ({"datasets": [TWO[0], {"name": "demo-subject", "weight": 1}]}, "the dataset demo-subject has class"),
        (
            {"datasets": TWO, "train": {"prior_weight": 1.0}},
            "train.prior_weight: DreamBooth's class pictures",
        ),
    ],
)
def test_a_list_that_says_nothing_or_two_things_is_refused(config, values, message):
    with pytest.raises(ConfigError) as error:
        config(**values)
    assert message in str(error.value) and "mixed.yaml" in str(error.value)


def test_a_list_of_one_is_the_run_on_that_dataset(config):
    listed, named = config(datasets=[{"name": "demo"}]), config("named", dataset="demo")
    assert listed.run == named.run == load_project("demo", ROOT).run
    assert listed.cache == load_project("demo", ROOT).cache
    for stage in RUN_SECTIONS:
        assert stage_settings(listed, stage) == stage_settings(load_project("demo", ROOT), stage)


def test_each_dataset_has_the_cache_that_it_has_alone(config):
    mixed = config(datasets=TWO)
    for member, name in zip(mixed.members, ("demo-pictures", "squares"), strict=True):
        alone = config(f"only-{name}", dataset=name)
        assert (member.dataset_name, member.cache) == (name, alone.cache)
        for stage in ("download", "filter", "bucket", "cache"):
            assert stage_settings(member, stage) == stage_settings(alone, stage)
            assert upstream_paths(member, stage) == upstream_paths(alone, stage)
    with pytest.raises(ConfigError, match="has the datasets demo-pictures, squares, not one"):
        _ = mixed.cache


def test_manifests_and_dvc_name_every_dataset(config, tmp_path):
    mixed = config(datasets=TWO)
    caches = [member.cache for member in mixed.members]
    assert list(upstream_paths(mixed, "train")) == ["cache/demo-pictures", "cache/squares"]
    assert list(upstream_paths(mixed, "measure")) == ["bucket/demo-pictures", "bucket/squares", "draw"]
    names = [stage_name(of, stage) for of, stage in chain_of(mixed)]
    assert len(set(names)) == len(names) == 5 + 2 * 6
    (tmp_path / "config/config.yaml").write_text("run: mixed\npublished: [mixed]\n")
    entries = stage_entries(tmp_path)
    assert set(entries) == set(names)
    assert [dep for dep in entries["train-mixed"]["deps"] if "manifest" in dep] == [
        f"results/caches/{cache}/cache/manifest.json" for cache in caches
    ]
    assert {"config/runs/mixed.yaml": ["datasets", "train"]} in entries["train-mixed"]["params"]


def test_other_weights_make_training_and_distances_stale_and_nothing_before(config):
    one, other = config(datasets=TWO), config("other", datasets=[TWO[0], {**TWO[1], "weight": 2}])
    assert stage_settings(one, "train") != stage_settings(other, "train")
    assert metric_digest(one, "frechet_clip_distance") != metric_digest(other, "frechet_clip_distance")
    assert metric_digest(one, "clip_score") == metric_digest(other, "clip_score")
    for mine, theirs in zip(one.members, other.members, strict=True):
        assert mine.cache == theirs.cache
        assert stage_settings(mine, "bucket") == stage_settings(theirs, "bucket")


def test_a_phase_goes_on_from_one_with_the_same_shares(config):
    config("first", datasets=TWO)
    config("second", datasets=TWO, train={"initial_run": "first"})
    with pytest.raises(ConfigError, match="'first' has other datasets, weights or repeats than this run"):
        config("second", datasets=[TWO[0], {**TWO[1], "weight": 2}], train={"initial_run": "first"})
    with pytest.raises(ConfigError, match="has the datasets demo-pictures, squares; write datasets: as"):
        config("second", dataset="demo", train={"initial_run": "first"})


@pytest.mark.parametrize(("samples", "number", "right"), [
    ({"a": 90, "b": 30}, 8, {"a": 6, "b": 2}),
    # b has three pictures, which are a quarter of twelve.
    ({"a": 90, "b": 30}, 40, {"a": 9, "b": 3}),
    ({"a": 120, "b": 0}, 8, {"a": 8}),
])  # fmt: skip
def test_real_pictures_are_of_each_dataset_as_often_as_samples(tmp_path, samples, number, right):
    paths = {}
    for name, count in (("a", 20), ("b", 3)):
        uids = pl.DataFrame({"uid": [f"{name}{i:031x}" for i in range(count)], "row": range(count)})
        sides = ("width", "height", "offset", "size")
        crop = ("bucket_width", "bucket_height", "resized_width", "resized_height", "crop_left", "crop_top")
        paths[name] = tmp_path / f"{name}.parquet", tmp_path / f"{name}-buckets.parquet"
        write_table(paths[name][0], uids.with_columns(pl.lit(64).alias(side) for side in sides))
        write_table(paths[name][1], uids.with_columns(pl.lit(64).alias(side) for side in crop))
    tables, buckets = zip(*paths.values(), strict=True)
    chosen = choose(References(tables, ["a.tar", "b.tar"], buckets, ["a", "b"], samples), number)
    assert dict(chosen["uid"].str.slice(0, 1).value_counts().iter_rows()) == right
    assert chosen.filter(pl.col("part") == 0)["uid"].to_list() == [f"a{i:031x}" for i in range(right["a"])]


@pytest.fixture(scope="module")
def project(make_tiny_project) -> TinyProject:
    """A tiny project with a finished run on two datasets, which has noted the samples that it saw."""
    project = make_tiny_project("several")
    project.variables = {"DARKROOM_RECORD_SAMPLES": "1"}
    _squares(project.folder)
    project.write("config/runs/mixed.yaml", {
        "extends": "demo", "dataset": None, "datasets": TWO,
        "train": {"num_steps": 48, "sample_every_steps": 0, "caption_choice": None},
        "measure": {"geneval": None, "clip_score": None, "kernel_clip_distance": None,
                    "frechet_clip_distance": {"num_reference_pictures": 20}},
    })  # fmt: skip
    project.first_output = project.run("snakemake", "--config", "run=mixed")
    return project


def seen(project: TinyProject) -> dict[int, list[list[str]]]:
    """Step -> its samples, as the last attempt at it has seen them, rank after rank."""
    (folder,) = (project.folder / "checkpoints/mixed").glob("*/samples-seen")
    steps: dict[int, dict[str, list[list[str]]]] = {}
    for path in sorted(folder.glob("rank-*.jsonl")):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            steps.setdefault(entry["step"], {})[path.name] = entry["samples"]
    for by_rank in steps.values():
        # A step that was made on one rank before the kill and on two after it.
        if len(by_rank) == 2 and len(by_rank["rank-00000.jsonl"]) == 8:
            del by_rank["rank-00001.jsonl"]
    return {step: [s for rank in sorted(by) for s in by[rank]] for step, by in steps.items()}


@pytest.mark.slow
def test_the_whole_chain_tells_the_shares_that_were_asked_for(project):
    body = read_manifest(project.results("train", "mixed") / "manifest.json")
    assert set(body["upstream"]) == {"cache/demo-pictures", "cache/squares"}
    counts = body["counts"]
    assert counts["visits_by_dataset"] == {"demo-pictures": 288, "squares": 96}
    assert counts["share_given"] == counts["share_asked"] == {"demo-pictures": 0.75, "squares": 0.25}
    history = pl.read_parquet(project.results("train", "mixed") / "history.parquet")
    assert history["samples_squares"].sum() == 96
    assert (history["samples_squares"] + history["samples_demo-pictures"]).to_list() == [8] * 48
    assert "train: squares gives 96 of 384 samples, 25.00% (asked: 25.00%)" in project.first_output
    page = (project.results("report", "mixed") / "report.html").read_text()
    assert "What each dataset gave" in page and page.count("<h3>squares</h3>") == 3
    assert "nothing is wrong with 17 of 17 stages" in project.run("darkroom", "verify", "mixed")
    assert project.planned("--config", "run=mixed") == set()
    # A run on one of them finds all of its stages made.
    train = {"caption_choice": None}
    project.write("config/runs/alone.yaml", {"extends": "demo", "dataset": "squares", "train": train})
    assert project.planned("cache", "--config", "run=alone") == set()


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_killed_and_resumed_it_sees_the_same_samples_on_any_number_of_ranks(project, tmp_path, num_ranks):
    copy = project.copy(tmp_path / "project")
    shutil.rmtree(copy.folder / "checkpoints")
    command = ["snakemake", "train", "-R", "train_run", "--config", "run=mixed"]
    _kill_after_a_checkpoint(copy, command)
    ranks = ["--set-resources", "train_run:mpi=torchrun", "train_run:tasks=2"]
    copy.run(*command[:4], *(ranks if num_ranks == 2 else []), *command[4:])
    log = (copy.folder / "logs/runs/mixed/train/train.log").read_text()
    assert "train: resumed at step" in log
    assert (copy.folder / "checkpoints/mixed").is_dir()
    first, again = seen(project), seen(copy)
    assert sorted(again) == list(range(1, 49))
    assert again == first
    if num_ranks == 1:
        mine, theirs = (read_manifest(p.results("train", "mixed") / "manifest.json") for p in (copy, project))
        assert mine == theirs


def _kill_after_a_checkpoint(project: TinyProject, command: list[str]) -> None:
    """Start a training and kill everything of it once it has written a checkpoint."""
    driver = subprocess.Popen(
        command, cwd=project.folder, env=project.environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    checkpoints = Path(project.folder, "checkpoints/mixed")
    while not any(checkpoints.glob("*/step-????????")):
        assert driver.poll() is None, "the training ended before it had a checkpoint"
        time.sleep(0.02)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert not (project.results("train", "mixed") / "manifest.json").exists()
