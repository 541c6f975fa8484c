"""What scorers on CLIP embeddings share: the option that names the CLIP, and the embeddings of a part."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from darkroom.components.base import ComponentOf
from darkroom.scorers.base import Part
from darkroom.settings.base import Section

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.components.clip import ClipScorer


class WithClip(Section):
    """A scorer on CLIP embeddings."""

    clip: Annotated[str, ComponentOf("clip")] = Field(description="name of a CLIP in config/components.yaml")
    batch_size: int = Field(64, ge=1, description="pictures a forward pass")


def load(options: WithClip, part: Part) -> "ClipScorer":
    """The CLIP that the options name, on the GPU where there is one."""
    from darkroom.components.clip import load_clip

    clip = part.shared.model(
        ("clip", options.clip), lambda: load_clip(part.components[options.clip]).on_fastest_device()
    )
    part.tell_of(options.clip, **clip.takes)
    return clip


def embedded(options: WithClip, part: Part, clip: "ClipScorer") -> Iterator[tuple[Sequence[int], "Tensor"]]:
    """Batches of (places in `part.rows`, float32 unit vectors (B, dimensions)) of the stored pictures.

    Scorers of one pass that name the same CLIP share those of equal batches.
    """
    pictures = part.images()
    while batch := list(islice(pictures, options.batch_size)):
        places, images = [place for place, _ in batch], [image for _, image in batch]
        yield places, part.shared.answer(("clip", options.clip, *places), partial(clip.encode_images, images))
