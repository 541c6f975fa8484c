"""The small folders of pictures that the recipes' twins learn from, drawn as the demo world's scenes are, and
what the twins are asked to draw.

    python -m darkroom_demo.folder src/darkroom_demo/pictures

writes them again: `shapes/` with a folder for each class and a caption beside each picture, and for DreamBooth
`subject/` with four pictures of one thing and `class/` with others of its kind. `prompts/` asks for what these
pictures show, in other sentences than their captions, with GenEval's records of what is right.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom_demo.captions import long_caption
from darkroom_demo.prompts import Record
from darkroom_demo.render import render
from darkroom_demo.scenes import COLORS, GROUNDS, Scene, Thing

_CLASSES = (("red", "circle"), ("blue", "square"), ("green", "cross"), ("purple", "triangle"))
_SIZES_PX = ((64, 64), (96, 64), (64, 96))
_NUM_OF_CLASS, _NUM_OF_SUBJECT, _NUM_OF_PRIOR = 6, 4, 8
_ON_GROUNDS = tuple(f"{{}} on a plain {ground} ground" for ground in GROUNDS)
_WORDINGS = ("{}", "a photo of {}", *_ON_GROUNDS)
# DreamBooth's captions are one for the subject and one for its kind; those two are asked for too.
_MORE_WORDINGS = (*_WORDINGS, "{} in the middle", *(f"a photo of {wording}" for wording in _ON_GROUNDS))


def write_folders(out: str | Path) -> int:
    """Write the pictures, captions and prompts below `out`; returns how many pictures."""
    rng, num = np.random.default_rng(0), 0
    for name, records in {"shapes": _shape_prompts(), "subject": _subject_prompts()}.items():
        path = Path(out) / f"prompts/{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
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


def _shape_prompts() -> list[Record]:
    """Each of the four coloured shapes in six wordings."""
    return [
        _prompt_record("colors", wording.format(f"a {color} {shape}"), shape, color)
        for color, shape in _CLASSES
        for wording in _WORDINGS
    ]


def _subject_prompts() -> list[Record]:
    """The subject, whose colour no prompt tells, and its kind, of which any colour is right."""
    return [
        _prompt_record(task, wording.format(f"a {name}"), "cross", color)
        for task, name, color in (("single_object", "cross", None), ("colors", "sks cross", "yellow"))
        for wording in _MORE_WORDINGS
    ]


def _prompt_record(task: str, prompt: str, shape: str, color: str | None) -> Record:
    """GenEval's record of a prompt that asks for one shape; color: which it must have, if any."""
    asked = {"class": shape, "count": 1, **({"color": color} if color else {})}
    return {"tag": task, "include": [asked], "prompt": prompt}


if __name__ == "__main__":
    print(f"{write_folders(sys.argv[1])} pictures")
