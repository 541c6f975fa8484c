"""Captioners that get their pictures in batches, each prepared on another thread while one before is captioned."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from darkroom.captioners.base import Ask, BatchedSection, Generated, Pictures, Wanted
from darkroom.components.base import Component

if TYPE_CHECKING:
    from PIL.Image import Image

_BATCHES_AHEAD = 2

BatchedT = TypeVar("BatchedT", bound=BatchedSection)


class PictureError(ValueError):
    """A picture of a batch cannot be captioned; `place` is where in the batch it is."""

    def __init__(self, place: int, message: str) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True)
class Asked:
    """What is asked about the pictures of a batch: captions by name, the pictures' uids, and which try it is."""

    names: tuple[str, ...]
    uids: tuple[str, ...]
    attempt: int


class Batched(Protocol):
    """A captioner that is ready: the same batch gives the same texts.

    Attributes:
        provenance, decoding: see `captioners.base.Loaded`.
        computed_in: the type of its numbers, which all parts of a dataset must share.
    """

    provenance: Mapping[str, str | None]
    decoding: Mapping[str, Any]
    computed_in: str

    def prepare(self, pictures: "Sequence[Image]") -> Any:
        """What `caption` needs of a batch of RGB pictures; called ahead, on another thread."""

    def caption(self, prepared: Any, asked: Asked) -> list[list[Generated]]:
        """For each of the names the texts, in the order of the pictures.

        Raises:
            PictureError: one picture cannot be captioned.
            RuntimeError: the batch cannot, as where memory is too small.
        """


def in_batches(
    load: Callable[[BatchedT, Mapping[str, Component]], Batched],
) -> Callable[[BatchedT, Mapping[str, Component]], "InBatches"]:
    """What a `Captioner` loads, of what loads a captioner of batches."""
    return lambda section, components: InBatches(load(section, components), section.batch_size)


class InBatches:
    """See `captioners.base.Loaded`. Pictures of which the same is asked are cut into batches in their order."""

    def __init__(self, batched: Batched, batch_size: int) -> None:
        self._batched, self._batch_size = batched, batch_size
        self._captioned: set[int] = set()

    @property
    def provenance(self) -> Mapping[str, str | None]:
        return self._batched.provenance

    @property
    def decoding(self) -> Mapping[str, Any]:
        return {"batch_size": self._batch_size, **self._batched.decoding}

    @property
    def counts(self) -> Mapping[str, Any]:
        from darkroom.store import COMPUTED_IN

        return {COMPUTED_IN: {self._batched.computed_in: len(self._captioned)}}

    @contextmanager
    def asking(self, pictures: Pictures) -> Iterator[Ask]:
        """Nothing is captioned of a part where one picture cannot be."""
        yield lambda wanted: self._captions(pictures, wanted)

    def _captions(self, pictures: Pictures, wanted: Wanted) -> dict[tuple[int, str], Generated]:
        made: dict[tuple[int, str], Generated] = {}
        for places, asked, prepared in self._batches(pictures, wanted):
            try:
                answers = self._batched.caption(prepared, asked)
            except PictureError as error:
                uid = asked.uids[error.place]
                raise ValueError(f"{pictures.where}: picture {uid}: {error}") from error
            except RuntimeError as error:
                first, last = asked.uids[0], asked.uids[-1]
                raise ValueError(
                    f"{pictures.where}: captioning the pictures {first} to {last} failed: {error};"
                    f" a smaller recaption.batch_size than {self._batch_size} needs less memory"
                ) from error
            for name, texts in zip(asked.names, answers, strict=True):
                made |= {(place, name): text for place, text in zip(places, texts, strict=True)}
            pictures.tell(len(places) * len(asked.names))
            self._captioned.update(places)
        return made

    def _batches(self, pictures: Pictures, wanted: Wanted) -> Iterator[tuple[Sequence[int], Asked, Any]]:
        """Places, and the model's inputs; a thread reads and resizes a bounded number ahead."""
        chunks = list(_chunks(wanted.names, self._batch_size))
        with ThreadPoolExecutor(1) as ahead:

            def prepare(names: tuple[str, ...], places: Sequence[int]) -> tuple[Sequence[int], Asked, Any]:
                asked = Asked(names, tuple(pictures.uids[place] for place in places), wanted.attempt)
                return places, asked, self._batched.prepare([pictures.image(place) for place in places])

            waiting = [ahead.submit(prepare, *chunk) for chunk in chunks[:_BATCHES_AHEAD]]
            try:
                for number in range(len(chunks)):
                    batch = waiting.pop(0).result()
                    if number + _BATCHES_AHEAD < len(chunks):
                        waiting.append(ahead.submit(prepare, *chunks[number + _BATCHES_AHEAD]))
                    yield batch
            finally:
                for future in waiting:
                    future.cancel()


def _chunks(names: Mapping[int, Sequence[str]], size: int) -> Iterator[tuple[tuple[str, ...], list[int]]]:
    """(names, up to `size` places of pictures of which these are asked), the places in their order."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for place in sorted(names):
        alike.setdefault(tuple(names[place]), []).append(place)
    for asked, places in alike.items():
        yield from ((asked, places[start : start + size]) for start in range(0, len(places), size))
