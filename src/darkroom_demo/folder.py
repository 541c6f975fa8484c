"""The small folders of pictures that the recipes' twins learn from, drawn as the demo world's scenes are.

    python -m darkroom_demo.folder src/darkroom_demo/pictures

writes them again: `shapes/` with a folder for each class and a caption beside each picture, and for DreamBooth
`subject/` with four pictures of one thing and `class/` with others of its kind.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom_demo.captions import long_caption
from darkroom_demo.render import render
from darkroom_demo.scenes import COLORS, GROUNDS, Scene, Thing

_CLASSES = (("red", "circle"), ("blue", "square"), ("green", "cross"), ("purple", "triangle"))
_SIZES_PX = ((64, 64), (96, 64), (64, 96))
_NUM_OF_CLASS, _NUM_OF_SUBJECT, _NUM_OF_PRIOR = 6, 4, 8


def write_folders(out: str | Path) -> int:
    """Write the pictures and captions below `out`; returns how many pictures."""
    rng, num = np.random.default_rng(0), 0
    for name, scene in _scenes(rng):
        path = Path(out) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(render(scene)).save(path, optimize=True)
        if name.startswith("shapes/"):
            path.with_suffix(".txt").write_text(long_caption(scene) + "\n", encoding="utf-8")
        num += 1
    return num


def _scenes(rng: np.random.Generator) -> Iterator[tuple[str, Scene]]:
    for color, shape in _CLASSES:
        for number in range(_NUM_OF_CLASS):
            size = _SIZES_PX[number % len(_SIZES_PX)]
            yield (
                f"shapes/{color}_{shape}/{number}",
                single_scene(rng, color, shape, GROUNDS[number % 4], size),
            )
    for number in range(_NUM_OF_SUBJECT):
        yield f"subject/{number}", single_scene(rng, "yellow", "cross", "pale blue", (64, 64))
    for number in range(_NUM_OF_PRIOR):
        color = [name for name in COLORS if name != "yellow"][number % 5]
        yield f"class/{number}", single_scene(rng, color, "cross", GROUNDS[number % 3], (64, 64))


def single_scene(
    rng: np.random.Generator, color: str, shape: str, ground: str, size: tuple[int, int]
) -> Scene:
    """One shape about the middle of a plain ground; size: (width, height) in pixels."""
    x, y = (round(float(v), 3) for v in rng.uniform(0.4, 0.6, size=2))
    thing = Thing(shape, color, x, y, round(float(rng.uniform(0.45, 0.65)), 3), 0.0)
    return Scene("single_object", (thing,), "plain", ground, *size, int(rng.integers(2**31)))


if __name__ == "__main__":
    print(f"{write_folders(sys.argv[1])} pictures")
