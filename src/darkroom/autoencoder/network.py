"""The AutoencoderKL that is trained: built, gone on from, scaled, and written."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from darkroom.autoencoder.pictures import Pictures
from darkroom.components.base import Component
from darkroom.components.vae import load_vae
from darkroom.config.autoencoder import Autoencoder, AutoencoderTrain
from darkroom.precision import resolve
from darkroom.store import replacing
from darkroom.train.muon import Muon

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

# From so many pictures the latents' scale is computed.
NUM_SCALED = 1000
# Layers between pictures or latents and the network, which Muon leaves to AdamW.
_OUTER = ("conv_in", "conv_out", "quant_conv")


def build(settings: Autoencoder, components: Mapping[str, Component]) -> "AutoencoderKL":
    """The network to train, float32 on the CPU: a new one, or the one to go on from.

    Raises:
        ValueError: that cannot be read.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.resnet import ResnetBlock2D

    if settings.initial is not None:
        return load_vae(components[settings.initial]).train().requires_grad_(True)
    assert settings.network is not None, "the section is checked"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        vae: Any = AutoencoderKL(
            **settings.network.arguments(), sample_size=settings.crop_px, force_upcast=False
        )
    with torch.no_grad():
        # A network that begins as its skips alone learns colours and places sooner (Goyal et al. 2017, arXiv
        # 1706.02677, section 5.1, of residual blocks).
        for module in vae.modules():
            if isinstance(module, ResnetBlock2D):
                nn.init.zeros_(module.conv2.weight)
                if module.conv2.bias is not None:
                    nn.init.zeros_(module.conv2.bias)
    return vae


def make_optimizers(
    vae: nn.Module, discriminator: nn.Module | None, settings: Autoencoder, device: torch.device
) -> tuple[list[torch.optim.Optimizer], list[torch.optim.Optimizer]]:
    """Optimizers of the autoencoder and of the discriminator; groups keep their highest rate as `peak`."""
    train = settings.train
    named = [(name, p) for name, p in vae.named_parameters() if p.requires_grad]
    inner = [p for name, p in named if train.optimizer == "muon" and _is_inner(name, p)]
    taken = {id(p) for p in inner}
    rest = [p for _, p in named if id(p) not in taken]
    mine: list[torch.optim.Optimizer] = [_adamw(rest, train, train.learning_rate)]
    if inner:
        dtype = getattr(torch, resolve(train.dtype, device))
        mine.append(Muon(inner, train.muon_learning_rate, train.weight_decay, dtype))
    others: list[torch.optim.Optimizer] = []
    if discriminator is not None:
        assert settings.loss.adversarial is not None
        rate = settings.loss.adversarial.learning_rate or train.learning_rate
        others = [_adamw(list(discriminator.parameters()), train, rate)]
    for optimizer in (*mine, *others):
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return mine, others


def _adamw(parameters: list[nn.Parameter], train: AutoencoderTrain, rate: float) -> torch.optim.AdamW:
    """Matrices and kernels decay, and vectors do not."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=train.betas, fused=True)


def _is_inner(name: str, parameter: torch.Tensor) -> bool:
    return parameter.ndim == 4 and not any(part in name for part in _OUTER)


@torch.no_grad()
def latent_moments(vae: "AutoencoderKL", pictures: Pictures, number: int) -> dict[str, Any]:
    """Mean and standard deviation of the posterior's means, unscaled, of the first `number` pictures' middles.

    Returns:
        mean, std: of all latents. means, stds: of each channel. pictures: how many could be read.
    """
    count, pixels = 0, 0
    sums = squares = torch.zeros(vae.config["latent_channels"], dtype=torch.float64)
    for batch in pictures.middles(number):
        if not len(batch.pixels):
            continue
        images = torch.from_numpy(batch.pixels).to(vae.device).float() / 127.5 - 1
        latents = vae.encode(images).latent_dist.mode().double().cpu()
        count, pixels = count + len(latents), pixels + latents[:, 0].numel()
        sums = sums + latents.sum(dim=(0, 2, 3))
        squares = squares + latents.square().sum(dim=(0, 2, 3))
    if not count:
        raise ValueError("none of the pictures can be read; make the download's parts again")
    means, powers = sums / pixels, squares / pixels
    mean = means.mean()
    return {
        "mean": float(mean),
        "std": float((powers.mean() - mean**2).clamp(min=0).sqrt()),
        "means": means.tolist(),
        "stds": (powers - means**2).clamp(min=0).sqrt().tolist(),
        "pictures": count,
    }


def write_autoencoder(
    vae: "AutoencoderKL", moments: Mapping[str, Any], shift: bool, folder: str | Path
) -> None:
    """Write it as diffusers does, float32, scaled so that latents have a standard deviation of 1.

    moments: of `latent_moments`. shift: write their mean too, which is taken from latents before they are scaled.

    Raises:
        ValueError: the latents are all the same, so that nothing scales them.
    """
    if not moments["std"] > 1e-6:
        raise ValueError(
            f"the latents have a standard deviation of {moments['std']:.3g}: they tell nothing of the pictures;"
            " lower loss.kl_weight, or train longer"
        )
    vae.register_to_config(
        scaling_factor=round(1 / moments["std"], 5),
        shift_factor=round(moments["mean"], 5) if shift else None,
    )
    with replacing(folder) as beside:
        vae.save_pretrained(beside, safe_serialization=True)
        # Where it was loaded from, which is a path of this machine.
        config = beside / "config.json"
        lines = [line for line in config.read_text().splitlines() if '"_name_or_path"' not in line]
        config.write_text("\n".join(lines) + "\n")
