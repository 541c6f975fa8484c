"""`kind: similarity`: how well a caption fits its picture, as `clip_similarity` tells it of alt-texts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from darkroom.components.base import Component, ComponentOf
from darkroom.gates.base import Candidate, Check, Gate, GateSection

if TYPE_CHECKING:
    from darkroom.components.clip import ClipScorer

# As of the scorer: rounded, so that the kind of processor seldom matters.
_DECIMALS = 5


class Similarity(GateSection):
    """Passes a caption whose CLIP embedding is this near to the picture's."""

    kind: Literal["similarity"]
    clip: Annotated[str, ComponentOf("clip")] = Field(description="name of a CLIP in config/components.yaml")
    min: float = Field(
        ge=-1, le=1, description="least cosine; thresholds of one CLIP mean nothing for another"
    )
    batch_size: int = Field(64, ge=1, description="pictures a forward pass")


def _load(section: Similarity, components: Mapping[str, Component]) -> Check:
    from darkroom.components.clip import load_clip

    clip = load_clip(components[section.clip]).on_fastest_device()

    def check(captions: Sequence[Candidate]) -> list[bool]:
        starts = range(0, len(captions), section.batch_size)
        parts = [captions[start : start + section.batch_size] for start in starts]
        return [cosine >= section.min for part in parts for cosine in _cosines(clip, part)]

    return check


def _cosines(clip: "ClipScorer", captions: Sequence[Candidate]) -> list[float]:
    """Of each caption and its picture; -1 of an empty one. A picture of several captions is read once."""
    import numpy as np

    images = {caption.uid: caption.image for caption in captions}
    places = {uid: place for place, uid in enumerate(images)}
    seen = clip.encode_images([np.asarray(image()) for image in images.values()])
    texts = clip.encode_texts([caption.text for caption in captions])
    found = (seen[[places[caption.uid] for caption in captions]] * texts).sum(dim=1).tolist()
    pairs = zip(captions, found, strict=True)
    return [round(cosine, _DECIMALS) if caption.text.strip() else -1.0 for caption, cosine in pairs]


SPEC = Gate("similarity", Similarity, _load, looks=True)
