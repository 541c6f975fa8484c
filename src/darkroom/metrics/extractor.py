"""What makes features of pictures: a network, and how pictures come to it. Numbers of different ones differ.

An `Extractor` is plain values, so that what is to be computed is known before anything is loaded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np

from darkroom.components.base import Component, Resize
from darkroom.imports import quick_imports


class Images(Protocol):
    """A network that sees pictures."""

    def encode_images(self, pictures: Sequence[np.ndarray]) -> Any:
        """uint8 (height, width, 3) pictures of any sizes -> (pictures, dimensions)."""


@dataclass(frozen=True)
class Encoder:
    """What tells the features of a network from those of another.

    Attributes:
        kind: of its component, under which the protocol names it.
        identity: its name, its files, its resize.
        words: these for the protocol's definition.
        variant: what of them belongs to the name of a distance.
    """

    kind: str
    identity: Mapping[str, str]
    words: str
    variant: str = ""


class Network(NamedTuple):
    """A network that is loaded."""

    images: Images
    encoder: Encoder


@dataclass(frozen=True)
class Extractor:
    """All that features depend on besides the pictures and the component's files.

    Attributes:
        kind: of the component.
        component: its name.
        batch_size: pictures a forward pass: with others beside it, a picture's sums may be taken in another order.
        resize: how pictures come to its size, where there is a choice; "": as the component itself says.
    """

    kind: Literal["clip", "inception", "dinov2"]
    component: str
    batch_size: int
    resize: str = ""

    def load(self, component: Component) -> Network:
        """The network, on the GPU where there is one.

        Raises:
            ValueError: the component is not what it should be.
        """
        return _LOADERS[self.kind](self, component)


def _clip(extractor: Extractor, component: Component) -> Network:
    with quick_imports():
        from darkroom.components.clip import load_clip
        from darkroom.components.open_clip import RESIZED

    name, clip = extractor.component, load_clip(component).on_fastest_device()
    clip.resize_mode = extractor.resize or clip.resize_mode
    resize = RESIZED[clip.resize_mode].format(clip.image_size)
    identity = {**_identity(name, component), "resize": resize}
    return Network(clip, Encoder("clip", identity, f"{name}, {resize}"))


def _inception(extractor: Extractor, component: Component) -> Network:
    with quick_imports():
        from darkroom.components.inception import LIBRARY, load_inception

    name, resize = extractor.component, cast(Resize, extractor.resize)
    identity = {**_identity(name, component), "library": LIBRARY, "resize": resize}
    words = f"{name}, Inception of {LIBRARY}, resize {resize}"
    encoder = Encoder("inception", identity, words, f"{resize}, {LIBRARY}")
    return Network(load_inception(component, resize), encoder)


def _dinov2(extractor: Extractor, component: Component) -> Network:
    with quick_imports():
        from darkroom.components.dinov2 import SIZE, load_dinov2

    resize = f"bicubic to {SIZE} x {SIZE} px"
    identity = {**_identity(extractor.component, component), "resize": resize}
    return Network(load_dinov2(component), Encoder("dinov2", identity, f"{extractor.component}, {resize}"))


def _identity(name: str, component: Component) -> dict[str, str]:
    from darkroom.components.files import fingerprint

    return {"name": name, "sha256": fingerprint(component)}


_LOADERS = {"clip": _clip, "inception": _inception, "dinov2": _dinov2}
