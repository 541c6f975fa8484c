"""Features of sets of pictures: computed by the first who asks, or by a job before, and shared by all metrics."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from darkroom.components.base import Component
from darkroom.metrics.extractor import Encoder, Extractor, Images, Network
from darkroom.store import replacing, sha256_json

REAL = "real"
"""What real pictures are called, beside the models whose pictures are drawn."""
# safetensors writes several entries of metadata in no fixed order, so there is one.
_METADATA, _TENSOR = "encoder", "features"


@dataclass(frozen=True)
class Asked:
    """Features of a set of pictures.

    Attributes:
        extractor: what makes them.
        of: the model whose pictures they are, or REAL.
        number: of real pictures, the first so many.
    """

    extractor: Extractor
    of: str
    number: int | None = None

    def digest(self, component: Component) -> str:
        """Of what makes them, with the component's settings and the number, but not of the pictures."""
        return sha256_json([asdict(self.extractor), component.model_dump(mode="json"), self.number])


@dataclass(frozen=True)
class Extracted:
    """Features as the network gave them, (pictures, dimensions), and what made them."""

    features: np.ndarray
    encoder: Encoder

    @property
    def values(self) -> np.ndarray:
        """In float64, as everything is computed with them."""
        return self.features.astype(np.float64)


class Features:
    """The features that metrics ask for, each computed once.

    Args:
        place: where they lie in files, which are written where they are not there yet; None: they are not kept.
    """

    def __init__(self, place: Callable[[Asked], Path | None] = lambda asked: None) -> None:
        self._place = place
        self._found: dict[Asked, Extracted] = {}
        self._network: tuple[Extractor, Network] | None = None

    def get(
        self, asked: Asked, component: Component, pictures: Callable[[], Iterator[np.ndarray]]
    ) -> Extracted:
        """Those asked for; `pictures` are looked at where nobody has computed them before."""
        if asked not in self._found:
            path = self._place(asked)
            if path is not None and path.is_file():
                self._found[asked] = read_extracted(path)
            else:
                network = self.network(asked.extractor, component)
                self._found[asked] = extract(network, pictures(), asked.extractor.batch_size)
                if path is not None:
                    write_extracted(path, self._found[asked])
        return self._found[asked]

    def network(self, extractor: Extractor, component: Component) -> Network:
        """What makes them, loaded. One at a time: metrics that follow each other mostly ask for the same."""
        if self._network is None or self._network[0] != extractor:
            self._network = None
            self._network = extractor, extractor.load(component)
        return self._network[1]


def extract(network: Network, pictures: Iterable[np.ndarray], batch_size: int) -> Extracted:
    """The features of pictures, in their order."""
    return Extracted(encode(network.images, pictures, batch_size), network.encoder)


def encode(images: Images, pictures: Iterable[np.ndarray], batch_size: int) -> np.ndarray:
    """Pictures seen a batch at a time: (pictures, dimensions)."""
    waiting, features = iter(pictures), []
    while batch := list(islice(waiting, batch_size)):
        features.append(np.asarray(images.encode_images(batch)))
    return np.concatenate(features)


def write_extracted(path: str | Path, extracted: Extracted) -> None:
    """Write a safetensors file; the same features give the same bytes."""
    from safetensors.numpy import save_file

    told = json.dumps(asdict(extracted.encoder), sort_keys=True)
    with replacing(path) as beside:
        save_file({_TENSOR: np.ascontiguousarray(extracted.features)}, beside, {_METADATA: told})


def read_extracted(path: str | Path) -> Extracted:
    """What `write_extracted` wrote.

    Raises:
        ValueError: it is another file, or not a whole one; names it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            encoder = Encoder(**json.loads(file.metadata()[_METADATA]))
            features: np.ndarray = file.get_tensor(_TENSOR)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: no features of pictures ({error}); remove it, and they are computed again"
        ) from None
    return Extracted(features, encoder)
