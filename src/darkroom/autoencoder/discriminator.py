"""A PatchGAN: says of every patch of a picture whether it is one of a picture or of a reconstruction."""

import torch
from torch import Tensor, nn

_MAX_FACTOR = 8


class PatchDiscriminator(nn.Module):
    """Convolutions of 4 x 4 (Isola et al. 2017, arXiv 1611.07004, section 6.1.2): `num_layers` that halve the
    picture, one that does not, and one to a single channel.

    With 3 layers a number of the output sees 70 x 70 pixels. Weights are drawn from N(0, 0.02) and the batch
    norms' from N(1, 0.02), as there.

    Args:
        num_layers: convolutions of stride 2.
        num_channels: of the first; each next one has twice as many, up to eight times.
    """

    def __init__(self, num_layers: int, num_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, num_channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        width = num_channels
        for place in range(1, num_layers + 1):
            before, width = width, num_channels * min(2**place, _MAX_FACTOR)
            stride = 2 if place < num_layers else 1
            layers += [
                nn.Conv2d(before, width, 4, stride, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, 1, 1))
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) -> (B, 1, h, w), above 0 for those taken for pictures."""
        found: Tensor = self.layers(pictures)
        return found


def smallest_picture(num_layers: int) -> int:
    """The side in pixels below which nothing is left of a picture."""
    side = 1
    for stride in (1, 1, *(2 for _ in range(num_layers))):
        # Of a convolution of 4 x 4 with a border of 1: out = (side + 2 - 4) // stride + 1.
        side = (side - 1) * stride + 2
    return side


def built(num_layers: int, num_channels: int, seed: int) -> PatchDiscriminator:
    """A new one; its weights are a function of the arguments."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PatchDiscriminator(num_layers, num_channels)
