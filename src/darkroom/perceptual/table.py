"""The table of perceptual distances: `loss.perceptual` of an autoencoder chooses one.

Other packages add theirs by an entry point of the group `darkroom.perceptual`, see `darkroom.kinds`.
"""

from typing import Any

from darkroom.kinds import table
from darkroom.perceptual import clip, lpips
from darkroom.perceptual.base import Perceptual

PERCEPTUAL: dict[str, Perceptual[Any]] = table("darkroom.perceptual", clip.SPEC, lpips.SPEC)
