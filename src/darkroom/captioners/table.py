"""The table of captioners: `recaption.kind` names one.

Other packages add theirs by an entry point of the group `darkroom.captioners`, see `darkroom.kinds`.
"""

from typing import TYPE_CHECKING, Any

from darkroom.captioners import server, transformers
from darkroom.captioners.base import Captioner, CaptionerSection
from darkroom.kinds import table
from darkroom.settings.unions import one_of

# The first is the default.
CAPTIONERS: dict[str, Captioner[Any]] = table("darkroom.captioners", transformers.SPEC, server.SPEC)

if TYPE_CHECKING:
    AnyCaptioner = CaptionerSection
else:
    AnyCaptioner = one_of(
        {name: spec.section for name, spec in CAPTIONERS.items()}, default=next(iter(CAPTIONERS))
    )
