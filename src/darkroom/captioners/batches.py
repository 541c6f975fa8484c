"""Captioners that get what they are asked about in batches, each prepared on another thread while one before is
captioned.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from darkroom.captioners.base import Ask, BatchedSection, Generated, Pictures, Subjects, Wanted
from darkroom.components.base import Component

if TYPE_CHECKING:
    from PIL.Image import Image

    from darkroom.captioners.journal import Journal

_BATCHES_AHEAD = 2
_LOG = logging.getLogger(__name__)

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

    def prepare(self, shown: Any) -> Any:
        """What `caption` needs of a batch: of RGB pictures, or of what else is read; ahead, on another thread."""

    def caption(self, prepared: Any, asked: Asked) -> list[list[Generated]]:
        """For each of the names the texts, in the order of the pictures.

        Raises:
            PictureError: one picture cannot be captioned.
            RuntimeError: the batch cannot, as where memory is too small.
        """


def read_pictures(pictures: Pictures, places: Sequence[int], names: Sequence[str]) -> "list[Image]":
    """The pictures of a batch, RGB."""
    del names
    return [pictures.image(place) for place in places]


# (what is asked about, places of a batch, names of captions) -> what `Batched.prepare` gets.
Read = Callable[[Any, Sequence[int], Sequence[str]], Any]


def in_batches(
    load: Callable[[BatchedT, Mapping[str, Component]], Batched], read: Read = read_pictures
) -> Callable[[BatchedT, Mapping[str, Component]], "InBatches"]:
    """What a `Captioner` loads, of what loads a captioner of batches."""
    return lambda section, components: InBatches(section, load(section, components), read)


class InBatches:
    """See `captioners.base.Loaded`. Pictures of which the same is asked are cut into batches in their order."""

    def __init__(self, section: BatchedSection, batched: Batched, read: Read) -> None:
        self._section, self._batched, self._read = section, batched, read
        self._captioned: set[int] = set()

    @property
    def provenance(self) -> Mapping[str, str | None]:
        return self._batched.provenance

    @property
    def decoding(self) -> Mapping[str, Any]:
        return {"batch_size": self._section.batch_size, **self._batched.decoding}

    @property
    def counts(self) -> Mapping[str, Any]:
        from darkroom.store import COMPUTED_IN

        return {COMPUTED_IN: {self._batched.computed_in: len(self._captioned)}}

    @contextmanager
    def asking(self, subjects: Subjects) -> Iterator[Ask]:
        """Nothing is captioned of a part where one picture cannot be.

        A job goes on from the batches that one before it has finished. The others are cut as they would have been,
        so that it makes the same as a job that was not disturbed.
        """
        from darkroom.captioners.journal import Journal
        from darkroom.store import sha256_json

        made_by = [dict(self.provenance), dict(self.decoding), self._batched.computed_in]
        made_of = sha256_json([self._section.asked_with(), *made_by, subjects.content])
        with Journal(subjects.scratch, made_of, Generated) as journal:
            yield lambda wanted: self._captions(subjects, wanted, journal)

    def _captions(
        self, subjects: Subjects, wanted: Wanted, journal: "Journal[Generated]"
    ) -> dict[tuple[int, str], Generated]:
        chunks = list(_chunks(wanted.names, self._section.batch_size))
        left = [
            (names, places)
            for names, places in chunks
            if any((place, name, wanted.attempt) not in journal.answers for place in places for name in names)
        ]
        if len(left) < len(chunks):
            _LOG.info("goes on after %d batches of %d", len(chunks) - len(left), len(chunks))
        for places, asked, prepared in self._batches(subjects, left, wanted.attempt):
            answers = zip(asked.names, self._answers(subjects, asked, prepared), strict=True)
            journal.keep({
                (place, name, wanted.attempt): text
                for name, texts in answers
                for place, text in zip(places, texts, strict=True)
            })  # fmt: skip
            subjects.tell(len(places) * len(asked.names))
        self._captioned.update(wanted.names)
        return {(place, name): journal.answers[place, name, wanted.attempt] for place, name in wanted}

    def _answers(self, subjects: Subjects, asked: Asked, prepared: Any) -> list[list[Generated]]:
        """What the captioner says of a batch. Raises ValueError, which names the picture or the batch."""
        try:
            return self._batched.caption(prepared, asked)
        except PictureError as error:
            uid = asked.uids[error.place]
            raise ValueError(f"{subjects.where}: picture {uid}: {error}") from error
        except RuntimeError as error:
            first, last = asked.uids[0], asked.uids[-1]
            key, size = self._section.key, self._section.batch_size
            raise ValueError(
                f"{subjects.where}: captioning the pictures {first} to {last} failed: {error};"
                f" a smaller {key}.batch_size than {size} needs less memory"
            ) from error

    def _batches(
        self, subjects: Subjects, chunks: Sequence[tuple[tuple[str, ...], Sequence[int]]], attempt: int
    ) -> Iterator[tuple[Sequence[int], Asked, Any]]:
        """Places, and the model's inputs; a thread reads and resizes a bounded number ahead."""
        with ThreadPoolExecutor(1) as ahead:

            def prepare(names: tuple[str, ...], places: Sequence[int]) -> tuple[Sequence[int], Asked, Any]:
                asked = Asked(names, tuple(subjects.uids[place] for place in places), attempt)
                return places, asked, self._batched.prepare(self._read(subjects, places, names))

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
