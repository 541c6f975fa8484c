"""The pictures and captions that the demo's captioner learns from: all of the demo world, at all sizes."""

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image

from darkroom_demo import captions, digits, photos
from darkroom_demo.render import render
from darkroom_demo.scenes import COLORS, GROUNDS, PATTERNS, RELATIONS, SHAPES, Scene, sample_scene

SIDES_PX = (64, 512)
_CHUNK = 200
_KINDS = ("scene", "digit", "photo")
_SHARES = (0.82, 0.13, 0.05)
# The shares of scenes' tasks lean on what is hard: counts, and two things.
_TASKS = (None, None, "counting", "position")


@dataclass(frozen=True)
class Pool:
    """`pictures` uint8 (n, side, side, 3), squashed; `scenes` where there is one; captions (long, short)."""

    pictures: np.ndarray
    scenes: list[Scene | None]
    captions: list[tuple[str, str]]
    may_mirror: np.ndarray


def draw_pool(num_pictures: int, side_px: int, seed: int, processes: int = 2) -> Pool:
    """Draw pictures in `processes` processes; the result depends on the seed alone."""
    chunks = [(seed, index, side_px) for index in range(-(-num_pictures // _CHUNK))]
    if processes > 1:
        with multiprocessing.get_context("fork").Pool(processes) as workers:
            made = workers.map(_draw_chunk, chunks, chunksize=1)
    else:
        made = [_draw_chunk(chunk) for chunk in chunks]
    samples = [sample for _, chunk in made for sample in chunk][:num_pictures]
    pictures = np.concatenate([pictures for pictures, _ in made])[:num_pictures]
    return Pool(
        pictures,
        [scene for scene, _, _ in samples],
        [pair for _, pair, _ in samples],
        np.array([mirror for _, _, mirror in samples]),
    )


def mirrored_captions(pool: Pool) -> list[tuple[str, str]]:
    """The captions of the pool's pictures seen in a mirror, where that may be done."""
    pairs = []
    for scene, pair in zip(pool.scenes, pool.captions, strict=True):
        pairs.append(pair if scene is None else scene_captions(mirrored(scene)))
    return pairs


def mirrored(scene: Scene) -> Scene:
    """The scene with left and right exchanged."""
    return replace(scene, things=tuple(replace(t, x=1 - t.x, angle=-t.angle) for t in scene.things))


def scene_captions(scene: Scene) -> tuple[str, str]:
    """(long, short) of a scene; of two things, the one to name first is a matter of the scene's seed."""
    swapped = replace(scene, things=scene.things[::-1])
    return captions.long_caption(scene), captions.short_caption(swapped if scene.seed % 2 else scene)


def patch_facts(pool: Pool, side: int) -> np.ndarray:
    """What lies at each patch of a (side, side) grid: int64 (n, 5, side, side); -100 where it is unknown.

    The colour and the shape of the thing at the patch's centre, 0 for the ground; whether the patch holds
    a thing's centre; and the patch's row and column.
    """
    facts = np.full((len(pool.scenes), 5, side, side), -100, np.int64)
    facts[:, 3] = np.arange(side)[:, None]
    facts[:, 4] = np.arange(side)
    centres = (np.arange(side) + 0.5) / side
    for scene, fact in zip(pool.scenes, facts, strict=True):
        if scene is None:
            continue
        fact[:3] = 0
        for thing in scene.things:
            left, top, right, bottom = thing.box(scene.width, scene.height)
            columns = (centres > left / scene.width) & (centres < right / scene.width)
            rows = (centres > top / scene.height) & (centres < bottom / scene.height)
            inside = rows[:, None] & columns[None]
            fact[0][inside] = 1 + COLORS.index(thing.color)
            fact[1][inside] = 1 + SHAPES.index(thing.shape)
            fact[2, int(thing.y * side), int(thing.x * side)] = 1
    return facts


def all_words() -> list[str]:
    """Every word of the captions, with a space before it as it stands in a caption."""
    plain = "a an photo of in on at the middle top bottom left right above below and small large ground"
    words = [*plain.split(), *COLORS, *SHAPES, *captions.PLURALS.values(), *captions.NUMBERS.values()]
    words += [*PATTERNS, *" ".join(GROUNDS).split(), *" ".join(RELATIONS).split()]
    for pair in [digits.digits_captions("0"), *(photos.photo_captions(name) for name in photos.NAMES)]:
        words += " ".join(pair).split()
    return [f" {word}" for word in sorted(set(words))]


def _draw_chunk(
    chunk: tuple[int, int, int],
) -> tuple[np.ndarray, list[tuple[Scene | None, tuple[str, str], bool]]]:
    seed, index, side_px = chunk
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, index])
    pictures, samples = [], []
    for _ in range(_CHUNK):
        picture, scene, pair, mirror = draw_sample(rng)
        pictures.append(_squashed(_as_stored(picture, rng), side_px, rng))
        samples.append((scene, pair, mirror))
    return np.stack(pictures), samples


def draw_sample(
    rng: np.random.Generator, kinds: Sequence[str] = _KINDS, shares: Sequence[float] = _SHARES
) -> tuple[np.ndarray, Scene | None, tuple[str, str], bool]:
    """(picture uint8 (h, w, 3), its scene, (long, short), whether its mirror image is as good)."""
    kind = str(rng.choice(list(kinds), p=list(shares)))
    if kind == "digit":
        picture, text = digits.sample_digits(rng)
        return picture, None, digits.digits_captions(text), False
    if kind == "photo":
        picture, name = photos.sample_photo(rng, sides_px=SIDES_PX)
        return picture, None, photos.photo_captions(name), True
    task = _TASKS[int(rng.integers(len(_TASKS)))]
    scene = sample_scene(rng, task=task, sides_px=SIDES_PX, held_out=None)
    return render(scene), scene, scene_captions(scene), True


def _as_stored(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What is left of a picture after some server's JPEG, and sometimes after a change of size."""
    if rng.random() < 0.25:
        factor = float(rng.uniform(0.5, 1.0))
        height, width = picture.shape[:2]
        if min(height, width) * factor >= 64:
            size = round(width * factor), round(height * factor)
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if rng.random() < 0.3:
        return picture
    quality = int(rng.integers(70, 97))
    encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None, "a JPEG that was encoded here"
    return decoded[..., ::-1]


def _squashed(picture: np.ndarray, side_px: int, rng: np.random.Generator) -> np.ndarray:
    """The picture at (side, side), mostly resized as the processor does it."""
    if rng.random() < 0.7:
        image = Image.fromarray(np.ascontiguousarray(picture))
        return np.asarray(image.resize((side_px, side_px), Image.Resampling.BICUBIC))
    method = (cv2.INTER_AREA, cv2.INTER_LINEAR)[int(rng.integers(2))]
    return cv2.resize(np.ascontiguousarray(picture), (side_px, side_px), interpolation=method)
