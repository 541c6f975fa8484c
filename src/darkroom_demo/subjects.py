"""What the picture of a row shows: its truth, drawn from the row's own seed, and its pixels when asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from darkroom_demo.captions import long_caption, short_caption
from darkroom_demo.digits import digits_captions, sample_digits
from darkroom_demo.photos import photo_captions, sample_photo
from darkroom_demo.render import render
from darkroom_demo.scenes import Scene, sample_scene, square_of

_SIDES_PX = {
    "too_small": (24, 60),
    "visible_watermark": (128, 512),
    "missed_watermark": (128, 512),
    "panorama": (64, 160),
    "blown_up": (160, 512),
}
_REDUCED_TO, _MIN_SIDE_PX = 0.6, 66


@dataclass(frozen=True)
class Subject:
    """The truth of an upright picture, width x height pixels.

    `scene` is None for digits and photographs; `nouns` are what a shop would call it; `draw` gives the
    pixels, uint8 (height, width, 3) RGB, the same at every call.
    """

    scene: Scene | None
    long: str
    short: str
    nouns: tuple[str, ...]
    width: int
    height: int
    draw: Callable[[], np.ndarray]


def scene_subject(seed: Sequence[int], fault: str | None = None) -> Subject:
    """A scene for training, of the size and ground that the fault asks for."""
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, sides_px=_SIDES_PX.get(fault or "", (64, 512)), held_out=False)
    if fault == "panorama":
        # Only wider than it was, so that what was apart stays apart.
        height = min(scene.width, scene.height)
        scene = replace(scene, height=height, width=round(height * rng.uniform(3.2, 5.0)))
        if scene.height < 64 or not _apart(scene):
            return scene_subject([*seed, 1], fault)
    if fault in ("png_rgba", "png_palette"):
        scene = replace(scene, pattern="plain", ground="white")
    return _of_scene(scene, lambda: render(scene))


def digits_subject(seed: Sequence[int]) -> Subject:
    """A handwritten number."""
    picture, text = sample_digits(np.random.default_rng(seed))
    nouns = ("number", "house number", "handwriting")
    return _of_picture(
        picture, digits_captions(text), nouns, lambda: sample_digits(np.random.default_rng(seed))[0]
    )


def photo_subject(seed: Sequence[int]) -> Subject:
    """A crop of a photograph."""
    picture, name = sample_photo(np.random.default_rng(seed))
    return _of_picture(
        picture, photo_captions(name), (name,), lambda: sample_photo(np.random.default_rng(seed))[0]
    )


def reduced(subject: Subject) -> Subject:
    """The same picture, smaller, but not below the size that the filter asks for."""
    assert subject.scene is not None
    factor = min(1, max(_REDUCED_TO, _MIN_SIDE_PX / min(subject.width, subject.height)))
    width, height = round(subject.width * factor), round(subject.height * factor)
    scene = replace(subject.scene, width=width, height=height)
    return _of_scene(scene, lambda: cv2.resize(subject.draw(), (width, height), interpolation=cv2.INTER_AREA))


def squared(subject: Subject) -> Subject:
    """The square in the middle, as previews are cut; the whole picture where something would be cut off."""
    assert subject.scene is not None
    scene = square_of(subject.scene)
    if scene is None:
        return subject
    left, top = ((side - scene.width) // 2 for side in (subject.width, subject.height))
    side = slice(top, top + scene.height), slice(left, left + scene.width)
    return _of_scene(scene, lambda: np.ascontiguousarray(subject.draw()[side]))


# Faults that show an earlier picture in another way.
CHANGED = {"near_duplicate": reduced, "square_copy": squared}


def _of_scene(scene: Scene, draw: Callable[[], np.ndarray]) -> Subject:
    nouns = tuple(dict.fromkeys(thing.shape for thing in scene.things))
    return Subject(scene, long_caption(scene), short_caption(scene), nouns, scene.width, scene.height, draw)


def _of_picture(
    picture: np.ndarray, captions: tuple[str, str], nouns: tuple[str, ...], draw: Callable[[], np.ndarray]
) -> Subject:
    height, width = picture.shape[:2]
    return Subject(None, *captions, nouns, width, height, draw)


def _apart(scene: Scene) -> bool:
    """Whether every shape lies within the picture and touches no other."""
    boxes = [thing.box(scene.width, scene.height) for thing in scene.things]
    inside = all(b[0] >= 0 and b[1] >= 0 and b[2] <= scene.width and b[3] <= scene.height for b in boxes)
    return inside and all(
        a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
        for i, a in enumerate(boxes)
        for b in boxes[:i]
    )
