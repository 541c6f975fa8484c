"""The distance of two pictures in the layers of a CLIP's image encoder, whichever CLIP is there.

It is LPIPS's (Zhang et al. 2018, arXiv 1801.03924, equation 1) without learned weights: the states of every token
in every layer are brought to length 1, and the squared distances of two pictures' are averaged. Unlike VGG's in
LPIPS, layers are not weighed by what people see, so its values compare with no published ones.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from darkroom.components.base import Component, ComponentOf
from darkroom.perceptual.base import Distance, Perceptual, PerceptualSection


class ClipDistance(PerceptualSection):
    """By a CLIP's image encoder."""

    kind: Literal["clip"] = "clip"
    clip: Annotated[str, ComponentOf("clip")] = Field(
        description="name of a CLIP in config/components.yaml, whose image encoder is a vision transformer"
    )


def load(section: ClipDistance, components: Mapping[str, Component], device: Any) -> Distance:
    """The distance by the CLIP that the section names.

    Raises:
        ValueError: its image encoder has no layers of tokens, as a ResNet.
    """
    import torch
    import torch.nn.functional as F
    from torch import Tensor

    from darkroom.components.clip import load_clip

    scorer = load_clip(components[section.clip])
    towers, size = scorer.towers, scorer.image_size
    towers.model.to(device)
    mean, std = scorer.mean.to(device), scorer.std.to(device)
    states: list[Tensor] = []
    for layer in _layers(towers.model, section.clip):
        layer.register_forward_hook(lambda module, given, made: states.append(_of_tokens(made)))

    def read(pictures: Tensor) -> list[Tensor]:
        """The states of all layers, at unit length; the CLIP sees the whole picture, made square."""
        resized = F.interpolate(pictures, (size, size), mode="bicubic", antialias=True, align_corners=False)
        states.clear()
        towers.encode_image(((resized + 1) / 2 - mean) / std)
        return [F.normalize(state.float(), dim=-1) for state in states]

    def distance(reconstructions: Tensor, pictures: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = read(pictures)
        pairs = zip(read(reconstructions), wanted, strict=True)
        return torch.stack([(one - other).square().sum(dim=-1).mean() for one, other in pairs]).mean()

    return distance


def _layers(model: Any, name: str) -> Any:
    """The blocks of a vision transformer, of OpenAI's class or of transformers'."""
    if hasattr(model, "vision_model"):
        return model.vision_model.encoder.layers
    if hasattr(model.visual, "transformer"):
        return model.visual.transformer.resblocks
    raise ValueError(
        f"loss.perceptual.clip: {name} sees pictures with a ResNet; take one with a vision transformer"
    )


def _of_tokens(made: Any) -> Any:
    """A block's states; some classes return them in a tuple."""
    return made[0] if isinstance(made, tuple) else made


SPEC = Perceptual(name="clip", section=ClipDistance, load=load)
