"""What one picture can cost at most: hostile pictures, the largest honest ones, and pictures with random damage.

Each goes through a process that decodes, as in a download with the default bounds. Prints the processor seconds
and the memory of the costliest; fails where one goes beyond what docs/download.md states, ends a process or meets
a fault of ours.

    python trials/bombs.py
    python trials/bombs.py --mutations 100000 --seed 1
"""

import argparse
import random
import re
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageCms

from darkroom.download.decoders import Decoders
from darkroom.download.memory import picture_bytes
from darkroom.download.status import DECODER_DIED, INTERNAL_ERROR, OK, Failure
from darkroom.settings.download import Download

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from hostile import LARGEST, encoded, hostile

MB = 1_000_000
Named = tuple[str, Callable[[], bytes]]


class Cost(NamedTuple):
    """What a picture took: seconds of a processor, bytes of memory besides the idle process's, and its word."""

    cpu_s: float
    num_bytes: int
    name: str
    status: str


def spent_s(pool: Decoders) -> float:
    """Processor time of all processes so far, seconds: of those that ended, and of those that run."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = (int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9 for pid in pool.pids())
    return ended.ru_utime + ended.ru_stime + sum(running)


def peak_bytes(pool: Decoders, again: bool = False) -> int:
    """Largest resident memory of the process since it was asked `again`; 0 if it ended."""
    for pid in pool.pids():
        if again:
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024
    return 0


def cost_of(pool: Decoders, name: str, content: bytes) -> Cost:
    """Decode a picture, and say what that took."""
    begin, idle = spent_s(pool), peak_bytes(pool, again=True)
    found = pool.decode([content])
    status = found.status if isinstance(found, Failure) else OK
    return Cost(spent_s(pool) - begin, max(peak_bytes(pool) - idle, 0), name, status)


def honest() -> dict[str, bytes]:
    """Small pictures of every format, with metadata, for damage to hit."""
    photo = Image.effect_noise((96, 64), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    told: dict[str, Any] = {"exif": exif, "icc_profile": icc}
    alpha = photo.convert("RGBA")
    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "JPEG": (photo, "JPEG", told),
        "progressive JPEG": (photo, "JPEG", {**told, "progressive": True}),
        "CMYK JPEG": (photo.convert("CMYK"), "JPEG", {"exif": exif}),
        "PNG": (alpha, "PNG", told),
        "palette PNG": (photo.quantize(50), "PNG", {"transparency": 3}),
        "16-bit PNG": (photo.convert("I;16"), "PNG", {}),
        "WebP": (alpha, "WEBP", told),
        "lossless WebP": (alpha, "WEBP", {**told, "lossless": True}),
        "GIF": (photo.quantize(50), "GIF", {"comment": b"words"}),
        "TIFF": (photo, "TIFF", told),
        "LZW TIFF": (alpha, "TIFF", {"compression": "tiff_lzw"}),
        "JPEG TIFF": (photo, "TIFF", {"compression": "jpeg"}),
        "fax TIFF": (photo.convert("1"), "TIFF", {"compression": "group4"}),
        "BMP": (photo, "BMP", {}),
        "palette BMP": (photo.quantize(50), "BMP", {}),
        "AVIF": (alpha, "AVIF", told),
    }
    return {name: encoded(image, kind, **options) for name, (image, kind, options) in kinds.items()}


def mutations(number: int, seed: int) -> Iterator[Named]:
    """So many damaged pictures, the same for the same seed."""
    chance, pictures = random.Random(seed), sorted(honest().items())
    for i in range(number):
        name, content = pictures[i % len(pictures)]
        yield f"mutation {i} of a {name}", partial(bytes, damage(bytearray(content), chance))


def damage(content: bytearray, chance: random.Random) -> bytearray:
    """Change bytes, mostly early ones; sometimes cut, repeat or exchange a piece."""
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        # Headers are short, and what they say matters most.
        place = int(len(content) * chance.random() ** chance.choice((1, 4)))
        end = min(place + chance.randrange(1, 64), len(content))
        match chance.randrange(6):
            case 0:
                content[place:end] = chance.randbytes(end - place)
            case 1:
                content[place:end] = content[place:end] * chance.randrange(0, 5)
            case 2:
                content[place : place + 4] = chance.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff")
                )
            case 3 if chance.random() < 0.2:
                del content[place:]
            case _ if place < len(content):
                content[place] ^= 1 << chance.randrange(8)
    return content


def main() -> int:
    """Print the costs; 1 where a bound was broken."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("--mutations", type=int, default=20_000, help="pictures with random damage")
    asked.add_argument("--seed", type=int, default=0, help="of the damage")
    asked.add_argument("--megabytes", type=int, default=49, help="of a hostile picture; 0 leaves them out")
    options = asked.parse_args()
    settings = Download()
    made: list[Named] = []
    if options.megabytes:
        made += [(name, case.make) for name, case in {**hostile(options.megabytes * MB), **LARGEST}.items()]
    costs = []
    with Decoders(settings) as pool:
        pool.decode([b"the process starts"])
        for name, make in made:
            costs.append(cost_of(pool, name, make()))
        for number, (name, make) in enumerate(mutations(options.mutations, options.seed), 1):
            costs.append(cost_of(pool, name, make()))
            if number % 1_000 == 0:
                print(f"{number:,} mutations", file=sys.stderr)
    return report(costs, settings)


def report(costs: list[Cost], settings: Download) -> int:
    """Print the costliest pictures and the words of all; 1 where a bound was broken."""
    dearest = dict.fromkeys(sorted(costs, reverse=True)[:10] + sorted(costs, key=lambda c: -c.num_bytes)[:5])
    print(f"{'CPU s':>7} {'MiB':>6}  picture: how it ended")
    for cost in dearest:
        print(f"{cost.cpu_s:7.2f} {cost.num_bytes / 2**20:6.0f}  {cost.name}: {cost.status}")
    words = Counter(cost.status for cost in costs)
    print(", ".join(f"{number:,} {word}" for word, number in words.most_common()))
    cpu_s, num_bytes = max(cost.cpu_s for cost in costs), max(cost.num_bytes for cost in costs)
    limit = picture_bytes(settings)
    print(
        f"of {len(costs):,} pictures the worst took {cpu_s:.2f} CPU s (bound: {settings.max_decode_s:g} s)"
        f" and {num_bytes / 1e6:.0f} MB (bound: {limit / 1e6:.0f} MB)"
    )
    broken = (
        cpu_s > settings.max_decode_s or num_bytes > limit or words[DECODER_DIED] or words[INTERNAL_ERROR]
    )
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
