"""One signature for every family: (noisy latents, timestep, conditioning) -> prediction."""

from typing import Any

from torch import Tensor, nn

from darkroom.families.base import Family
from darkroom.families.conditioning import Conditioning


class Denoiser(nn.Module):
    """A network with the way to call it.

    network: the diffusers model that is exported. extension: another trained module that belongs to it.
    """

    def __init__(self, family: Family, network: Any, extension: nn.Module | None = None) -> None:
        super().__init__()
        self.family = family
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
        return self.family.forward(self.network, self.extension, noisy, timestep, conditioning)
