"""Captions that are lists of tags: in another order, and without some, each time that a picture is shown.

The order of tags means nothing, and prompts name few of those that would fit. kohya's trainings call the options
shuffle_caption, keep_tokens and caption_tag_dropout_rate. What is drawn follows from the sample's key alone, so
from (seed, uid, visit), as noise and timesteps do.
"""

from dataclasses import dataclass

import numpy as np

from darkroom.config.run import Tags
from darkroom.train.random import UInts, uniforms


@dataclass(frozen=True)
class ShownTags:
    """How the captions of one batch are shown.

    tags: the options. keys: of its B samples, (B,) uint64.
    """

    tags: Tags
    keys: UInts

    def show(self, place: int, name: str, caption: str) -> str:
        """The caption of a name as the sample at a place of the batch is shown with it."""
        if name not in self.tags.captions:
            return caption
        return show_tags(caption, self.tags, self.keys[place : place + 1])


def show_tags(caption: str, tags: Tags, key: UInts) -> str:
    """A caption with its tags as they are shown once: the first as they are, of the others those that stay.

    Args:
        caption: tags with `tags.separator` between them; spaces around them and empty ones do not count.
        key: of the sample, (1,) uint64. Whether a tag is left out and where it comes depend on it and on the tag's
            place, not on the options: less dropout keeps the same tags and more.
    """
    found = [tag for piece in caption.split(tags.separator) if (tag := piece.strip())]
    first, rest = found[: tags.keep_first], found[tags.keep_first :]
    chances = uniforms(key, 2 * len(rest))[0]
    is_shown, turns = chances[: len(rest)] >= tags.dropout, chances[len(rest) :]
    order = np.argsort(turns, kind="stable") if tags.shuffle else range(len(rest))
    shown = [rest[place] for place in order if is_shown[place]]
    between = tags.separator if tags.separator.isspace() else f"{tags.separator} "
    return between.join([*first, *shown])
