"""What scorers on CLIP embeddings share: the option that names the CLIP, and the embeddings of a part."""

from collections.abc import Callable, Iterator, Sequence
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

    clip = load_clip(part.components[options.clip]).on_fastest_device()
    part.tell_of(options.clip, **clip.takes)
    return clip


def embedded(
    options: WithClip, part: Part, clip: "ClipScorer", is_wanted: Callable[[int], bool] = lambda place: True
) -> Iterator[tuple[Sequence[int], "Tensor"]]:
    """Batches of (places in `part.rows`, float32 unit vectors (B, dimensions)) of the stored pictures wanted."""
    pictures = (pair for pair in part.images() if is_wanted(pair[0]))
    while batch := list(islice(pictures, options.batch_size)):
        yield [place for place, _ in batch], clip.encode_images([image for _, image in batch])
