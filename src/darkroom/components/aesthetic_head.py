"""Linear heads on CLIP embeddings that predict how well a picture pleases people.

LAION published two kinds: one linear layer (aesthetic-predictor, for ViT-B/32, B/16 and L/14) and several without
anything between them (improved-aesthetic-predictor, for ViT-L/14), whose dropouts do nothing when they predict.
Both take the unit vector of the picture. A head means nothing for another CLIP than the one it was trained on.
"""

import re
from itertools import pairwise

from torch import Tensor

from darkroom.components.base import Component
from darkroom.components.files import WEIGHTS, component_folder, read_weights, require_file

# (weight (out, in), bias (out,)) of each layer, in order.
Layers = list[tuple[Tensor, Tensor]]
# `weight`, or `layers.0.weight`, ... in order.
_WEIGHT = re.compile(r"(?:(?:layers\.)?(\d+)\.)?weight")


def load_head(component: Component) -> Layers:
    """The layers of the component's model.safetensors.

    Raises:
        ValueError: it holds something else than linear layers that end in one number.
    """
    folder = component_folder(component, "aesthetic_head")
    require_file(folder, WEIGHTS, f"an aesthetic head's {WEIGHTS}")
    tensors = read_weights(folder)
    numbered = sorted((int(found[1] or 0), name) for name in tensors if (found := _WEIGHT.fullmatch(name)))
    pairs = [(name, name.removesuffix("weight") + "bias") for _, name in numbered]
    layers = [(tensors[weight], tensors[bias]) for weight, bias in pairs if bias in tensors]
    fits = all(first[0].shape[0] == second[0].shape[1] for first, second in pairwise(layers))
    if not layers or 2 * len(layers) != len(tensors) or not fits or layers[-1][0].shape[0] != 1:
        raise ValueError(
            f"{folder / WEIGHTS}: holds {', '.join(sorted(tensors))}; an aesthetic head is linear layers, each a"
            " weight and a bias, that end in one number"
        )
    return layers


def predicted(layers: Layers, vectors: Tensor, head: str, clip: str) -> Tensor:
    """How well pictures please, about 1 to 10: float32, (pictures,).

    Args:
        vectors: float32 unit vectors, (pictures, dimensions).
        head, clip: names of the components, for messages.

    Raises:
        ValueError: the head takes vectors of another length.
    """
    for weight, bias in layers:
        if weight.shape[1] != vectors.shape[1]:
            raise ValueError(
                f"the head {head} takes {weight.shape[1]} dimensions and the CLIP {clip} gives"
                f" {vectors.shape[1]}; name the CLIP that the head was trained on"
            )
        vectors = vectors @ weight.T + bias
    return vectors[:, 0]
