"""Where a tensor of diffusers or transformers stands in an original layout: one function of its name a network."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Place:
    """A tensor's place.

    name: in the original layout. order: among the tensors that are one there, row after row.
    change: "halves" of its rows change places (shift and scale), it is "transposed", or a linear layer is a
        "convolution" of one pixel.
    """

    name: str
    order: int = 0
    change: Literal["", "halves", "transposed", "convolution"] = ""


PlaceOf = Callable[[str], Place]


def grouped(names: Iterable[str], place_of: PlaceOf) -> dict[str, list[tuple[str, Place]]]:
    """Name in the original layout -> names here with their places, in the order of their rows.

    Raises:
        ValueError: a name has no place.
    """
    found: dict[str, list[tuple[str, Place]]] = {}
    for name in sorted(names):
        place = place_of(name)
        found.setdefault(place.name, []).append((name, place))
    return {name: sorted(pieces, key=lambda piece: piece[1].order) for name, pieces in sorted(found.items())}


def rearranged(state: Mapping[str, "Tensor"], place_of: PlaceOf) -> dict[str, "Tensor"]:
    """A network's tensors in their original layout; what stays as it is shares its memory."""
    import torch

    found = {}
    for name, pieces in grouped(state, place_of).items():
        tensors = [changed(state[source], place) for source, place in pieces]
        found[name] = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
    return found


def changed(tensor: "Tensor", place: Place) -> "Tensor":
    """A tensor as its place has it."""
    import torch

    if place.change == "halves":
        first, second = tensor.chunk(2)
        return torch.cat([second, first])
    if place.change == "transposed":
        return tensor.T
    return tensor[:, :, None, None] if place.change == "convolution" else tensor


def no_place(name: str, network: str) -> ValueError:
    """What to raise for a tensor that a layout has no name for."""
    return ValueError(f"the original layout of {network} has no name for {name}")
