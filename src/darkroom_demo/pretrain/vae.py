"""The demo's VAE: diffusers' AutoencoderKL, 16x downsampling and 16 channels, trained in minutes on a CPU.

What counts here is less the last decibel than latents that are easy to diffuse: 4 x 4 of them for a picture of
64 x 64, which keep the shapes and let the ground's texture go; a KL term strong enough that the posterior's
standard deviation is a visible part of the latents'; and a decoder trained on noisy latents.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from darkroom_demo.pretrain.data import Pool, make_pool
from darkroom_demo.pretrain.optimizers import muon, one_cycle

SIZES = ((64, 64), (64, 64), (48, 80), (80, 48), (48, 96), (96, 48))
BLOCK_CHANNELS = (16, 32, 64, 96, 96)
LATENT_CHANNELS = 16

NUM_STEPS = 3300
BATCH_SIZE = 16
MUON_LEARNING_RATE = 0.008
ADAM_LEARNING_RATE = 1e-3
EMA_DECAY = 0.998
KL_WEIGHT = 1e-3
FIRST_POSTERIOR_STD = 0.1
GRADIENT_WEIGHT = 1.0
# The decoder sees latents with up to so much added noise, in units of their standard deviation.
MAX_NOISE = 0.2


def build_vae() -> Any:
    """The untrained AutoencoderKL (about 2.3 M parameters), float32."""
    from diffusers import AutoencoderKL
    from diffusers.models.resnet import ResnetBlock2D

    num_blocks = len(BLOCK_CHANNELS)
    vae: Any = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * num_blocks,
        up_block_types=("UpDecoderBlock2D",) * num_blocks,
        block_out_channels=BLOCK_CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
        force_upcast=False,
    )
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, ResnetBlock2D) and module.conv2.bias is not None:
                # A network that begins as its skip path alone learns colours and places several times sooner.
                module.conv2.weight.zero_()
                module.conv2.bias.zero_()
        # At first the latents carry nothing yet; noise of standard deviation 1 would keep it so for long.
        vae.quant_conv.weight[LATENT_CHANNELS:] *= 0.1
        vae.quant_conv.bias[LATENT_CHANNELS:] = 2 * float(np.log(FIRST_POSTERIOR_STD))
    return vae


def train_vae(
    out_folder: Path, seed: int = 0, num_steps: int = NUM_STEPS, threads: int = 1, num_pictures: int = 12_000
) -> dict[str, float]:
    """Train the VAE and write it, float16, as a diffusers folder; returns `measure_vae`'s numbers.

    The weights are a function of the arguments (thread count included) on one kind of CPU; the committed ones
    are the defaults'.
    """
    torch.set_num_threads(threads)
    pool = make_pool(num_pictures, SIZES, seed, crop=True, num_workers=threads)
    held_out = make_pool(min(num_pictures, 600), SIZES, seed + 1, crop=True, num_workers=threads)
    torch.manual_seed(seed)
    vae = build_vae()
    stream = batches(pool, np.random.default_rng((seed, 2)), BATCH_SIZE)
    average = _run(vae, stream, num_steps)
    vae.load_state_dict(average)
    save_vae(vae, held_out, out_folder)
    return measure_vae(vae, held_out)


def _run(vae: Any, stream: Iterable[torch.Tensor], num_steps: int) -> dict[str, torch.Tensor]:
    """Train with a one-cycle schedule; returns the exponential moving average of the weights."""
    optimizers = make_optimizers(vae)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, one_cycle(num_steps)) for optimizer in optimizers
    ]
    average = {name: value.detach().clone() for name, value in vae.state_dict().items()}
    start, sums = time.monotonic(), torch.zeros(4)
    for step, pictures in zip(range(1, num_steps + 1), stream, strict=False):
        reconstruction, gradient, kl, std = losses(vae, pictures)
        (reconstruction + GRADIENT_WEIGHT * gradient + KL_WEIGHT * kl).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        decay = min(EMA_DECAY, step / (step + 10))
        with torch.no_grad():
            for name, value in vae.state_dict().items():
                average[name].lerp_(value, 1 - decay)
        sums += torch.stack([reconstruction, gradient, kl, std]).detach()
        if step % 100 == 0 or step == num_steps:
            rec, grad, kl, std = (sums / (step % 100 or 100)).tolist()
            speed = step * BATCH_SIZE / (time.monotonic() - start)
            print(f"vae {step}/{num_steps} l1 {rec:.4f} gradient {grad:.4f} kl {kl:.3f}"
                  f" posterior std {std:.3f} {speed:.0f} pictures/s", flush=True)  # fmt: skip
            sums.zero_()
    return average


def make_optimizers(vae: Any) -> list[torch.optim.Optimizer]:
    """Muon for the inner convolutions; AdamW for the first and last layers, norms and biases."""
    outer = ("conv_in", "conv_out", "quant_conv")
    inner = [
        p for name, p in vae.named_parameters() if p.ndim == 4 and not any(part in name for part in outer)
    ]
    taken = {id(p) for p in inner}
    rest = [p for p in vae.parameters() if id(p) not in taken]
    adam = torch.optim.AdamW(rest, lr=ADAM_LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    return [muon(inner, MUON_LEARNING_RATE), adam]


def losses(vae: Any, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """(reconstruction, gradient, KL a latent in nats, mean posterior std) of (n, 3, h, w) in [-1, 1]."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moments = vae.quant_conv(vae.encoder(pictures)).float()
        mean, log_variance = moments.chunk(2, dim=1)
        log_variance = log_variance.clamp(-12, 4)
        std = torch.exp(0.5 * log_variance)
        level = MAX_NOISE * torch.rand(len(pictures), 1, 1, 1) * mean.detach().std()
        latents = mean + torch.sqrt(std**2 + level**2) * torch.randn_like(mean)
        decoded = vae.decode(latents).sample.float()
    reconstruction, gradient = _charbonnier(decoded - pictures), _gradient_error(decoded, pictures)
    halves = F.avg_pool2d(decoded, 2), F.avg_pool2d(pictures, 2)
    reconstruction = reconstruction + 0.5 * _charbonnier(halves[0] - halves[1])
    kl = 0.5 * (mean**2 + std**2 - 1 - log_variance).mean()
    return reconstruction, gradient, kl, std.mean()


