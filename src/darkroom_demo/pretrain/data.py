"""Pictures and captions for pretraining the demo's components, and what a caption claims as a vector of facts.

The components are trained on every combination, also those that the diffusion model's training set holds
out: a pretrained VAE or CLIP has seen the world before.
"""

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np

from darkroom_demo import captions, digits, photos
from darkroom_demo.render import render
from darkroom_demo.scenes import COLORS, GROUNDS, PATTERNS, RELATIONS, SHAPES, Scene, sample_scene

KINDS = ("scene", "digit", "photo")
KIND_SHARES = (0.84, 0.08, 0.08)
SIDES_PX = (64, 192)
MUTATIONS = ("shape", "color", "count", "relation", "attribution")

_CHUNK = 250
_MIRRORED = {"right of": "left of", "below": "above"}
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_ENDS = {"left of": ("left", "right"), "above": ("upper", "lower")}
_PLACES = ("at the top left", "at the top right", "at the bottom left", "at the bottom right", "at the top",
           "at the bottom", "on the left", "on the right", "in the middle")  # fmt: skip


@dataclass(frozen=True)
class Item:
    """What a picture shows: a scene, or the text of a number, or the name of a photograph."""

    kind: str
    scene: Scene | None = None
    text: str = ""


@dataclass(frozen=True)
class Claim:
    """What a caption says of a scene: (number, colour or None, shape) groups, and what it adds to them."""

    groups: tuple[tuple[int, str | None, str], ...]
    relation: str | None = None
    ground: tuple[str, str] | None = None
    place: str | None = None
    size: str | None = None
    one: bool = False  # a single shape is "one circle", not "a circle"


@dataclass
class Pool:
    """Rendered pictures: `pictures[(width, height)]` is uint8, (n, height, width, 3); `items[...]` says what."""

    pictures: dict[tuple[int, int], np.ndarray]
    items: dict[tuple[int, int], list[Item]]


