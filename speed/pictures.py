"""Pictures fetched from a server on loopback, reduced and packed: ours, and img2dataset's own classes.

Photographs that scikit-image ships, mirrored and cut to about a megapixel so that no two are the same, as JPEG;
the longer side is reduced to 256 px, and the shard is a tar of JPEG, caption and metadata. img2dataset decodes and
reduces with OpenCV (area). Both must store every picture, at the same size to a pixel; the gate of quality is ours
alone: as they are stored they have 38 dB on average to the exact area average of the decoded picture, in float.
What is lost before they are encoded is tested picture by picture (tests/test_download_decode.py).

    python speed/pictures.py
    python speed/pictures.py --size small --repeats 3
"""

import atexit
import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import race
from PIL import Image, ImageOps
from race import OURS, Race, Side, Sizes, Work

PHOTOGRAPHS = (
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "retina",
    "hubble_deep_field",
    "ihc",
    "motorcycle_left",
)
SIDE_PX, QUALITY = 256, 95
LEAST_DB = 38.0
NUM_THREADS = 8


def photograph(number: int) -> Image.Image:
    """One of the photographs, mirrored to twice its sides where it is small, without some of its margin."""
    import skimage

    (path,) = Path(skimage.__file__).parent.glob(f"data/{PHOTOGRAPHS[number % len(PHOTOGRAPHS)]}.*")
    with Image.open(path) as file:
        whole = file.convert("RGB")
    if whole.width < 900:
        both = Image.new("RGB", (2 * whole.width, 2 * whole.height))
        for turned, place in (
            (whole, (0, 0)),
            (ImageOps.mirror(whole), (whole.width, 0)),
            (ImageOps.flip(whole), (0, whole.height)),
            (whole.rotate(180), (whole.width, whole.height)),
        ):
            both.paste(turned, place)
        whole = both
    left, top = np.random.default_rng(number).integers(0, 64, 2)
    return whole.crop((int(left), int(top), whole.width - int(top), whole.height - int(left)))


def prepare(folder: Path, sizes: Sizes) -> None:
    """The files that the server sends."""
    (folder / "web").mkdir()
    for number in range(sizes["pictures"]):
        photograph(number).save(folder / f"web/{number}.jpg", quality=90)


def serving(folder: Path) -> int:
    """The port of a server of these files, which ends with this process."""
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]
    server = subprocess.Popen(
        command, cwd=folder / "web", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    atexit.register(server.kill)
    assert server.stdout is not None
    found = re.search(r"port (\d+)", server.stdout.readline())
    assert found is not None, "a server of Python says its port"
    return int(found[1])


def work(folder: Path, run: Callable[[], Path]) -> Work:
    """The answer: of each picture, by its caption, its size and how near it is to the exact average, dB."""

    def answer() -> dict[str, Any]:
        found = {}
        with tarfile.open(run()) as tar:
            members = {member.name: member for member in tar if member.isfile()}
            for name in (name for name in members if name.endswith(".jpg")):
                content, caption = (tar.extractfile(members[f"{name[:-4]}.{end}"]) for end in ("jpg", "txt"))
                assert content is not None and caption is not None
                number = int(caption.read().split()[-1])
                with Image.open(io.BytesIO(content.read())) as image:
                    stored = np.asarray(image.convert("RGB"), np.float64)
                db = decibel(stored, reference(folder / f"web/{number}.jpg", stored.shape[1::-1]))
                found[str(number)] = [*stored.shape[1::-1], db]
        return found

    return Work(run, answer)


def reference(path: Path, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3): the area average of the decoded picture, in float."""
    import cv2

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), np.float32)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.float64)


def decibel(one: np.ndarray, other: np.ndarray) -> float:
    """PSNR of values up to 255."""
    return float(10 * np.log10(255**2 / np.mean((one - other) ** 2)))


def ours(folder: Path, sizes: Sizes) -> Work:
    import polars as pl

    from darkroom.download.stage import download_part
    from darkroom.settings.download import Download

    number, port = sizes["pictures"], serving(folder)
    rows = {
        "row": range(number),
        "url": [f"http://pictures.example/{i}.jpg" for i in range(number)],
        "caption": [f"picture {i}" for i in range(number)],
    }
    pl.DataFrame(rows).write_parquet(folder / "urls.parquet")
    settings = Download(
        allow_networks=("127.0.0.0/8",), num_threads=NUM_THREADS, max_side_px=SIDE_PX, jpeg_quality=QUALITY
    )
    files = folder / "part.tar", folder / "part.parquet"
    to = {"pictures.example:80": f"127.0.0.1:{port}"}

    def run() -> Path:
        download_part(folder / "urls.parquet", 0, number, settings, *files, to)
        return files[0]

    return work(folder, run)


def img2dataset(folder: Path, sizes: Sizes) -> Work:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import pyarrow as pa
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer
    from img2dataset.writer import WebDatasetSampleWriter

    number, port = sizes["pictures"], serving(folder)
    out = folder / "img2dataset"
    out.mkdir()
    rows = pa.table(
        {
            "url": [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(number)],
            "caption": [f"picture {i}" for i in range(number)],
        }
    )
    resizer = Resizer(SIDE_PX, "keep_ratio_largest", resize_only_if_bigger=True, encode_quality=QUALITY)
    # What is not said otherwise is as its command has it.
    downloader = Downloader(
        WebDatasetSampleWriter, resizer, thread_count=NUM_THREADS, save_caption=True, extract_exif=True,
        output_folder=str(out), column_list=["url", "caption"], timeout=10, number_sample_per_shard=10_000,
        oom_shard_count=5, compute_hash="sha256", verify_hash_type=None, encode_format="jpg", retries=0,
        user_agent_token=None, disallowed_header_directives=["noai", "noimageai", "noindex", "noimageindex"],
    )  # fmt: skip

    def run() -> Path:
        shard = folder / "shard.arrow"
        with pa.OSFile(str(shard), "wb") as file, pa.ipc.new_file(file, rows.schema) as sink:
            sink.write_table(rows)
        downloader.download_shard((0, str(shard)))
        return out / "00000.tar"

    return work(folder, run)


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    """Every picture at the same size to a pixel, and ours near to the exact average."""
    if sorted(ours) != sorted(theirs):
        return f"{len(theirs)} pictures, ours {len(ours)}"
    for number, (width, height, _) in theirs.items():
        if abs(width - ours[number][0]) > 1 or abs(height - ours[number][1]) > 1:
            return f"picture {number} has {width} x {height}, ours {ours[number][:2]}"
    mean = float(np.mean([db for *_, db in ours.values()]))
    return f"ours have only {mean:.1f} dB to the exact average" if mean < LEAST_DB else None


RACE = Race(
    title="download + reduce + pack",
    told=lambda sizes: (
        f"{sizes['pictures']:,} photographs of about a megapixel to {SIDE_PX} px, from loopback"
    ),
    sizes={"smallest": {"pictures": 8}, "small": {"pictures": 600}, "large": {"pictures": 1_000}},
    prepare=prepare,
    sides=(Side(OURS, ours), Side("img2dataset's classes", img2dataset, 1.3)),
    same=same,
)

if __name__ == "__main__":
    race.main(RACE, __doc__)
