"""Captioners that get their pictures in batches, each prepared on another thread while one before is captioned."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from darkroom.captioners.base import KINDS, BatchedSection, Generated, Pictures
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

    def caption(self, prepared: Any) -> list[list[Generated]]:
        """For each of KINDS the texts, in the order of the pictures.

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
    """See `captioners.base.Loaded`. Batches are cut in the order of the pictures."""

    def __init__(self, batched: Batched, batch_size: int) -> None:
        self._batched, self._batch_size = batched, batch_size
        self._captioned = 0

    @property
    def provenance(self) -> Mapping[str, str | None]:
        return self._batched.provenance

    @property
    def decoding(self) -> Mapping[str, Any]:
        return {"batch_size": self._batch_size, **self._batched.decoding}

    @property
    def counts(self) -> Mapping[str, Any]:
        from darkroom.store import COMPUTED_IN

        return {COMPUTED_IN: {self._batched.computed_in: self._captioned}}

    def captions(self, pictures: Pictures) -> list[list[Generated]]:
        """Nothing is captioned of a part where one picture cannot be."""
        made: list[list[Generated]] = []
        for places, prepared in self._batches(pictures):
            try:
                answers = self._batched.caption(prepared)
            except PictureError as error:
                uid = pictures.uids[places[error.place]]
                raise ValueError(f"{pictures.where}: picture {uid}: {error}") from error
            except RuntimeError as error:
                first, last = pictures.uids[places[0]], pictures.uids[places[-1]]
                raise ValueError(
                    f"{pictures.where}: captioning the pictures {first} to {last} failed: {error}; "
                    f"a smaller recaption.batch_size than {self._batch_size} needs less memory"
                ) from error
            made += [list(texts) for texts in zip(*answers, strict=True)]
            pictures.tell(len(places) * len(KINDS))
        self._captioned = len(made)
        return made

    def _batches(self, pictures: Pictures) -> Iterator[tuple[range, Any]]:
        """Places of pictures with the model's inputs; a thread reads and resizes a bounded number ahead."""
        number, size = len(pictures.uids), self._batch_size
        chunks = [range(start, min(start + size, number)) for start in range(0, number, size)]
        with ThreadPoolExecutor(1) as ahead:

            def prepare(chunk: range) -> tuple[range, Any]:
                return chunk, self._batched.prepare([pictures.image(place) for place in chunk])

            waiting = [ahead.submit(prepare, chunk) for chunk in chunks[:_BATCHES_AHEAD]]
            try:
                for number in range(len(chunks)):
                    batch = waiting.pop(0).result()
                    if number + _BATCHES_AHEAD < len(chunks):
                        waiting.append(ahead.submit(prepare, chunks[number + _BATCHES_AHEAD]))
                    yield batch
            finally:
                for future in waiting:
                    future.cancel()
