"""LoKr by LyCORIS's names (Yeh et al. 2023, arXiv 2309.14859): `lokr_w1`, `lokr_w2` or `lokr_w2_a`, `_b`.

Readers add alpha / rank * kron(w1, w2), in the shape of the weight, and where both factors are whole kron(w1, w2):
a file without ranks has no scale.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from darkroom.formats.original.places import Place, PlaceOf, grouped

if TYPE_CHECKING:
    from torch import Tensor

METADATA = {"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "lokr"}'}
_W1, _W2, _W2_A, _W2_B = "lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b"


def tensors(
    state: "Mapping[str, Tensor]", config: Mapping[str, Any], place_of: PlaceOf, rows: Mapping[str, int]
) -> "tuple[dict[str, Tensor], dict[str, Tensor]]":
    """(factors by name, alphas by name) of an export's adapters.

    state, config: see `lora_kohya.read_file`. rows: of every layer's weight, by its name in diffusers.
    Raises:
        ValueError: they have factors that darkroom's have not, or are of a layer that is part of one there.
    """
    import torch

    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        layer, _, factor = name.partition(".")[2].rpartition(".")
        if factor not in (_W1, _W2, _W2_A, _W2_B):
            raise ValueError(
                f"the adapters have {name}, which lora_kohya does not know; --format single_file holds the whole"
                " model, adapters added"
            )
        layers.setdefault(layer, {})[factor] = tensor
    if not all(isinstance(config.get(name), int | float) and config[name] > 0 for name in ("r", "alpha")):
        raise ValueError(
            "the adapters say no rank and alpha (lora_adapter_metadata), as darkroom's exports do"
        )
    names = _names(layers, place_of, rows)
    ranks, alphas = (config.get(f"{name}_pattern") or {} for name in ("rank", "alpha"))
    found: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    for layer, factors in layers.items():
        key = "lora_unet_" + names[layer].replace(".", "_")
        scale = alphas.get(layer, config["alpha"]) / ranks.get(layer, config["r"])
        if _W2 in factors:
            factors, alpha = factors | {_W2: factors[_W2] * scale}, 1.0
        else:
            alpha = scale * len(factors[_W2_B])
        found |= {f"{key}.{name}": tensor for name, tensor in factors.items()}
        scales[f"{key}.alpha"] = torch.tensor(alpha)
    return found, scales


def _names(layers: Mapping[str, Any], place_of: PlaceOf, rows: Mapping[str, int]) -> dict[str, str]:
    """Layer -> its name in the original layout."""
    if missing := sorted(set(layers) - set(rows)):
        raise ValueError(f"there are adapters of {missing[0]}, and the network has no such layer")
    found = {}
    for name, pieces in grouped((f"{layer}.weight" for layer in rows), place_of).items():
        for source, place in pieces:
            layer = source.removesuffix(".weight")
            if layer in layers and (len(pieces) > 1 or not _is_whole(place)):
                raise ValueError(
                    f"{layer} is {'a part of' if len(pieces) > 1 else 'ordered otherwise in'}"
                    f" {name.removesuffix('.weight')} in the original layout, and a Kronecker product of it is"
                    " none there: --format single_file holds the whole model, adapters added, and adapters of"
                    " method lora or dora can be held"
                )
            found[layer] = name.removesuffix(".weight")
    return found


def _is_whole(place: Place) -> bool:
    """Whether the weight's numbers stand as here, in whatever shape."""
    return place.change in ("", "convolution")
