"""Asks captioners for the captions of a part: tries, and other captioners, for what does not pass the gates."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

from darkroom.captioners.base import (
    CaptionerSection,
    Generated,
    Kind,
    Request,
    Subjects,
    Wanted,
    asking_for,
)
from darkroom.captioners.quality import caption_flags, strip_prefix
from darkroom.components.base import Component
from darkroom.config.gates import Gates
from darkroom.gates.base import Candidate, Check
from darkroom.gates.table import GATES

if TYPE_CHECKING:
    from PIL.Image import Image

_LOG = logging.getLogger(__name__)
# A picture's place and the name of a caption.
Key = tuple[int, str]


class PartSubjects(Subjects, Protocol):
    """What is asked about, see `recaption.subjects`.

    Attributes:
        originals: the alt-texts, one a picture.
        unasked: captions that nobody can be asked for -> why, in a word that stands for their finish_reason.
    """

    originals: Sequence[str]
    unasked: Mapping[Key, str]

    def image(self, place: int) -> "Image":
        """The picture, for gates that look at it."""

    def hint(self, place: int, name: str) -> str | None:
        """The alt-text, where it is part of the request for the caption `name`."""

    def for_fallback(self, number: int) -> Self: ...

    def expect(self, num_captions: int) -> None: ...


@dataclass(frozen=True)
class Made:
    """A caption as it is stored.

    text: after prefixes were removed. captioner: 0, or the number of a fallback. tries: how often it was asked
    for, of all captioners; 0 where nobody can be. gate: the first that the text does not pass; None where it
    passes all.
    """

    text: str
    finish_reason: str
    num_tokens: int | None
    flags: Sequence[str]
    captioner: int = 0
    tries: int = 1
    gate: str | None = None


@dataclass(frozen=True)
class Asked:
    """A captioner that was asked: what for, and what it tells of itself."""

    requests: Mapping[str, Request]
    provenance: Mapping[str, str | None]
    decoding: Mapping[str, Any]
    counts: Mapping[str, Any]


@dataclass
class PartCaptions:
    """The captions of a part, and who was asked for them: recaption's captioner, and each fallback if it was."""

    made: dict[Key, Made] = field(default_factory=dict)
    captioners: list[Asked | None] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, Any]:
        """What the captioners count; those of fallbacks below their names."""
        first, *others = self.captioners
        assert first is not None, "it is always asked"
        told = {
            f"fallback_{number}": dict(of.counts) for number, of in enumerate(others, 1) if of is not None
        }
        return {**first.counts, **told}


def caption_all(
    subjects: PartSubjects,
    settings: CaptionerSection,
    components: Mapping[str, Component],
    gates: Gates | None,
    kinds: Mapping[str, Kind[Any, Any]],
) -> PartCaptions:
    """Ask for every caption of every picture, and again for those that do not pass.

    Of a caption that never passes it is the first text that is given.

    Args:
        subjects: what is asked about.
        settings: who is asked for what, one of `kinds`; so are the fallbacks of `gates`.
        components: those that these name.
        gates: what the captions must be; None: anything.
        kinds: the table of those that can be asked.

    Raises:
        ValueError: a picture cannot be read or captioned.
    """
    fallbacks = [asking_for(section, settings.captions) for section in gates.fallbacks] if gates else []
    found, judge = PartCaptions(), _Judge(subjects, gates, components)
    given = {key: Generated("", None, why) for key, why in subjects.unasked.items()}
    judge.add(found.made, given, settings.asked(), tried=0)
    left = [(place, name) for place in range(len(subjects.uids)) for name in settings.asked()]
    left = [key for key in left if key not in given]
    for number, section in enumerate([settings, *fallbacks]):
        if number and not left:
            found.captioners.append(None)
            continue
        captioner = kinds[section.kind].load(section, components)
        with ExitStack() as stack:
            ask = stack.enter_context(captioner.asking(subjects.for_fallback(number) if number else subjects))
            for attempt in range(1 + (gates.retries if gates else 0)):
                if attempt and not left:
                    break
                if attempt or number:
                    _LOG.info("%s: asks again for %d captions that do not pass", section.key, len(left))
                subjects.expect(len(left))
                texts = ask(Wanted(_by_picture(left), attempt))
                left = judge.add(found.made, {key: texts[key] for key in left}, section.asked(), number)
        told = (captioner.provenance, captioner.decoding, captioner.counts)
        found.captioners.append(Asked(section.asked(), *told))
        # Its memory is the next one's.
        del captioner, ask
    return found


def _by_picture(keys: Sequence[Key]) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for place, name in keys:
        names.setdefault(place, []).append(name)
    return names


class _Judge:
    """Looks at texts, and keeps those that pass or are the first of their caption."""

    def __init__(
        self, subjects: PartSubjects, gates: Gates | None, components: Mapping[str, Component]
    ) -> None:
        self._subjects = subjects
        self._gates = [
            (gate, _once(partial(GATES[gate.kind].load, gate, components)))
            for gate in (gates.gates if gates else ())
        ]

    def add(
        self,
        made: dict[Key, Made],
        texts: Mapping[Key, Generated],
        requests: Mapping[str, Request],
        captioner: int = 0,
        tried: int = 1,
    ) -> list[Key]:
        """Add texts to what was made, and return which captions do not pass, in the order of `texts`.

        tried: how often these were asked for meanwhile.
        """
        new = {key: self._caption(key, text, requests, captioner) for key, text in texts.items()}
        failed = self._failed(new)
        for key, caption in new.items():
            before = made.get(key)
            tries = tried if before is None else before.tries + tried
            kept = caption if before is None or key not in failed else before
            made[key] = replace(
                kept, tries=tries, gate=failed[key] if kept is caption and key in failed else kept.gate
            )
        return [key for key in new if key in failed]

    def _failed(self, captions: Mapping[Key, Made]) -> dict[Key, str]:
        """The first gate that a caption does not pass, of those that do not pass one."""
        failed: dict[Key, str] = {}
        for gate, load in self._gates:
            seen = [
                key
                for key in captions
                if key not in failed and (not gate.captions or key[1] in gate.captions)
            ]
            passed = load()([self._candidate(key, captions[key]) for key in seen]) if seen else ()
            failed |= {key: gate.label for key, passes in zip(seen, passed, strict=True) if not passes}
        return failed

    def _candidate(self, key: Key, caption: Made) -> Candidate:
        place, subjects = key[0], self._subjects
        image = partial(subjects.image, place)
        return Candidate(subjects.uids[place], caption.text, caption.flags, subjects.originals[place], image)

    def _caption(self, key: Key, answer: Generated, requests: Mapping[str, Request], captioner: int) -> Made:
        text = strip_prefix(answer.text, requests[key[1]].strip_prefixes)
        hint = self._subjects.hint(*key)
        flags = caption_flags(text, answer.finish_reason, text != answer.text, hint)
        return Made(text, answer.finish_reason, answer.num_tokens, flags, captioner)


def _once(load: Callable[[], Check]) -> Callable[[], Check]:
    """Load when it is first needed, and then no more."""
    loaded: list[Check] = []

    def get() -> Check:
        if not loaded:
            loaded.append(load())
        return loaded[0]

    return get
