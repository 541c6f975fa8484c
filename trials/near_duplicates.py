"""Near duplicates: what finding them costs, and how many of them are found.

`speed` makes hashes, of which a tenth are near an earlier one, half of these as its mirror image; it prints
seconds and the most memory of the search, which reads them from files, and checks that every one is found, and on
a sample that comparing with all says the same.
`pictures` changes the pictures of folders as the web does and prints what share of them is found (recall) and what
share of what is found is right (precision), beside PDQ, as its package pdqhash computes it, at its usual 31
bits of 256.

    python trials/near_duplicates.py speed 100000 1000000 10000000
    python trials/near_duplicates.py pictures FOLDER [FOLDER ...] --number 500
"""

import argparse
import io
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from darkroom.components.base import Component
from darkroom.components.clip import load_clip
from darkroom.scorers.cosines import first_alike, rounded
from darkroom.scorers.hamming import Hashes, Near, first_near
from darkroom.scorers.near_duplicate import NearDuplicate
from darkroom.scorers.perceptual_hash import hashes

LIMIT_S, LIMIT_OF = 60, 10_000_000
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
_SAMPLE = 50
_PDQ_BITS = 31
_MIN_SIDE_PX = 96
OPTIONS = NearDuplicate()  # type: ignore[call-arg]
NEAR = Near(OPTIONS.max_low_bits, OPTIONS.max_bits, OPTIONS.max_colour)


def planted(num: int) -> tuple[Hashes, np.ndarray]:
    """Hashes, and the index that `first_near` is to find for each."""
    random = np.random.default_rng(0)
    plain, mirrored = (random.integers(0, 2**64, (num, 4), dtype=np.uint64) for _ in range(2))
    first, near = np.arange(num), np.arange(num - num // 10, num)
    first[near] = random.integers(0, near[0], len(near))
    is_mirrored = random.random(len(near)) < 0.5
    plain[near] = np.where(is_mirrored[:, None], mirrored[first[near]], plain[first[near]])
    mirrored[near] = np.where(is_mirrored[:, None], plain[first[near]], mirrored[first[near]])
    # As it is a hash is compared with `plain`; of a mirrored picture its `mirrored` is.
    turned = np.where(is_mirrored[:, None], mirrored[near], plain[near])
    for flips, words in ((NEAR.max_low_bits, 1), (NEAR.max_bits - NEAR.max_low_bits, 4)):
        for _ in range(flips):
            word = random.integers(words > 1, words, len(near))
            bit = np.uint64(1) << random.integers(0, 64, len(near), dtype=np.uint64)
            turned[np.arange(len(near)), word] ^= bit
    mirrored[near[is_mirrored]] = turned[is_mirrored]
    plain[near[~is_mirrored]] = turned[~is_mirrored]
    colours = random.integers(96, 160, (num, 2), dtype=np.int16)
    colours[near] = colours[first[near]] + random.integers(
        -NEAR.max_colour, NEAR.max_colour + 1, (len(near), 2)
    )
    return Hashes(plain, mirrored, colours), first


def is_right(made: Hashes, first: np.ndarray, sample: np.ndarray) -> bool:
    """Whether for each of the sample the first kept one that it is near to was found, by comparing with all."""
    is_kept = first == np.arange(len(first))
    for j in sample:
        is_near = np.zeros(j, bool)
        is_alike = (abs(made.colours[:j] - made.colours[j]) <= NEAR.max_colour).all(axis=1)
        for turned in (made.plain, made.mirrored):
            bits = np.bitwise_count(made.plain[:j] ^ turned[j])
            is_near |= (bits[:, 0] <= NEAR.max_low_bits) & (bits.sum(axis=1) <= NEAR.max_bits)
        kept = np.nonzero(is_near & is_alike & is_kept[:j])[0]
        if first[j] != (kept[0] if len(kept) else j):
            return False
    return True


class Search(NamedTuple):
    """What a search found and took: wall clock, processor time, and the most memory that is no file's."""

    first: np.ndarray
    seconds: float
    cpu_seconds: float
    peak_mb: float


def search(folder: Path, num_threads: int) -> Search:
    """Search hashes that lie in a folder, in a process that has nothing else in memory."""
    mapped = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in Hashes.__annotations__]
    peak, is_over = [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.02):
            lines = Path("/proc/self/status").read_text().splitlines()
            own = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
            peak[0] = max(peak[0], own)

    watching = threading.Thread(target=watch)
    watching.start()
    start, start_cpu = time.perf_counter(), time.process_time()
    first = first_near(Hashes(*mapped), NEAR, num_threads)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    is_over.set()
    watching.join()
    return Search(first, seconds, cpu_seconds, peak[0] / 1024)


