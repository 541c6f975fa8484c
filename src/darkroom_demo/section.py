"""The `source` section of a demo world."""

from typing import Literal

from pydantic import Field

from darkroom.sources.base import SourceSection


class DemoSource(SourceSection):
    """The demo world: generated pictures behind a misbehaving web server on 127.0.0.1."""

    kind: Literal["demo"]
    num_scenes: int = Field(ge=1, description="captioned pictures of coloured shapes")
    num_digits: int = Field(ge=0, description="handwritten digits as text rendering")
    num_photos: int = Field(ge=0, description="crops of the photographs in scikit-image and -learn")
    seed: int = Field(0, ge=0, description="seed of everything the world draws")
