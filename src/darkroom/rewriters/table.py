"""The table of rewriters: `rewrite.kind` names one.

Other packages add theirs by an entry point of the group `darkroom.rewriters`, see `darkroom.kinds`.
"""

from typing import TYPE_CHECKING, Any

from darkroom.kinds import table
from darkroom.rewriters import server, transformers
from darkroom.rewriters.base import Rewriter, RewriterSection
from darkroom.settings.unions import one_of

REWRITERS: dict[str, Rewriter[Any]] = table("darkroom.rewriters", transformers.SPEC, server.SPEC)

if TYPE_CHECKING:
    AnyRewriter = RewriterSection
else:
    AnyRewriter = one_of({name: spec.section for name, spec in REWRITERS.items()})
