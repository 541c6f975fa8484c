"""The demo's committed VAE reconstructs the demo's world, and its latents are fit to be diffused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from darkroom.components.base import Component
from darkroom.components.vae import decode_latents, encode_latents, load_vae
from darkroom_demo.pretrain.data import Pool, make_pool
from darkroom_demo.pretrain.vae import batches, losses, scene_latents, to_tensor, train_vae

FOLDER = Path(__file__).parents[1] / "src/darkroom_demo/components/vae"
MIN_PSNR_DB = 28.0
SIZES = [(64, 64), (48, 80), (80, 48)]


@pytest.fixture(scope="module")
def vae():
    return load_vae(Component(kind="vae", path=str(FOLDER)))


@pytest.fixture(scope="module")
def fresh() -> Pool:
    return make_pool(250, SIZES, seed=777, crop=True, num_workers=1)


def scenes(pool: Pool, size: tuple[int, int]) -> torch.Tensor:
    chosen = [i for i, item in enumerate(pool.items[size]) if item.kind == "scene"]
    return to_tensor(pool.pictures[size][chosen])


def psnr(decoded: torch.Tensor, pictures: torch.Tensor) -> float:
    errors = ((decoded.clamp(-1, 1) - pictures) ** 2).mean((1, 2, 3)) / 4
    return float((-10 * errors.log10()).mean())


def test_component_is_small_float16_and_f16_with_16_channels(vae):
    from safetensors.torch import load_file

    weights = load_file(FOLDER / "diffusion_pytorch_model.safetensors")
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 5 * 2**20
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert vae.config.latent_channels == 16
    assert encode_latents(vae, torch.zeros(1, 3, 48, 80)).shape == (1, 16, 3, 5)


@pytest.mark.parametrize("size", SIZES)
def test_fresh_scenes_are_reconstructed(vae, fresh, size):
    pictures = scenes(fresh, size)
    assert psnr(decode_latents(vae, encode_latents(vae, pictures)), pictures) > MIN_PSNR_DB


def test_bfloat16_decodes_about_as_well(fresh):
    vae = load_vae(Component(kind="vae", path=str(FOLDER)), dtype=torch.bfloat16)
    pictures = scenes(fresh, (64, 64))
    assert psnr(decode_latents(vae, encode_latents(vae, pictures)), pictures) > MIN_PSNR_DB - 0.5


def test_latents_have_mean_0_and_standard_deviation_1(vae, fresh):
    latents = encode_latents(vae, scenes(fresh, (64, 64)))
    assert abs(latents.mean()) < 0.1
    assert abs(latents.std() - 1) < 0.1


def test_decoder_bears_noisy_latents(vae, fresh):
    pictures = scenes(fresh, (64, 64))
    latents = encode_latents(vae, pictures)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    clean, noisy = (psnr(decode_latents(vae, z), pictures) for z in (latents, latents + 0.1 * noise))
    assert noisy > clean - 4


def test_losses_are_finite_and_reach_every_weight(vae, fresh):
    torch.manual_seed(0)
    trained = type(vae).from_config(vae.config)
    values = losses(trained, next(batches(fresh, np.random.default_rng(0), 4)))
    sum(values[:3]).backward()
    assert all(value.isfinite() for value in values)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.parameters())


def test_training_writes_a_folder_with_measured_scale_and_the_same_weights_twice(tmp_path):
    for name in ("first", "second"):
        train_vae(tmp_path / name, seed=1, num_steps=2, threads=1, num_pictures=12)
    first, second = (
        (tmp_path / name / "diffusion_pytorch_model.safetensors").read_bytes() for name in ("first", "second")
    )
    assert first == second
    vae = load_vae(Component(kind="vae", path=str(tmp_path / "first")))
    pool = make_pool(12, SIZES, seed=2, crop=True, num_workers=1)
    assert vae.config.scaling_factor != 0.18215  # diffusers' default, which belongs to another VAE
    assert scene_latents(vae, pool).std() * vae.config.scaling_factor == pytest.approx(1, rel=0.5)
