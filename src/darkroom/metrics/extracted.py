"""Features of sets of pictures: computed by the first who asks, or by a job before, and shared by all metrics."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

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

    def name(self, component: Component) -> str:
        """How files of them are called, before what tells the files of several jobs apart."""
        return f"{self.digest(component)[:16]}.{self.of}"

    def spans(self, num_pictures: int, pictures_per_job: int) -> list[range]:
        """The pictures of each job, by place. Jobs are cut between forward passes, so that no picture has others
        beside it than if there were one job."""
        size = max(1, pictures_per_job // self.extractor.batch_size) * self.extractor.batch_size
        return [range(i, min(i + size, num_pictures)) for i in range(0, num_pictures, size)]


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
        computed: the files of those that jobs have computed before, in the pictures' order.
    """

    def __init__(
        self,
        place: Callable[[Asked], Path | None] = lambda asked: None,
        computed: Mapping[Asked, Sequence[Path]] = MappingProxyType({}),
    ) -> None:
        self._place = place
        self._computed = computed
        self._found: dict[Asked, Extracted] = {}
        self._network: tuple[Extractor, Network] | None = None

    def get(
        self, asked: Asked, component: Component, pictures: Callable[[], Iterator[np.ndarray]]
    ) -> Extracted:
        """Those asked for; `pictures` are looked at where nobody has computed them before."""
        if asked not in self._found:
            path = self._place(asked)
            if asked in self._computed:
                self._found[asked] = joined(self._computed[asked])
            elif path is not None and path.is_file():
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
    """Pictures seen a batch at a time: (pictures, dimensions); of none (0, 0)."""
    waiting, features = iter(pictures), []
    while batch := list(islice(waiting, batch_size)):
        features.append(np.asarray(images.encode_images(batch)))
    return np.concatenate(features) if features else np.empty((0, 0), np.float32)


def computed_before(
    asked: Iterable[Asked], components: Mapping[str, Component], paths: Sequence[str | Path]
) -> dict[Asked, list[Path]]:
    """Which of these files hold what is asked, in their order.

    Raises:
        ValueError: none of them holds something that is asked.
    """
    found = {}
    for one in asked:
        name = one.name(components[one.extractor.component])
        found[one] = [Path(path) for path in paths if Path(path).name.startswith(f"{name}.")]
        if not found[one]:
            raise ValueError(f"no file of the features {name}")
    return found


def joined(paths: Sequence[Path]) -> Extracted:
    """What jobs have computed of one set of pictures, each of a part of them.

    Raises:
        ValueError: files are of different networks, or one is not what `write_extracted` wrote; names it.
    """
    parts = {path: read_extracted(path) for path in paths}
    encoder = parts[paths[0]].encoder
    for path, part in parts.items():
        if part.encoder != encoder:
            raise ValueError(
                f"{path}: was made by another network than {paths[0].name}; remove both, and they are computed"
                " again"
            )
    # Jobs behind the last real picture have none: how many there are is known when they run.
    seen = [part.features for part in parts.values() if len(part.features)]
    return Extracted(np.concatenate(seen) if seen else parts[paths[0]].features, encoder)


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
