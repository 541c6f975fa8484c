"""`snakemake autoencoder` in a small project: trained, compared, and used by a run."""

import json

import polars as pl
import pytest
from conftest import TinyProject

from darkroom.store import sha256_file, sha256_path

pytestmark = pytest.mark.slow

SMALL = {
    "network": {"block_out_channels": [8, 8, 8, 8, 8], "norm_num_groups": 4},
    "loss": {"adversarial": {"start_step": 2, "num_layers": 1, "num_channels": 4}},
    "train": {"num_steps": 4, "num_warmup_steps": 1, "batch_size": 4, "num_threads": 1},
    "held_out": {"share": 0.1, "max_pictures": 6},
}
COMMAND = ("snakemake", "autoencoder", "--config", "autoencoder=demo")


def test_an_autoencoder_is_trained_compared_and_used_by_a_run(changeable: TinyProject) -> None:
    project = changeable
    project.edit("config/autoencoders/demo.yaml", SMALL)
    assert project.planned("autoencoder", "--config", "autoencoder=demo") == {
        *("autoencoder", "autoencoder_train", "autoencoder_compare")
    }
    project.run(*COMMAND)
    folder = project.folder / "results/autoencoders/demo"
    trained, compared = (json.loads((folder / s / "manifest.json").read_text()) for s in ("train", "compare"))
    assert trained["files"]["model"] == sha256_path(folder / "train/model")
    assert compared["upstream"]["train"] == sha256_file(folder / "train/manifest.json")
    assert {"download", "filter", "component/demo-clip"} == set(trained["upstream"])
    assert trained["params"]["version"] == 1 and trained["counts"]["steps"] == 4
    assert trained["counts"]["held_out"] >= compared["counts"]["pictures"] > 0
    scores = pl.read_csv(folder / "compare/scores.csv")
    assert scores["autoencoder"].to_list() == ["demo", "demo-vae"] and scores["perceptual"].null_count() == 0
    assert str(project.folder) not in json.dumps([trained, compared])
    # Nothing is left to do, and a run without it knows nothing of it.
    assert project.planned("autoencoder", "--config", "autoencoder=demo") <= {"autoencoder"}
    assert project.planned() == set()
    # What it is compared with trains nothing again.
    project.edit("config/autoencoders/demo.yaml", {"held_out": {"max_pictures": 5}})
    planned = project.planned("autoencoder", "--config", "autoencoder=demo")
    assert planned == {"autoencoder", "autoencoder_compare"}
    used_by_a_run(project)
    told_by_a_dry_run(project)


def used_by_a_run(project: TinyProject) -> None:
    path = "results/autoencoders/demo/train/model"
    project.edit("config/components.yaml", {"my-vae": {"kind": "vae", "path": path}})
    project.edit("config/runs/demo.yaml", {"cache": {"vae": "my-vae"}})
    project.run("snakemake", "train")
    manifest = json.loads((project.results("train") / "manifest.json").read_text())
    assert manifest["params"]["components"]["my-vae"]["path"] == path
    vae = json.loads((project.results("train") / "model/vae/config.json").read_text())
    told = json.loads((project.folder / path / "config.json").read_text())
    assert vae["scaling_factor"] == told["scaling_factor"] and vae["latent_channels"] == 4


def told_by_a_dry_run(project: TinyProject) -> None:
    for name, changes in (("other", "dataset: demo-pictures"), ("wrong", "crop_px: 60")):
        (project.folder / f"config/autoencoders/{name}.yaml").write_text(f"extends: demo\n{changes}\n")
    for options, told in {
        (): "no autoencoder is named; write --config autoencoder=NAME (known: demo, demo-finer, other, wrong)",
        ("--config", "autoencoder=other"): "other.yaml: dataset: demo-pictures is of none of the runs demo",
        ("--config", "autoencoder=wrong"): "wrong.yaml: crop_px: 60 is no multiple of 16",
        (
            "--config",
            "autencoder=demo",
        ): "autencoder: unknown key; only run=NAME and autoencoder=NAME can be given",
    }.items():
        assert told in project.run("snakemake", "-n", "autoencoder", *options, check=False)
