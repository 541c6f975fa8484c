"""Features that distances compare pictures in, besides a CLIP's: FID's Inception and DINOv2.

Which library a network and its resize come from is part of a distance's name: numbers of different ones differ.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from darkroom.components.base import ComponentOf, Resize
from darkroom.metrics.base import VARIANT
from darkroom.metrics.embeddings import Compared
from darkroom.metrics.extractor import Encoder, Extractor


class WithInception(Compared):
    """A distance to real pictures in the features of FID's Inception."""

    inception: Annotated[str, ComponentOf("inception")] = Field(
        description="name of FID's Inception in config/components.yaml"
    )
    resize: Resize = Field(
        "tf1", description="to 299 px, as torch-fidelity (tf1), clean-fid (clean) or torchmetrics does it"
    )
    batch_size: int = Field(64, ge=1, description="pictures a forward pass")
    num_reference_pictures: int = Field(10_000, ge=2, description="real pictures, the first so many by uid")

    @property
    def extractor(self) -> Extractor:
        """See `Featured`."""
        return Extractor("inception", self.inception, self.batch_size, self.resize)


class WithDinov2(Compared):
    """A distance to real pictures in the features of a DINOv2."""

    dinov2: Annotated[str, ComponentOf("dinov2")] = Field(
        description="name of a DINOv2 in config/components.yaml; published numbers are of dinov2-large"
    )
    batch_size: int = Field(64, ge=1, description="pictures a forward pass")
    num_reference_pictures: int = Field(10_000, ge=2, description="real pictures, the first so many by uid")

    @property
    def extractor(self) -> Extractor:
        """See `Featured`."""
        return Extractor("dinov2", self.dinov2, self.batch_size)


class WithFeatures(Compared):
    """A comparison with real pictures in the features of one of three networks."""

    clip: Annotated[str, ComponentOf("clip")] | None = Field(
        None, description="name of a CLIP, or else one of:"
    )
    inception: Annotated[str, ComponentOf("inception")] | None = Field(None, description="of FID's Inception")
    dinov2: Annotated[str, ComponentOf("dinov2")] | None = Field(None, description="of a DINOv2")
    resize: Resize = Field("tf1", description="for inception, as that of fid")
    batch_size: int = Field(64, ge=1, description="pictures a forward pass")
    num_reference_pictures: int = Field(10_000, ge=2, description="real pictures, the first so many by uid")

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if sum(name is not None for name in (self.clip, self.inception, self.dinov2)) != 1:
            raise ValueError("name one component: clip, inception or dinov2")
        return self

    @property
    def extractor(self) -> Extractor:
        """See `Featured`."""
        if self.clip is not None:
            return Extractor("clip", self.clip, self.batch_size)
        if self.inception is not None:
            return Extractor("inception", self.inception, self.batch_size, self.resize)
        assert self.dinov2 is not None, "one of the three is named"
        return Extractor("dinov2", self.dinov2, self.batch_size)

    def named(self, encoder: Encoder) -> dict[str, str]:
        """See `Compared`: the network too, as the same metric may stand on another."""
        return {VARIANT: f"{encoder.kind}, {encoder.variant}" if encoder.variant else encoder.kind}
