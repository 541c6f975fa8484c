"""`kind: server`: any endpoint of OpenAI's chat completions API (vLLM, SGLang, llama.cpp, a company's)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from darkroom.captioners.base import Captioner
from darkroom.captioners.served.options import ServedSection, missing_here
from darkroom.components.base import Component

if TYPE_CHECKING:
    from darkroom.captioners.served.loaded import ServedLoaded


class Server(ServedSection):
    """An endpoint of the chat completions API, and its decoding."""

    kind: Literal["server"]
    detail: Literal["auto", "low", "high"] | None = Field(
        None, description="how closely the picture is looked at, where the server knows it; null: not sent"
    )
    max_side_px: int = Field(
        1024, ge=16, description="pictures with a longer side are reduced before they are sent"
    )


def _load(section: Server, components: Mapping[str, Component]) -> "ServedLoaded":
    from darkroom.captioners.served.loaded import ServedLoaded
    from darkroom.captioners.served.pictures import PictureMessages

    del components
    messages = PictureMessages(section.detail, section.max_side_px)
    return ServedLoaded(section, messages, ("detail", "max_side_px"))


SPEC = Captioner("server", Server, _load, missing=missing_here)
