"""The colour of an object by a CLIP, as GenEval asks for it (arXiv 2310.11513, section 3)."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from darkroom.benchmarks.geneval_official import COLORS
from darkroom.metrics.rules import Detection

if TYPE_CHECKING:
    from darkroom.metrics.embeddings import Clip

TEMPLATES = (
    "a photo of a {color} {name}",
    "a photo of a {color}-colored {name}",
    "a photo of a {color} object",
)
# What an object is cut out onto, #999999, where the detector tells which pixels belong to it.
GROUND = 0x99
# A CLIP looks at the middle square of a crop: what lies further out is cut away before it is resized.
_MAX_ASPECT = 8


class ClipColors:
    """Names one of COLORS: the one whose texts a CLIP finds nearest to the object, cut out.

    Args:
        clip: embeds pictures and texts.
    """

    def __init__(self, clip: "Clip") -> None:
        self.clip = clip
        self._texts: dict[str, np.ndarray] = {}

    @cached_property
    def takes(self) -> dict[str, Any]:
        """How objects come to the CLIP, for protocols."""
        ground = f"#{GROUND:02x}{GROUND:02x}{GROUND:02x}"
        return {
            "crops": f"the box; with a mask on {ground}",
            "texts": list(TEMPLATES),
            "colors": list(COLORS),
        }

    def __call__(self, picture: np.ndarray, detection: Detection) -> str:
        """The colour of a detection in a picture, uint8 RGB (height, width, 3)."""
        seen = _unit(np.asarray(self.clip.encode_images([cut_out(picture, detection)]), np.float64))
        return COLORS[int((seen @ self._of(detection.name).T).argmax())]

    def _of(self, name: str) -> np.ndarray:
        """A vector for each colour of a class: (colours, dimensions)."""
        if name not in self._texts:
            texts = [template.format(color=color, name=name) for color in COLORS for template in TEMPLATES]
            embedded = _unit(np.asarray(self.clip.encode_texts(texts), np.float64))
            self._texts[name] = _unit(embedded.reshape(len(COLORS), len(TEMPLATES), -1).mean(axis=1))
        return self._texts[name]


def cut_out(picture: np.ndarray, detection: Detection) -> np.ndarray:
    """The detection's box out of a picture, all else than its mask grey where it has one."""
    if detection.mask is not None:
        picture = np.where(detection.mask[..., None], picture, np.uint8(GROUND))
    height, width = picture.shape[:2]
    # Rounded as Pillow's crop, to one pixel at least.
    left, top, right, bottom = (round(side) for side in detection.box)
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    right, bottom = min(max(right, left + 1), width), min(max(bottom, top + 1), height)
    crop = picture[top:bottom, left:right]
    short = min(crop.shape[:2])
    y, x = (max(0, (side - _MAX_ASPECT * short) // 2) for side in crop.shape[:2])
    return np.ascontiguousarray(crop[y : crop.shape[0] - y, x : crop.shape[1] - x])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
