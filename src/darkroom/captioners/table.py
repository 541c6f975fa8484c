"""The table of captioners: `recaption.kind` names one.

Other packages add theirs by an entry point of the group `darkroom.captioners`, see `darkroom.kinds`.
"""

from typing import Any

from darkroom.captioners import server, transformers
from darkroom.captioners.base import Captioner
from darkroom.kinds import table

# The first is the default.
CAPTIONERS: dict[str, Captioner[Any]] = table("darkroom.captioners", transformers.SPEC, server.SPEC)
