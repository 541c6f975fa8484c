"""Where a run goes another way than the weights that it goes on from, it is told before any job."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from darkroom.components.base import Component
from darkroom.config import load_project
from darkroom.config.pretrained import planned_notes, pretrained_notes

ROOT = Path(__file__).parents[1]
VAE = {"scaling_factor": 0.18215}


def write(folder: Path, **files: dict) -> Path:
    """A folder with JSON files, "/" written as "__"."""
    for name, values in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    return folder


def pipeline(folder: Path, scheduler: dict, vae: dict) -> Path:
    files = {"scheduler__scheduler_config": scheduler, "vae__config": vae, "unet__config": {}}
    return write(folder, model_index={"_class_name": "StableDiffusionPipeline"}, **files)


@pytest.mark.parametrize(
    ("scheduler", "found"),
    [
        ({"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}, "v"),
        ({"_class_name": "DDIMScheduler"}, "epsilon"),  # diffusers' default
        ({"_class_name": "DDIMScheduler", "prediction_type": "sample"}, "x0"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "flow"),
    ],
)
def test_another_prediction_than_the_weights_learned_is_told(scheduler, found, tmp_path):
    folder = pipeline(tmp_path / "pipeline", scheduler, VAE)
    vae = write(tmp_path / "vae", config=VAE)
    other = "epsilon" if found != "epsilon" else "v"
    for place in (folder, folder / "unet"):  # a component may name the network's own folder
        assert pretrained_notes(found, place, vae) == []
        (note,) = pretrained_notes(other, place, vae)
        assert note.startswith("train.objective.prediction: ") and f"write prediction: {found}" in note


@pytest.mark.parametrize(
    ("theirs", "ours", "is_told"),
    [
        ({"scaling_factor": 0.44591}, {"scaling_factor": 0.18215}, True),
        ({"scaling_factor": 0.18215, "shift_factor": 0.1}, VAE, True),
        ({}, VAE, False),  # diffusers' default
        ({"scaling_factor": 0.18215, "shift_factor": None}, VAE, False),
    ],
)
def test_another_scale_or_shift_of_latents_than_the_weights_know_is_told(theirs, ours, is_told, tmp_path):
    folder = pipeline(tmp_path / "pipeline", {}, theirs)
    notes = pretrained_notes("epsilon", folder, write(tmp_path / "vae", config=ours))
    assert [note.startswith("cache.vae: ") for note in notes] == [True] * is_told


def test_prompts_of_another_length_than_the_weights_know_are_told(tmp_path):
    folder = pipeline(tmp_path / "pipeline", {}, VAE)
    clip = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    t5 = {"tokenizer_class": "T5TokenizerFast", "model_max_length": 512}
    write(folder, tokenizer__tokenizer_config=clip, tokenizer_2__tokenizer_config=clip)
    write(folder, tokenizer_3__tokenizer_config=t5)  # of which a call says how many are read
    vae = write(tmp_path / "vae", config=VAE)
    assert pretrained_notes("epsilon", folder, vae, {"first": 77, "second": 77, "third": 48}) == []
    (note,) = pretrained_notes("epsilon", folder, vae, {"first": 77, "second": 40, "third": 512})
    assert note.startswith("second: the weights in")
    assert note.endswith("prompts of 77 tokens, as their tokenizer says, and this run reads 40")


def test_a_safety_checker_that_is_left_out_is_told(tmp_path):
    folder, vae = pipeline(tmp_path / "pipeline", {}, VAE), write(tmp_path / "vae", config=VAE)
    checker = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    write(folder, model_index={"_class_name": "StableDiffusionPipeline", **checker})
    (note,) = pretrained_notes("epsilon", folder, vae)
    assert note.startswith("model.pretrained: ") and "trained and exported draws without one" in note
    write(folder, model_index={"safety_checker": [None, None]})
    assert pretrained_notes("epsilon", folder, vae) == []


def test_a_network_alone_or_one_that_is_elsewhere_tells_nothing(tmp_path):
    vae = write(tmp_path / "vae", config=VAE)
    assert pretrained_notes("v", write(tmp_path / "alone", config={}), vae) == []
    elsewhere = Component(kind="model", path="someone/model", revision="0" * 40)
    assert planned_notes("v", elsewhere, Component(kind="vae", path=str(vae))) == []
    assert planned_notes("v", None, elsewhere) == []


@pytest.mark.slow
def test_snakemake_tells_it_in_a_dry_run(make_tiny_project):
    project = make_tiny_project("pretrained")
    scheduler = {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
    folder = pipeline(project.folder / "sd", scheduler, {"scaling_factor": 0.44591})
    save_file({"weight": torch.zeros(1)}, folder / "unet/diffusion_pytorch_model.safetensors")
    write(folder, tokenizer__tokenizer_config={"tokenizer_class": "CLIPTokenizer", "model_max_length": 77})
    components = project.folder / "config/components.yaml"
    components.write_text(components.read_text() + "\nsd:\n  kind: model\n  path: sd\n")
    shutil.copy(ROOT / "config/runs/sd2-imagenet-tiny.yaml", project.folder / "config/runs")
    values = {"extends": "sd2-at-scale-256-tiny", "description": "x", "dataset": "demo-pictures"}
    values |= {"model": {"pretrained": "sd", "params": None}}
    values |= {"train": {"objective": {"prediction": "epsilon", "zero_terminal_snr": False}}}
    (project.folder / "config/runs/on-sd.yaml").write_text(yaml.safe_dump(values))
    assert load_project("on-sd", project.folder)
    output = project.run("snakemake", "-n", "--quiet", "all", "--config", "run=on-sd")
    for key in (
        "train.objective.prediction: the weights in sd predict v",
        "cache.vae: the weights in sd know",
        "cache.text_encoders.0.max_tokens: the weights in sd know prompts of 77 tokens",
    ):
        assert f"config/runs/on-sd.yaml: note: {key}" in output