def _charbonnier(error: torch.Tensor) -> torch.Tensor:
    return torch.sqrt(error**2 + 1e-4).mean()


def _gradient_error(decoded: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """L1 distance of the finite differences: the sharpness of edges."""
    error = decoded - pictures
    return (error[..., 1:] - error[..., :-1]).abs().mean() + (
        error[..., 1:, :] - error[..., :-1, :]
    ).abs().mean()


def batches(pool: Pool, rng: np.random.Generator, batch_size: int) -> Iterator[torch.Tensor]:
    """Endless float32 batches (n, 3, h, w) in [-1, 1] of one size each, mirrored at random."""
    sizes = list(pool.pictures)
    shares = np.array([len(pool.pictures[size]) for size in sizes], np.float64)
    while True:
        pictures = pool.pictures[sizes[int(rng.choice(len(sizes), p=shares / shares.sum()))]]
        batch = pictures[rng.integers(len(pictures), size=batch_size)]
        batch = batch[:, :: int(rng.choice((1, -1))), :: int(rng.choice((1, -1)))]
        yield to_tensor(batch)


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float32 (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float() / 127.5 - 1


def save_vae(vae: Any, pool: Pool, out_folder: Path) -> None:
    """Set scaling_factor and shift_factor from a pool's scenes, and write the VAE as float16."""
    latents = scene_latents(vae, pool)
    shift, scale = float(latents.mean()), float(1 / latents.std())
    vae.register_to_config(scaling_factor=round(scale, 5), shift_factor=round(shift, 5))
    vae.half().save_pretrained(out_folder, safe_serialization=True)
    vae.float()


@torch.no_grad()
def scene_latents(vae: Any, pool: Pool) -> torch.Tensor:
    """The posterior's means, unscaled, of a pool's scenes: (channels, latents)."""
    latents = []
    for size, pictures in pool.pictures.items():
        scenes = [i for i, item in enumerate(pool.items[size]) if item.kind == "scene"]
        for first in range(0, len(scenes), 64):
            mean = vae.encode(to_tensor(pictures[scenes[first : first + 64]])).latent_dist.mean
            latents.append(mean.transpose(0, 1).flatten(1))
    return torch.cat(latents, dim=1)


@torch.no_grad()
def measure_vae(vae: Any, pool: Pool, noise: float = 0.1) -> dict[str, float]:
    """PSNR in dB over a pool's scenes, digits and photos, of the posterior's mean, and with noise.

    `noise` is in units of the scaled latents' standard deviation (1).
    """
    generator = torch.Generator().manual_seed(0)
    errors: dict[str, list[float]] = {"scene": [], "digit": [], "photo": [], "noisy_scene": []}
    for size, pictures in pool.pictures.items():
        for first in range(0, len(pictures), 64):
            batch = to_tensor(pictures[first : first + 64])
            mean = vae.encode(batch).latent_dist.mean
            drawn = torch.randn(mean.shape, generator=generator) * noise / vae.config.scaling_factor
            kinds = [item.kind for item in pool.items[size][first : first + 64]]
            for prefix, latents in (("", mean), ("noisy_", mean + drawn)):
                decoded = vae.decode(latents).sample.clamp(-1, 1)
                for kind, error in zip(kinds, ((decoded - batch) ** 2).mean((1, 2, 3)).tolist(), strict=True):
                    errors.setdefault(prefix + kind, []).append(error)
    scaled = (scene_latents(vae, pool) - vae.config.shift_factor) * vae.config.scaling_factor
    numbers = {f"psnr_{k}": float(np.mean(-10 * np.log10(np.array(v) / 4))) for k, v in errors.items() if v}
    return numbers | {
        "latent_mean": float(scaled.mean()),
        "latent_std": float(scaled.std()),
        "channel_std_min": float(scaled.std(1).min()),
        "channel_std_max": float(scaled.std(1).max()),
    }