def speed(nums: Sequence[int], num_threads: int) -> bool:
    """Print a line for each number of hashes; whether all was found, and fast enough."""
    print(f"{'hashes':>12}{'seconds':>9}{'CPU s':>9}{'own MB':>9}  near ones found")
    is_well = True
    for num in sorted(nums):
        made, expected = planted(num)
        with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(1, get_context("spawn")) as process:
            for field, values in vars(made).items():
                np.save(Path(name, f"{field}.npy"), values)
            found = process.submit(search, Path(name), num_threads).result()
        first = found.first
        number = (first == expected)[expected < np.arange(num)].sum()
        told = f"{num:>12,}{found.seconds:>9.1f}{found.cpu_seconds:>9.1f}{found.peak_mb:>9.0f}"
        print(f"{told}  {number:,} of {num // 10:,}", flush=True)
        sample = np.random.default_rng(1).choice(num, _SAMPLE, replace=False)
        is_well &= bool((first == expected).all()) and is_right(made, first, sample)
        is_well &= num > LIMIT_OF or found.seconds < LIMIT_S
    print(f"all found, as comparing with all finds them, {LIMIT_OF:,} in less than {LIMIT_S} s: {is_well}")
    return is_well


def encoded(image: Image.Image, quality: int, kind: str = "JPEG") -> Image.Image:
    """The picture after a file of that kind."""
    file = io.BytesIO()
    image.save(file, kind, quality=quality)
    return Image.open(file).convert("RGB")


