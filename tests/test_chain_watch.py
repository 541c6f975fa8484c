"""A training that is judged on the way: in legs, with the same bytes, the best of them, and a stop."""

import json
import re
import shutil

import polars as pl
import pytest
from conftest import TinyProject

from darkroom.store import read_manifest, sha256_path

pytestmark = pytest.mark.slow

# Nothing is learnt.
STILL = {"learning_rate": 1e-12, "muon_learning_rate": 1e-12}
WATCH = {
    "every_steps": 4,
    "best": "clip_score",
    "metrics": ["geneval", "frechet_clip_distance"],
    "max_prompts": 1,
}


def test_legs_have_of_a_profile_what_it_gives_the_training(changeable: TinyProject) -> None:
    changeable.edit("config/runs/demo.yaml", {"watch": WATCH})
    planned = changeable.run("snakemake", "-n", "--profile", "slurm", "--printshellcmds", "watch")
    legs = re.findall(r"srun (.*?) python workflow/scripts/train.py.* --until (\S+)", planned)
    assert [step for _, step in legs] == [f"step-{step:08d}" for step in (4, 8, 12)]
    assert {geometry for geometry, _ in legs} == set(
        re.findall(r"srun (.*?) python workflow/scripts/train.py.* --manifest", planned)
    )


def test_legs_train_what_one_training_does_and_the_best_is_kept_beside_the_last(
    changeable: TinyProject,
) -> None:
    project = changeable
    whole = sha256_path(project.results("train") / "model")
    project.edit("config/runs/demo.yaml", {"watch": WATCH})
    # The finished training kept no averages of the way.
    told = project.run("snakemake", "watch", check=False)
    assert "train: the training is past step 4, and its average of then was not kept" in told
    shutil.rmtree(project.folder / "checkpoints")
    project.run("snakemake")
    assert sha256_path(project.results("train") / "model") == whole
    folder = project.results("watch")
    body, table = read_manifest(folder / "manifest.json"), pl.read_csv(folder / "steps.csv")
    assert table["step"].to_list() == [4, 8, 12]
    assert {"clip_score", "clip_score_low", "geneval", "frechet_clip_distance"} <= set(table.columns)
    best = table.sort("clip_score", "step", descending=[True, False])["step"][0]
    assert body["counts"]["best_step"] == best and body["counts"]["judged"] == 3
    assert sha256_path(folder / "best") == sha256_path(folder / f"models/step-{best:08d}")
    # The last one is the training's own, and judged as it is.
    assert sha256_path(folder / "models/step-00000012") == whole
    steps = [json.loads((folder / f"step-{step:08d}.scores.json").read_text()) for step in (4, 8, 12)]
    assert len({step["model"] for step in steps}) == 3
    # What they have in common lies there once.
    encoders = {path.stat().st_ino for path in folder.glob("models/*/text_encoder/model.safetensors")}
    assert len(encoders) == 1
    page = (project.results("report") / "report.html").read_text()
    assert f"step {best} is the best of 3" in page
    model, drawn = str(folder.relative_to(project.folder) / "best"), project.folder / "best"
    project.run("darkroom", "sample", model, "a photo of a red circle", "--out", drawn.name)
    assert (drawn / "pictures.csv").exists()
    assert project.planned() == set()
    project.run("darkroom", "publish", "demo")
    assert "nothing is wrong" in project.run("darkroom", "verify", "demo")
    # A metric more judges no step again; another seed of the pictures all of them, and trains nothing.
    project.edit("config/runs/demo.yaml", {"measure": {"kernel_clip_distance": None}})
    assert "watch_step" not in project.planned("watch")
    project.edit("config/runs/demo.yaml", {"draw": {"seed": 7}})
    assert project.planned("watch") == {"watch_step", "watch_manifest"}


def test_a_training_stops_where_no_step_was_better_for_long_enough(changeable: TinyProject) -> None:
    project = changeable
    shutil.rmtree(project.folder / "checkpoints")
    watch = {"every_steps": 2, "best": "frechet_clip_distance", "max_prompts": 1, "patience": 1}
    # So no step is better than the first.
    project.edit(
        "config/runs/demo.yaml",
        {"train": STILL, "watch": watch},
    )
    project.run("snakemake")
    counts = read_manifest(project.results("watch") / "manifest.json")["counts"]
    trained = read_manifest(project.results("train") / "manifest.json")["counts"]
    assert trained["steps"] == counts["last_step"] == 2 * counts["judged"] < 12
    assert counts["judged"] + counts["not_reached"] == 6
    log = (project.folder / "logs/runs/demo/train/train.log").read_text()
    assert f"stopped after step {trained['steps']}, as watch.patience says" in log
    assert pl.read_parquet(project.results("train") / "history.parquet").height == trained["steps"]
    assert project.planned() == set()
    project.run("darkroom", "publish", "demo")
    assert "nothing is wrong" in project.run("darkroom", "verify", "demo")
