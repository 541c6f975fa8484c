"""How a run reads one of its text encoders."""

from typing import Annotated, Literal

from pydantic import Field

from darkroom.components.base import ComponentOf
from darkroom.settings.base import ADDED, Section


class TextEncoderUse(Section):
    """One of several text encoders, and how it is read."""

    name: Annotated[str, ComponentOf("text_encoder")] = Field(
        description="name of a text encoder in config/components.yaml"
    )
    hidden_layer: int = Field(-1, le=-1, description="-1 is the output; -2 the states before the last layer")
    max_tokens: int = Field(77, ge=2, description="longer captions are cut, and counted")
    padded: bool = Field(
        False, description="pad to max_tokens and keep the padding's states, as SD, SDXL and SD3 read them"
    )
    pooled: bool = Field(False, description="use its pooled embedding too")
    projected: Annotated[bool, ADDED] = Field(
        True, description="a CLIP's pooled embedding is taken after its projection; false: before it"
    )
    no_caption: Literal["empty", "zeros"] = Field(
        "empty", description="what stands for no caption: the empty text's states, or zeros"
    )
