"""One signature for every family: (noisy latents, timestep, conditioning) -> prediction.

What differs between the families is how text encoders are joined:

    mmdit      every encoder's tokens with a norm and a projection of their own, one after another
    unet-sd    the one encoder's tokens, by cross-attention
    unet-sdxl  both encoders' channels side by side; the second's pooled embedding and the sizes are added to
               the timestep (Podell et al. 2023, arXiv 2307.01952)
    sd3        both CLIPs' channels side by side, padded with zeros to T5's width, then T5's tokens; both
               pooled embeddings side by side (Esser et al. 2024, arXiv 2403.03206)
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.models.conditioning import Conditioning

NUM_TRAIN_TIMESTEPS = 1000


class Denoiser(nn.Module):
    """A network with the way to call it.

    network: the diffusers model that is exported. extension: another trained module that belongs to it.
    """

    def __init__(self, network: Any, extension: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network
        self.extension = extension

    def forward(self, noisy: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's prediction for noisy latents.

        Args:
            noisy: (B, C, H, W), scaled as the network expects them.
            timestep: (B,) in [0, 1]: flow time, or a 1000-step schedule's timestep / 1000.
        Returns:
            (B, C, H, W).
        """
        raise NotImplementedError


class MMDiTDenoiser(Denoiser):
    """darkroom.models.mmdit.MMDiT."""

    def forward(self, noisy: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """See `Denoiser.forward`."""
        return self.network(noisy, timestep, conditioning.text, conditioning.text_mask, conditioning.pooled)


class SDDenoiser(Denoiser):
    """diffusers' UNet2DConditionModel as Stable Diffusion 1.x and 2.x use it."""

    def forward(self, noisy: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """See `Denoiser.forward`."""
        (text,) = conditioning.text
        return self.network(noisy, timestep * NUM_TRAIN_TIMESTEPS, text, return_dict=False)[0]


class SDXLDenoiser(Denoiser):
    """diffusers' UNet2DConditionModel as SDXL uses it."""

    def forward(self, noisy: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """See `Denoiser.forward`."""
        added = {"text_embeds": conditioning.pooled, "time_ids": conditioning.time_ids}
        text = torch.cat(conditioning.text, dim=-1)
        return self.network(
            noisy, timestep * NUM_TRAIN_TIMESTEPS, text, added_cond_kwargs=added, return_dict=False
        )[0]


class SD3Denoiser(Denoiser):
    """diffusers' SD3Transformer2DModel; `extension` changes T5's tokens, see `models.context`."""

    def forward(self, noisy: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """See `Denoiser.forward`."""
        *clips, t5 = conditioning.text
        if self.extension is not None:
            t5 = self.extension(t5)
        return self.network(
            noisy, join_sd3_text(clips, t5), conditioning.pooled, timestep * NUM_TRAIN_TIMESTEPS,
            return_dict=False,
        )[0]  # fmt: skip


def join_sd3_text(clips: Sequence[Tensor], t5: Tensor) -> Tensor:
    """[(B, L, D_1), (B, L, D_2)], (B, L', D) -> (B, L + L', D): SD3's text tokens."""
    beside = torch.cat(list(clips), dim=-1)
    return torch.cat([F.pad(beside, (0, t5.shape[-1] - beside.shape[-1])), t5], dim=1)


DENOISERS: dict[str, Callable[..., Denoiser]] = {
    "mmdit": MMDiTDenoiser,
    "unet-sd": SDDenoiser,
    "unet-sdxl": SDXLDenoiser,
    "sd3": SD3Denoiser,
}
