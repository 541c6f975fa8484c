"""What the headers of an answer reserve: X-Robots-Tag, tdm-reservation and Content-Usage.

All that is found is recorded, and what the configuration names refuses the picture.
"""

from collections.abc import Iterator, Sequence
from email.message import Message

from darkroom.download.manners.usage import rules_out_training, usages
from darkroom.download.policy import AGENT_TOKEN, Target
from darkroom.download.status import OPTED_OUT, FetchError
from darkroom.settings.download import Download

ROBOTS_TAG, TDM, USAGE = "X-Robots-Tag", "tdm-reservation", "Content-Usage"
RESERVING = ("noai", "noimageai", "noindex", "noimageindex", "noml", "none")
"""Directives of X-Robots-Tag that are recorded, besides those that a configuration refuses."""

MAX_CHARS = 200
"""How much of a value is recorded."""

_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


class HeaderPolicy:
    """Refuses answers whose headers reserve a use that `settings` has us respect."""

    def __init__(self, settings: Download) -> None:
        self._refused = {directive.strip().lower() for directive in settings.disallowed_directives}
        self._obey_tdm = settings.obey_tdm_reservation
        self._obey_usage = settings.obey_content_usage

    def before_request(self, target: Target) -> None:
        """Headers are all this policy looks at."""

    def after_headers(self, target: Target, headers: Message) -> Sequence[str]:
        """What is reserved.

        Raises:
            FetchError: opted_out, when a reservation refuses this use.
        """
        found = list(self._read(headers))
        refusing = [told for told, is_refused in found if is_refused]
        opt_outs = tuple(dict.fromkeys(told for told, _ in found))
        if refusing:
            raise FetchError(OPTED_OUT, f"the server says {refusing[0]}", opt_outs=opt_outs)
        return opt_outs

    def _read(self, headers: Message) -> Iterator[tuple[str, bool]]:
        """Each reservation, and whether it refuses the picture."""
        for directive in directives_for_us(headers.get_all(ROBOTS_TAG, [])):
            implied = {directive, "noindex"} if directive == "none" else {directive}
            is_refused = not self._refused.isdisjoint(implied)
            if is_refused or directive in RESERVING:
                yield f"{ROBOTS_TAG}: {directive}"[:MAX_CHARS], is_refused
        # RFC 9110: the values of one header, joined; of TDMRep only 1 reserves.
        if any(str(value).strip() == "1" for value in headers.get_all(TDM, [])):
            yield f"{TDM}: 1", self._obey_tdm
        value = ", ".join(map(str, headers.get_all(USAGE, [])))
        if rules_out_training(usages(value)):
            yield f"{USAGE}: {value}"[:MAX_CHARS], self._obey_usage


def directives_for_us(values: Sequence[object]) -> Iterator[str]:
    """The directives of X-Robots-Tag for everyone or for us by name, in lower case.

    A value is `directive, directive` or `agent: directive, directive`; several agents may follow each other, and
    `max-snippet: 20` is no agent.
    """
    for value in values:
        ours = True
        for piece in str(value).lower().split(","):
            name, colon, rest = piece.strip().partition(":")
            if colon and name.strip() not in _WITH_VALUE:
                ours, name = name.strip() in (AGENT_TOKEN, "*"), rest
            if ours and name.strip():
                yield name.strip()
