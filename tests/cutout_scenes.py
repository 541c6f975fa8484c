"""Scenes of known classes, numbers, places and colours, composed of photographs that nobody here made.

The cut-outs are Tux Paint's stamps: those that are photographs and whose caption names a class of COCO. What
GenEval asks for of each scene is known, and so is something that it does not show.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIDE_PX = 512
GROUND = (205, 208, 212)
STAMPS = "usr/share/tuxpaint/stamps"
CUTOUTS = {
    "airplane": ("vehicles/flight/planes/747",),
    "apple": tuple(
        f"food/fruit/apple_{of}" for of in ("fuji", "granny_smith", "green", "red", "sierra_beauty")
    ),
    "banana": ("food/fruit/banana",),
    "bear": ("animals/mammals/bears/bear", "animals/mammals/bears/european-bear"),
    "bird": tuple(
        f"animals/birds/{of}"
        for of in ("crow", "drake", "duck", "gander", "magpie", "owl", "pigeon", "seagull", "silver-gull")
    ),
    "broccoli": ("food/vegetables/broccoli",),
    "bus": ("vehicles/masstransit/green_korean_bus",),
    "car": ("vehicles/auto/sedan", "vehicles/auto/sportscar2"),
    "carrot": ("food/vegetables/carrot",),
    "cow": ("animals/mammals/bovines/cow", "animals/mammals/bovines/cow_white"),
    "dog": ("animals/mammals/dogs/dog",),
    "elephant": ("animals/mammals/elephant",),
    "giraffe": ("animals/mammals/giraffe",),
    "horse": ("animals/mammals/equines/horse",),
    "orange": ("food/fruit/mandarine", "food/fruit/orange", "food/fruit/orange_seville"),
    "sheep": ("animals/mammals/bovines/sheep", "animals/mammals/bovines/sheep_lamb"),
    "sports ball": ("sports/basketball", "sports/cricketball", "sports/soccer", "sports/tennis_ball"),
    "toilet": ("household/toilet",),
    "truck": ("vehicles/auto/truck", "vehicles/emergency/firetruck", "vehicles/garbagetruck"),
    "zebra": ("animals/mammals/equines/zebra",),
}
# What cut-outs are tinted with, as the shades between black and white of these.
TINTS = {
    "red": (214, 24, 24),
    "yellow": (236, 214, 20),
    "green": (24, 150, 40),
    "blue": (24, 60, 214),
    "purple": (136, 20, 170),
    "pink": (250, 110, 180),
}
MIDDLE, SIDES = ((256, 256),), ((140, 256), (372, 256))
CORNERS = ((140, 140), (372, 372), (372, 140), (140, 372))
PLACES = {"left of": SIDES, "right of": SIDES[::-1], "above": ((256, 140), (256, 372))}
PLACES["below"] = PLACES["above"][::-1]
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
NUM_DRAWN = 40


@dataclass(frozen=True)
class Scene:
    """A picture, uint8 RGB (512, 512, 3), a record of what it shows, and one of what it does not."""

    picture: np.ndarray
    shown: dict[str, Any]
    not_shown: dict[str, Any]


def single_objects(package: Path, seed: int = 0) -> dict[str, Scene]:
    """File of a cut-out -> the scene with nothing but it."""
    rng, stamps = np.random.default_rng(seed), Stamps(package / STAMPS, {})
    found = {}
    for name, files in CUTOUTS.items():
        for file in files:
            records = (record("single_object", item(of)) for of in (name, other(rng, stamps, name)))
            found[file] = Scene(stamps.composed([(file, None)], MIDDLE, 320), *records)
    return found


def scenes(package: Path, files: Collection[str], seed: int = 1) -> Iterator[Scene]:
    """Forty of each of the other tasks, composed of these cut-outs."""
    known = {name: [file for file in CUTOUTS[name] if file in files] for name in CUTOUTS}
    rng = np.random.default_rng(seed)
    stamps = Stamps(package / STAMPS, {name: found for name, found in known.items() if found})
    for draw in (two_objects, counting, colors, position, color_binding):
        for _ in range(NUM_DRAWN):
            yield draw(rng, stamps)


@dataclass(frozen=True)
class Stamps:
    """The cut-outs of the unpacked package, and those that scenes are composed of, by class."""

    folder: Path
    files: Mapping[str, Sequence[str]]

    def two(self, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Two classes, and a cut-out of each."""
        names = [str(name) for name in rng.choice(list(self.files), size=2, replace=False)]
        return [(name, str(rng.choice(self.files[name]))) for name in names]

    def composed(
        self, things: Sequence[tuple[str, str | None]], places: Sequence[tuple[int, int]], side: int
    ) -> np.ndarray:
        """Cut-outs (file, tint) at places on a plain ground, their longer sides `side` pixels."""
        picture = Image.new("RGB", (SIDE_PX, SIDE_PX), GROUND)
        for (file, tint), (x, y) in zip(things, places, strict=True):
            stamp = Image.open(self.folder / f"{file}.png").convert("RGBA")
            stamp = tinted(stamp, tint) if tint else stamp
            scale = side / max(stamp.size)
            width, height = (max(1, round(n * scale)) for n in stamp.size)
            stamp = stamp.resize((width, height), Image.Resampling.LANCZOS)
            picture.paste(stamp, (x - stamp.width // 2, y - stamp.height // 2), stamp)
        return np.asarray(picture)


def tinted(stamp: Image.Image, tint: str) -> Image.Image:
    """A picture in the shades of one colour: black stays black and white stays white."""
    grey = np.asarray(stamp.convert("L"), np.float64)[..., None] / 255
    color = np.array(TINTS[tint], np.float64)
    shades = np.where(grey < 0.5, 2 * grey * color, color + (2 * grey - 1) * (255 - color) * 0.5)
    return Image.fromarray(np.dstack([shades.round().astype(np.uint8), np.asarray(stamp)[..., 3]]))


def record(tag: str, *include: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tag": tag, "prompt": "", "include": list(include), **more}


def item(name: str, count: int = 1, **more: Any) -> dict[str, Any]:
    return {"class": name, "count": count, **more}


def other(rng: np.random.Generator, stamps: Stamps, *names: str) -> str:
    return str(rng.choice([name for name in stamps.files or CUTOUTS if name not in names]))


def two_objects(rng: np.random.Generator, stamps: Stamps) -> Scene:
    (a, file_a), (b, file_b) = stamps.two(rng)
    picture = stamps.composed([(file_a, None), (file_b, None)], SIDES, 200)
    wrong = record("two_object", item(a), item(other(rng, stamps, a, b)))
    return Scene(picture, record("two_object", item(a), item(b)), wrong)


def counting(rng: np.random.Generator, stamps: Stamps) -> Scene:
    (name, file), _ = stamps.two(rng)
    number = int(rng.integers(2, 5))
    picture = stamps.composed([(file, None)] * number, CORNERS[:number], 190)

    def asked(count: int) -> dict[str, Any]:
        return record("counting", item(name, count), exclude=[item(name, count + 1)])

    return Scene(picture, asked(number), asked(number - 1 if number == 4 else number + 1))


def position(rng: np.random.Generator, stamps: Stamps) -> Scene:
    (a, file_a), (b, file_b) = stamps.two(rng)
    relation = str(rng.choice(list(PLACES)))
    picture = stamps.composed([(file_a, None), (file_b, None)], PLACES[relation], 200)

    def asked(told: str) -> dict[str, Any]:
        return record("position", item(b), item(a, position=[told, 0]))

    return Scene(picture, asked(relation), asked(OPPOSITE[relation]))


def colors(rng: np.random.Generator, stamps: Stamps) -> Scene:
    (name, file), _ = stamps.two(rng)
    right, wrong = (str(color) for color in rng.choice(list(TINTS), size=2, replace=False))
    picture = stamps.composed([(file, right)], MIDDLE, 320)
    return Scene(picture, *(record("colors", item(name, color=color)) for color in (right, wrong)))


def color_binding(rng: np.random.Generator, stamps: Stamps) -> Scene:
    (a, file_a), (b, file_b) = stamps.two(rng)
    one, another = (str(color) for color in rng.choice(list(TINTS), size=2, replace=False))
    picture = stamps.composed([(file_a, one), (file_b, another)], SIDES, 200)
    pairs = ((one, another), (another, one))
    return Scene(picture, *(record("color_attr", item(a, color=x), item(b, color=y)) for x, y in pairs))


def sheet(
    found: Sequence[Scene], boxes: Sequence[Sequence[Any]], columns: int, side: int = 192
) -> Image.Image:
    """The scenes in rows, with what a detector found in each: (box, words)."""
    rows = -(-len(found) // columns)
    whole = Image.new("RGB", (columns * side, rows * side), "white")
    for place, (scene, told) in enumerate(zip(found, boxes, strict=True)):
        picture = Image.fromarray(scene.picture)
        pen = ImageDraw.Draw(picture)
        for box, words in told:
            pen.rectangle(box, outline=(200, 0, 0), width=5)
            pen.text((box[0] + 8, box[1] + 4), words, fill=(200, 0, 0), font_size=30)
        small = picture.resize((side - 6, side - 6), Image.Resampling.LANCZOS)
        whole.paste(small, (place % columns * side + 3, place // columns * side + 3))
    return whole


class Hues:
    """Stands for a CLIP in naming colours, of which no package has one: a picture is the shares of its pixels that
    have a colour's hue, a text is the colour that it names. Grey pixels, as those of the ground, do not count."""

    def encode_images(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([self._shares(np.asarray(picture)) for picture in pictures])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.array(
            [[color in text.replace("-colored", "").split() for color in TINTS] for text in texts], float
        )

    def _shares(self, picture: np.ndarray) -> np.ndarray:
        pixels = picture.reshape(-1, 3).astype(np.float64)
        spread = pixels.max(axis=1) - pixels.min(axis=1)
        colored = pixels[spread > 60] - pixels[spread > 60].min(axis=1, keepdims=True)
        wanted = np.array(list(TINTS.values()), np.float64)
        wanted = wanted - wanted.min(axis=1, keepdims=True)
        unit = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
        nearest = (colored @ unit.T).argmax(axis=1)
        return np.bincount(nearest, minlength=len(TINTS)) + 1e-9