def make_pool(
    num_pictures: int, sizes: Sequence[tuple[int, int]], seed: int, crop: bool, num_workers: int = 2
) -> Pool:
    """Render pictures in worker processes; the result depends on `seed`, not on `num_workers`.

    Args:
        sizes: (width, height) in px, drawn uniformly (repeat one to see it more often).
        crop: True resizes to cover the size and crops the rest, as the bucket stage does; False squashes
            the whole picture into it, as CLIP's preprocessing does.
    """
    chunks = [(seed, chunk, tuple(sizes), crop) for chunk in range(-(-num_pictures // _CHUNK))]
    if num_workers > 1:
        with multiprocessing.get_context("fork").Pool(num_workers) as workers:
            made = workers.map(_make_chunk, chunks, chunksize=1)
    else:
        made = [_make_chunk(chunk) for chunk in chunks]
    pairs = [pair for chunk in made for pair in chunk][:num_pictures]
    pool = Pool({}, {})
    for size in sorted(set(sizes)):
        mine = [(picture, item) for picture, item in pairs if picture.shape[1::-1] == size]
        if mine:
            pool.pictures[size] = np.stack([picture for picture, _ in mine])
            pool.items[size] = [item for _, item in mine]
    return pool


def _make_chunk(chunk: tuple[int, int, tuple[tuple[int, int], ...], bool]) -> list[tuple[np.ndarray, Item]]:
    seed, index, sizes, crop = chunk
    cv2.setNumThreads(1)
    rng = np.random.default_rng((seed, index))
    made = []
    for _ in range(_CHUNK):
        size = sizes[int(rng.integers(len(sizes)))]
        picture, item = draw_picture(rng)
        made.append((fit(_jpeg(picture, rng), size, crop, rng), item))
    return made


def draw_picture(rng: np.random.Generator, rendered: bool = True) -> tuple[np.ndarray, Item]:
    """A random picture, uint8 (height, width, 3), and what it shows; scenes may stay unrendered (black)."""
    kind = str(rng.choice(KINDS, p=KIND_SHARES))
    if kind == "digit":
        picture, text = digits.sample_digits(rng, sides_px=SIDES_PX)
        return picture, Item(kind, text=text)
    if kind == "photo":
        picture, name = photos.sample_photo(rng, sides_px=SIDES_PX)
        return picture, Item(kind, text=name)
    scene = sample_scene(rng, sides_px=SIDES_PX, held_out=None)
    return render(scene) if rendered else np.zeros((1, 1, 3), np.uint8), Item(kind, scene=scene)


def fit(picture: np.ndarray, size: tuple[int, int], crop: bool, rng: np.random.Generator) -> np.ndarray:
    """Resize a uint8 picture to (width, height): cropped where the ratio differs, or squashed."""
    width, height = size
    rows, columns = picture.shape[:2]
    if crop:
        scale = max(width / columns, height / rows)
        resized = (max(width, round(columns * scale)), max(height, round(rows * scale)))
    else:
        resized = size
    shrinks = resized[0] < columns or resized[1] < rows
    methods = (
        (cv2.INTER_AREA, cv2.INTER_AREA, cv2.INTER_CUBIC) if shrinks else (cv2.INTER_CUBIC, cv2.INTER_LINEAR)
    )
    picture = cv2.resize(picture, resized, interpolation=methods[int(rng.integers(len(methods)))])
    left, top = (int(rng.integers(room + 1)) for room in (resized[0] - width, resized[1] - height))
    return picture[top : top + height, left : left + width]


def _jpeg(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the pictures as JPEG leaves them, because the dataset's pictures come as JPEG."""
    if rng.random() < 0.5:
        return picture
    quality = int(rng.integers(80, 98))
    encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[..., ::-1]


def long_claim(scene: Scene) -> Claim:
    """What `captions.long_caption` says."""
    ground = (scene.pattern, scene.ground)
    groups, relation = _groups(scene, colored=True)
    if len(scene.things) > 1:
        return Claim(groups, relation, ground)
    size, place = captions.long_caption(scene).removeprefix("a ").split(" ", 1)
    place = place.split(f"{scene.things[0].shape} ")[1].split(" on a ")[0]
    return Claim(groups, None, ground, place, size)


def short_claim(scene: Scene) -> Claim:
    """What `captions.short_caption` says."""
    groups, relation = _groups(scene, colored=captions.names_colors(scene))
    return Claim(groups, relation, one=len(scene.things) == 1 and not captions.names_colors(scene))


def draw_claim(scene: Scene, rng: np.random.Generator) -> Claim:
    """One of the true claims of a GenEval prompt, in the form that the scene's task has or another."""
    groups, relation = _groups(scene, colored=bool(rng.random() < 0.6))
    if len(groups) == 2 and rng.random() < 0.5:
        groups = groups[::-1]
        relation = relation and _OPPOSITE[relation]
    return Claim(groups, relation if rng.random() < 0.8 else None)


def say(claim: Claim, photo: bool) -> str:
    """A claim in words; `photo` begins with "a photo of"."""
    names = []
    for number, color, shape in claim.groups:
        noun = f"{color} {shape}" if color else shape
        if claim.size:
            noun = f"{claim.size} {noun}"
        if number > 1:
            names.append(f"{captions.NUMBERS[number]} {noun.removesuffix(shape)}{captions.PLURALS[shape]}")
        else:
            names.append(f"{'one' if claim.one else 'a'} {noun}")
    words = f" {claim.relation or 'and'} ".join(names)
    words += f" {claim.place}" if claim.place else ""
    words += " on a {} {} ground".format(*claim.ground) if claim.ground else ""
    return f"a photo of {words}" if photo else words


def alternatives(claim: Claim, kind: str) -> list[Claim]:
    """All claims that differ in one thing: a "shape", "color", "count", "relation" or the "attribution"."""
    if kind == "relation":
        return [replace(claim, relation=r) for r in RELATIONS if claim.relation and r != claim.relation]
    groups = list(claim.groups)
    found = []
    if kind == "attribution" and len(groups) == 2:
        (n, first, shape), (m, second, other) = groups
        found = [[(n, second, shape), (m, first, other)]] if first != second else []
    for at, (number, color, shape) in enumerate(groups):
        free: list[tuple[int, str | None, str]] = []
        if kind == "shape":
            free = [(number, color, s) for s in SHAPES if s not in [g[2] for g in groups]]
        elif kind == "color" and color:
            free = [(number, c, shape) for c in COLORS if c not in [g[1] for g in groups]]
        elif kind == "count" and len(groups) == 1 and not claim.place:
            free = [(n, color, shape) for n in captions.NUMBERS if n != number]
        found += [[*groups[:at], changed, *groups[at + 1 :]] for changed in free]
    return [replace(claim, groups=tuple(changed)) for changed in found]


def mutate(claim: Claim, rng: np.random.Generator) -> Claim:
    """A random alternative, of a kind drawn first; most in who is where or who is what, if a claim says so."""
    hard = [found for kind in ("relation", "attribution") if (found := alternatives(claim, kind))]
    if hard and rng.random() < 0.6:
        kinds = hard
    else:
        kinds = [found for kind in MUTATIONS if (found := alternatives(claim, kind))]
    found = kinds[int(rng.integers(len(kinds)))]
    return found[int(rng.integers(len(found)))]


def _groups(scene: Scene, colored: bool) -> tuple[tuple[tuple[int, str | None, str], ...], str | None]:
    first = scene.things[0]
    if all((t.shape, t.color) == (first.shape, first.color) for t in scene.things):
        return ((len(scene.things), first.color if colored else None, first.shape),), None
    groups = tuple((1, t.color if colored else None, t.shape) for t in scene.things)
    return groups, captions.relation(scene)


@cache
def fact_index() -> dict[str, int]:
    """Every fact that a picture can show and a caption can claim -> its place in the vector of facts."""
    numbers = range(1, 5)
    facts = ["scene", "digit", "photo"]
    facts += [f"{n} {shape}" for n in numbers for shape in SHAPES]
    facts += [f"{n} {color} {shape}" for n in numbers for color in COLORS for shape in SHAPES]
    facts += [
        f"{a} {relation} {b}" for relation in ("left of", "above") for a in SHAPES for b in SHAPES if a != b
    ]
    facts += [f"{pattern} {ground}" for pattern in PATTERNS for ground in GROUNDS]
    facts += [*_PLACES, "small", "large"]
    facts += [f"{shape} is the {end} one" for shape in SHAPES for pair in _ENDS.values() for end in pair]
    facts += [
        f"{shape} in {third} of 3 {way}"
        for shape in SHAPES
        for third in range(3)
        for way in ("across", "down")
    ]
    facts += [f"{length} digits" for length in range(1, 9)]
    facts += [f"digit {i} is {digit}" for i in range(4) for digit in range(10)]
    facts += [f"photo of {name}" for name in photos.NAMES]
    return {fact: i for i, fact in enumerate(facts)}


@cache
def relation_facts() -> list[int]:
    """The places of the facts about relations."""
    return [i for fact, i in fact_index().items() if any(f" {word} " in fact for word in (*_ENDS, "is the"))]


def claimed_facts(claim: Claim) -> list[int]:
    """The facts that a picture must show for a claim to be true of it."""
    index = fact_index()
    facts = ["scene"]
    for number, color, shape in claim.groups:
        facts += [f"{number} {shape}"] + ([f"{number} {color} {shape}"] if color else [])
    if claim.relation:
        first, second = (group[2] for group in claim.groups)
        if claim.relation in _MIRRORED:
            first, second = second, first
        relation = _MIRRORED.get(claim.relation, claim.relation)
        facts.append(f"{first} {relation} {second}")
        facts += [
            f"{shape} is the {end} one" for shape, end in zip((first, second), _ENDS[relation], strict=True)
        ]
    facts += [" ".join(claim.ground)] if claim.ground else []
    facts += [fact for fact in (claim.place, claim.size) if fact]
    return [index[fact] for fact in facts]


@cache
def reading_index() -> dict[str, int]:
    """What there is to read off a caption's words alone: what comes first and second, and what stands between."""
    found = [f"{which} is {what}" for which in ("first", "second") for what in (*SHAPES, *COLORS)]
    return {reading: i for i, reading in enumerate([*found, *RELATIONS])}


def readings(claim: Claim) -> list[int]:
    """The readings of a claim about two shapes."""
    if len(claim.groups) < 2:
        return []
    found = [claim.relation] if claim.relation else []
    for which, (_, color, shape) in zip(("first", "second"), claim.groups, strict=True):
        found += [f"{which} is {what}" for what in (shape, color) if what]
    return [reading_index()[reading] for reading in found]


def shown_facts(item: Item) -> list[int]:
    """All the facts that a picture shows, also those that no caption claims: where its shapes are."""
    index = fact_index()
    if item.kind == "scene":
        assert item.scene is not None
        return claimed_facts(long_claim(item.scene)) + [
            index[f"{thing.shape} in {min(int(3 * where), 2)} of 3 {way}"]
            for thing in item.scene.things
            for where, way in ((thing.x, "across"), (thing.y, "down"))
        ]
    if item.kind == "digit":
        return [index["digit"], index[f"{len(item.text)} digits"]] + [
            index[f"digit {i} is {digit}"] for i, digit in enumerate(item.text[:4])
        ]
    return [index["photo"], index[f"photo of {item.text}"]]


def describe(item: Item, rng: np.random.Generator) -> tuple[str, list[int], Claim | None]:
    """A random true caption of an item, the facts it claims, and for a scene the claim itself."""
    if item.kind == "scene":
        assert item.scene is not None
        form = rng.random()
        claim = (
            long_claim(item.scene) if form < 0.35
            else short_claim(item.scene) if form < 0.55
            else draw_claim(item.scene, rng)
        )  # fmt: skip
        return say(claim, photo=claim.ground is None), claimed_facts(claim), claim
    pair = digits.digits_captions(item.text) if item.kind == "digit" else photos.photo_captions(item.text)
    return pair[int(rng.random() < 0.5)], shown_facts(item), None