def scaled(image: Image.Image, share: float, how: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """The picture with sides of that share."""
    width, height = (max(1, round(side * share)) for side in image.size)
    return image.resize((width, height), how)


def cropped(image: Image.Image) -> Image.Image:
    """Without 5 % of its width and of its height, a half on each side."""
    left, top = round(image.width * 0.025), round(image.height * 0.025)
    return image.crop((left, top, image.width - left, image.height - top))


def turned(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 75": lambda image: encoded(image, 75),
    "JPEG, quality 40": lambda image: encoded(image, 40),
    "WebP, quality 50": lambda image: encoded(image, 50, "WEBP"),
    "half the size": lambda image: encoded(scaled(image, 1 / 2), 90),
    "a third, bilinear": lambda image: encoded(scaled(image, 1 / 3, Image.Resampling.BILINEAR), 90),
    "half, quality 40": lambda image: encoded(scaled(image, 1 / 2), 40),
    "mirrored": lambda image: encoded(turned(image), 90),
    "mirrored, half": lambda image: encoded(scaled(turned(image), 1 / 2), 75),
    "5 % cropped": lambda image: encoded(cropped(image), 90),
}


class Found(NamedTuple):
    """Of changed pictures the share that is found, and of what is found the share that is right."""

    recall: float
    precision: float


def load(path: Path) -> Image.Image:
    """A picture on white, at most 1024 pixels high and wide, as a JPEG holds it."""
    with Image.open(path) as opened:
        opaque = opened.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    image.thumbnail((1024, 1024))
    return encoded(image, 95)


def words(told: Sequence[tuple[str, str, int, int, int]]) -> Hashes:
    """What `hashes` says of pictures, as the index takes it."""
    of = (b"".join(map(bytes.fromhex, digits)) for digits in ([t[0] for t in told], [t[1] for t in told]))
    plain, mirrored = (np.frombuffer(each, ">u8").astype(np.uint64).reshape(-1, 4) for each in of)
    return Hashes(plain, mirrored, np.array([each[3:] for each in told], np.int16))


def ours(pictures: Sequence[Image.Image]) -> Callable[[Sequence[Image.Image]], np.ndarray]:
    """A function from changed pictures to `first_near` of the pictures and the changed ones."""
    before = [hashes(picture) for picture in pictures]
    return lambda changed: first_near(words([*before, *map(hashes, changed)]), NEAR, 2)


def pdq(pictures: Sequence[Image.Image]) -> Callable[[Sequence[Image.Image]], np.ndarray]:
    """The same by PDQ, of all pairs; mirrored pictures by the mirrored hash that it gives too."""
    import pdqhash

    def both(picture: Image.Image) -> np.ndarray:
        # Of the eight the one as it is, and the one mirrored left to right.
        every = pdqhash.compute_dihedral(np.asarray(picture))[0]
        return np.array([every[0], every[5]], bool)

    before = [both(picture) for picture in pictures]

    def first(changed: Sequence[Image.Image]) -> np.ndarray:
        every = np.array([*before, *map(both, changed)])
        kept: list[int] = []
        found = np.arange(len(every))
        for j in range(len(every)):
            far = (every[kept, None, 0] != every[j]).sum(axis=2).min(axis=1) if kept else np.empty(0)
            near = np.nonzero(far <= _PDQ_BITS)[0]
            if len(near):
                found[j] = kept[near[0]]
            else:
                kept.append(j)
        return found

    return first


def by_clip(
    pictures: Sequence[Image.Image], folder: Path, min_cosine: float
) -> Callable[[Sequence[Image.Image]], np.ndarray]:
    """The same by the cosine of a CLIP's embeddings, as `clip_duplicate` finds them."""
    clip = load_clip(Component(kind="clip", path=str(folder)))

    def embedded(some: Sequence[Image.Image]) -> np.ndarray:
        batches = [some[begin : begin + 64] for begin in range(0, len(some), 64)]
        return np.concatenate([rounded(clip.encode_images(batch).numpy()) for batch in batches])

    before = embedded(pictures)
    return lambda changed: first_alike(np.concatenate([before, embedded(changed)]), min_cosine)


def measured(
    pictures: Sequence[Image.Image], by: Callable[[Sequence[Image.Image]], Callable[..., np.ndarray]] = ours
) -> dict[str, Found]:
    """Change -> how it is found among the pictures, unchanged ones included."""
    first_of = by(pictures)
    found = {}
    for name, change in CHANGES.items():
        first = first_of([change(picture) for picture in pictures])
        of = np.arange(len(first)) % len(pictures)
        is_found = first != np.arange(len(first))
        is_same = is_found & (of[first] == of)
        found[name] = Found(is_same[len(pictures) :].mean(), is_same.sum() / max(1, is_found.sum()))
    return found


def chosen(folders: Sequence[Path], number: int) -> list[Image.Image]:
    """Pictures of the folders, drawn by a seed, of those large and detailed enough to be judged."""
    paths = sorted(
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS and not path.is_symlink()
    )
    found: list[Image.Image] = []
    for place in np.random.default_rng(0).permutation(len(paths)):
        picture = load(paths[place])
        if min(picture.size) >= _MIN_SIDE_PX and hashes(picture)[2] >= OPTIONS.min_detail:
            found.append(picture)
        if len(found) == number:
            break
    return found


def pictures(folders: Sequence[Path], number: int, clip: Path | None, min_cosines: Sequence[float]) -> None:
    """Print recall and precision of each change."""
    some = chosen(folders, number)
    told = {"ours": measured(some), "PDQ": measured(some, pdq)}
    if clip is not None:
        for least in min_cosines:
            told[f"CLIP, {least}"] = measured(some, partial(by_clip, folder=clip, min_cosine=least))
    print(f"{len(some)} pictures" + "".join(f"{name:>22}" for name in told))
    print(f"{'':20}" + f"{'recall':>12}{'precision':>12}" * len(told))
    for change in CHANGES:
        print(
            f"{change:<20}"
            + "".join(f"{by[change].recall:>12.1%}{by[change].precision:>12.1%}" for by in told.values())
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fast = commands.add_parser("speed")
    fast.add_argument("num_hashes", nargs="+", type=int)
    fast.add_argument("--threads", type=int, default=2)
    found = commands.add_parser("pictures")
    found.add_argument("folders", nargs="+", type=Path)
    found.add_argument("--number", type=int, default=500)
    found.add_argument("--clip", type=Path, help="folder of a CLIP, whose embeddings find them too")
    found.add_argument("--min-cosine", type=float, nargs="+", default=[0.95])
    asked = parser.parse_args()
    if asked.command == "speed":
        sys.exit(not speed(asked.num_hashes, asked.threads))
    pictures(asked.folders, asked.number, asked.clip, asked.min_cosine)


if __name__ == "__main__":
    main()
