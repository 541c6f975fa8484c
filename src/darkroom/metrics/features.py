"""Features that distances compare pictures in, besides a CLIP's: FID's Inception and DINOv2.

Which library a network and its resize come from is part of a distance's name: numbers of different ones differ.
"""

from dataclasses import replace
from typing import Annotated, Self

from pydantic import Field, model_validator

from darkroom.components.base import Component, ComponentOf, Resize
from darkroom.imports import quick_imports
from darkroom.metrics.base import Inputs
from darkroom.metrics.embeddings import Compared, Encoder, WithReferences


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

    def encoder(self, inputs: Inputs) -> Encoder:
        """See `Compared`."""
        with quick_imports():
            from darkroom.components.inception import LIBRARY, load_inception

        component = inputs.components[self.inception]
        identity = {**_identity(self.inception, component), "library": LIBRARY, "resize": self.resize}
        words = f"{self.inception}, Inception of {LIBRARY}, resize {self.resize}"
        variant = f"{self.resize}, {LIBRARY}"
        return Encoder("inception", load_inception(component, self.resize), identity, words, variant)


class WithDinov2(Compared):
    """A distance to real pictures in the features of a DINOv2."""

    dinov2: Annotated[str, ComponentOf("dinov2")] = Field(
        description="name of a DINOv2 in config/components.yaml; published numbers are of dinov2-large"
    )
    batch_size: int = Field(64, ge=1, description="pictures a forward pass")
    num_reference_pictures: int = Field(10_000, ge=2, description="real pictures, the first so many by uid")

    def encoder(self, inputs: Inputs) -> Encoder:
        """See `Compared`."""
        with quick_imports():
            from darkroom.components.dinov2 import SIZE, load_dinov2

        component = inputs.components[self.dinov2]
        resize = f"bicubic to {SIZE} x {SIZE} px"
        identity = {**_identity(self.dinov2, component), "resize": resize}
        return Encoder("dinov2", load_dinov2(component), identity, f"{self.dinov2}, {resize}")


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

    def encoder(self, inputs: Inputs) -> Encoder:
        """See `Compared`."""
        section: Compared
        if self.clip is not None:
            section = WithReferences(clip=self.clip)
        elif self.inception is not None:
            section = WithInception(inception=self.inception, resize=self.resize)
        else:
            assert self.dinov2 is not None, "one of the three is named"
            section = WithDinov2(dinov2=self.dinov2)
        found = section.encoder(inputs)
        return replace(found, variant=f"{found.kind}, {found.variant}" if found.variant else found.kind)


def _identity(name: str, component: Component) -> dict[str, str]:
    from darkroom.components.files import fingerprint

    return {"name": name, "sha256": fingerprint(component)}
