"""Preferences on use, as the IETF's working group aipref drafts them: `train-ai=n, search=y`.

They are a dictionary of structured fields (RFC 9651), in the header Content-Usage and in robots.txt.
Content-Signal, which Cloudflare writes into the robots.txt of millions of sites, says `ai-train=no` the same way.
"""

import re
from collections.abc import Mapping

# From the most specific use to the most general; what is more specific decides, and a text-to-image model is
# generative. The drafts have renamed some.
_CATEGORIES = (
    ("train-genai", "genai"),
    ("train-ai", "ai-train", "ai"),
    ("tdm", "bots", "all"),
)
_NO, _YES = frozenset({"n", "no"}), frozenset({"y", "yes"})
# A key, and a token or a string; parameters behind a semicolon are passed over.
_MEMBER = re.compile(r'([a-z*][a-z0-9_.*-]*)(?:=(?:"([^"\\]*)"|([^\s,;"]+)))?(?:;.*)?')


def usages(value: str) -> Mapping[str, str]:
    """Category -> what is said of it, in lower case. A malformed member says nothing, and the last one counts."""
    members = (_MEMBER.fullmatch(piece.strip()) for piece in value.lower().split(","))
    return {found[1]: found[2] or found[3] or "" for found in members if found}


def rules_out_training(said: Mapping[str, str]) -> bool | None:
    """Whether preferences rule out training a text-to-image model; None where they say nothing of it."""
    for names in _CATEGORIES:
        words = {said[name] for name in names if name in said}
        if words & _NO:
            return True
        if words & _YES:
            return False
    return None
