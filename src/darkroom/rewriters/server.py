"""`kind: server`: any endpoint of OpenAI's chat completions API, which gets words alone."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal

from darkroom.captioners.base import Request, Texts
from darkroom.captioners.served.options import ServedSection, missing_here
from darkroom.components.base import Component
from darkroom.rewriters.base import Rewriter, RewriterSection

if TYPE_CHECKING:
    from collections.abc import Callable

    from darkroom.captioners.served.loaded import ServedLoaded


class ServerRewriter(ServedSection, RewriterSection):
    """An endpoint of the chat completions API, and its decoding."""

    kind: Literal["server"]


class TextMessages:
    """See `captioners.served.ask.Messages`."""

    def shown(self, texts: Texts, place: int) -> "Callable[[str], str]":
        """Name of a caption -> the request for it."""
        return partial(texts.prompt, place)

    def content(self, request: Request, shown: "Callable[[str], str]") -> str:
        """The request's words."""
        return shown(request.name)


def _load(section: ServerRewriter, components: Mapping[str, Component]) -> "ServedLoaded":
    from darkroom.captioners.served.loaded import ServedLoaded

    del components
    return ServedLoaded(section, TextMessages())


SPEC = Rewriter("server", ServerRewriter, _load, missing=missing_here)
