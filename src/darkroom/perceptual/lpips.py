"""LPIPS (Zhang et al. 2018, arXiv 1801.03924), version 0.1 with VGG16: how unlike two pictures look to people.

Features of five layers of VGG16 are brought to length 1 at every place, and the squared differences of two
pictures' are weighed by what people's judgements taught, and averaged (equation 1).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from darkroom.components.base import Component, ComponentOf
from darkroom.perceptual.base import Distance, Perceptual, PerceptualSection

if TYPE_CHECKING:
    from torch import Tensor

# Channels of VGG16's convolutions, block by block; between blocks both sides are halved (Simonyan and Zisserman
# 2014, arXiv 1409.1556, table 1, D). LPIPS takes what the last one of each block gives.
_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Mean and standard deviation of ImageNet's colours, for pictures in [-1, 1], as LPIPS rounds them.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_EPSILON = 1e-10


class Lpips(PerceptualSection):
    """LPIPS with VGG16."""

    kind: Literal["lpips"] = "lpips"
    weights: Annotated[str, ComponentOf("lpips")] = Field(
        description="name of an lpips in config/components.yaml: VGG16's weights and those of LPIPS"
    )


def load(section: Lpips, components: Mapping[str, Component], device: Any) -> Distance:
    """The distance by the weights that the section names.

    Raises:
        ValueError: a file of them lacks a tensor, or holds one of another shape.
    """
    import torch
    import torch.nn.functional as F

    from darkroom.components.check import LPIPS_HEADS, VGG16_WEIGHTS
    from darkroom.components.files import component_folder, read_tensors

    folder = component_folder(components[section.weights], "lpips")
    network, heads = _first(folder, VGG16_WEIGHTS), _first(folder, LPIPS_HEADS)
    blocks = _read_vgg16(read_tensors(network), network, device)
    found = read_tensors(heads)
    weights = []
    for place, channels in enumerate(_BLOCKS):
        weight = _tensor(found, f"lin{place}.model.1.weight", (1, channels[-1], 1, 1), heads)
        weights.append(weight.to(device).view(-1, 1, 1))
    shift, scale = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (_SHIFT, _SCALE))

    def read(pictures: "Tensor") -> "list[Tensor]":
        """The features of each block's end, at unit length."""
        states, features = (pictures - shift) / scale, []
        for place, convolutions in enumerate(blocks):
            states = F.max_pool2d(states, 2) if place else states
            for weight, bias in convolutions:
                states = F.relu(F.conv2d(states, weight, bias, padding=1))
            length = states.float().square().sum(dim=1, keepdim=True).sqrt()
            features.append(states.float() / (length + _EPSILON))
        return features

    def distance(reconstructions: "Tensor", pictures: "Tensor") -> "Tensor":
        with torch.no_grad():
            wanted = read(pictures)
        pairs = zip(read(reconstructions), wanted, weights, strict=True)
        of_blocks = [((one - other).square() * weight).sum(dim=1).mean() for one, other, weight in pairs]
        return torch.stack(of_blocks).sum()

    return distance


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    """The first of these files that is there; `snakemake -n` has seen one."""
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def _read_vgg16(
    found: "Mapping[str, Tensor]", path: Path, device: Any
) -> "list[list[tuple[Tensor, Tensor]]]":
    """(weight, bias) of each convolution, block by block, by torchvision's names, as `features.0.weight`."""
    blocks, place, before = [], 0, 3
    for channels in _BLOCKS:
        convolutions = []
        for width in channels:
            weight = _tensor(found, f"features.{place}.weight", (width, before, 3, 3), path)
            bias = _tensor(found, f"features.{place}.bias", (width,), path)
            convolutions.append((weight.to(device), bias.to(device)))
            # Behind each convolution comes its ReLU.
            place, before = place + 2, width
        blocks.append(convolutions)
        place += 1  # the halving
    return blocks


def _tensor(found: "Mapping[str, Tensor]", name: str, shape: tuple[int, ...], path: Path) -> "Tensor":
    if name not in found:
        raise ValueError(f"{path}: lacks {name}")
    if tuple(found[name].shape) != shape:
        raise ValueError(f"{path}: {name} is {tuple(found[name].shape)}, where {shape} belongs")
    return found[name].float()


SPEC = Perceptual(name="lpips", section=Lpips, load=load)
