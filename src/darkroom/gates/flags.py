"""`kind: flags`: a caption passes with none of these flags, see `captioners.quality`."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from darkroom.captioners.quality import FLAGS
from darkroom.components.base import Component
from darkroom.gates.base import Check, Gate, GateSection


class Flags(GateSection):
    """Passes a caption with none of these flags."""

    kind: Literal["flags"]
    none_of: tuple[Literal[FLAGS], ...] = Field(  # type: ignore[valid-type]
        min_length=1, description="flags of which it may have none"
    )


def _load(section: Flags, components: Mapping[str, Component]) -> Check:
    del components
    refused = set(section.none_of)
    return lambda captions: [not refused & set(caption.flags) for caption in captions]


SPEC = Gate("flags", Flags, _load)
