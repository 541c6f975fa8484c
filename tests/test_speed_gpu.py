"""The measurements on a GPU: their architectures are the published ones, and without a GPU they run in small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
import warm
from conftest import ROOT
from diffusers import AutoencoderKL

sys.path.insert(0, str(ROOT / "speed"))

import gpu
import gpu_models

from darkroom.config.model import read_model
from darkroom.models.families import build_denoiser

# Weights of the published files.
NETWORKS = {
    "SD2 256": 865_910_724,
    "SD2 512": 865_910_724,
    "SDXL 1024": 2_567_463_684,
    "SD3-M 512": 2_028_328_000,
    "SD3-M 1024": 2_028_328_000,
    "Flux LoRA 1024": 11_901_408_320,
}
VAES = {"VAE, 4 channels": 83_653_863, "VAE, 16 channels": 83_819_683}
TEXT_ENCODERS = {"CLIP-L": 123_650_304, "OpenCLIP-bigG": 694_659_840, "T5-XXL": 4_762_310_656}
CLASSES = {"CLIPTextConfig": "CLIPTextModelWithProjection", "T5Config": "T5EncoderModel"}


def weights(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("name", "published"), NETWORKS.items())
def test_a_network_has_as_many_weights_as_the_published_one(name: str, published: int) -> None:
    network = gpu_models.NETWORKS[name]
    values = {key: value for key, value in network.section.items() if key != "lora"}
    dims = tuple(dim for _, dim in network.text)
    text = dims if len(dims) > 1 else dims[0]
    sizes = {"latent_channels": network.channels, "text_dim": text, "pooled_dim": network.pooled}
    with torch.device("meta"):
        model = build_denoiser(read_model({"family": network.family, **values}), sizes, seed=0)
    assert weights(model) == published


@pytest.mark.parametrize(("name", "published"), VAES.items())
def test_a_vae_has_as_many_weights_as_the_published_one(name: str, published: int) -> None:
    with torch.device("meta"):
        assert weights(AutoencoderKL(**gpu_models.VAE, **gpu_models.VAES[name])) == published


@pytest.mark.parametrize(("name", "published"), TEXT_ENCODERS.items())
def test_a_text_encoder_has_as_many_weights_as_the_published_one(name: str, published: int) -> None:
    config, values, _ = gpu_models.TEXT_ENCODERS[name]
    with torch.device("meta"):
        model = getattr(transformers, CLASSES[config])(getattr(transformers, config)(**values))
    assert weights(model) == published


@pytest.mark.parametrize("name", [name for name in gpu.PARTS if name != "tests"])
def test_every_part_runs_in_small_without_a_gpu(name: str) -> None:
    rows = gpu.PARTS[name](True)
    assert rows and all(row["per_second"] > 0 for row in rows)
    assert all(row["work"] in gpu.table(rows) for row in rows)
    if name.startswith("train"):
        assert rows[0]["tflops"] > 0 and rows[0]["mfu"] is None


def test_a_part_that_fails_costs_its_row_alone_and_the_command_ends_with_1(tmp_path: Path) -> None:
    # Without a GPU none of them can do it in full.
    command = ["python", str(ROOT / "speed/gpu.py"), "--only", "exchange", "--out", str(tmp_path)]
    hidden = warm.jobs.environment({**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    done = subprocess.run(command, env=hidden, capture_output=True, text=True)
    assert done.returncode == 1 and "0 of 1 rows measured; failed: ['exchange']" in done.stdout
    (row,) = json.loads((tmp_path / "gpu.json").read_text())
    assert row["work"] == "exchange" and row["failed"]
    assert "| exchange | failed: " in (tmp_path / "gpu.md").read_text()
    done = subprocess.run([*command, "--dry"], env=hidden, capture_output=True, text=True)
    assert done.returncode == 0 and "1 of 1 rows measured" in done.stdout, done.stderr


def test_what_there_is_no_time_for_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--dry", "--seconds", "1", "--only", "vae", "text"]) == 1
    assert "0 of 2 rows measured; failed: ['vae', 'text']" in capsys.readouterr().out
