"""The table of gates: `caption_gates.gates` names those that captions go through.

Other packages add theirs by an entry point of the group `darkroom.gates`, see `darkroom.kinds`.
"""

from typing import Any

from darkroom.gates import alt_text, flags, quoted_text, similarity
from darkroom.gates.base import Gate
from darkroom.kinds import table

GATES: dict[str, Gate[Any]] = table(
    "darkroom.gates", flags.SPEC, similarity.SPEC, quoted_text.SPEC, alt_text.SPEC
)
