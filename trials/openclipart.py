"""Real pictures through the data stages: all of Debian's clip art, by its paths, from a web server on loopback.

The packages openclipart-png and openclipart-svg have 8,121 PNGs that nobody made for this, and titles in the SVGs
of the same paths. Some are links to others, some are very large or very thin, and some titles are none. Each path
is a row of a list, which goes through download, score, filter and bucket; each row is to end with a status, and to
be counted once.

    apt-get download openclipart-png openclipart-svg
    for package in *.deb; do dpkg-deb -x $package clipart; done
    python trials/openclipart.py clipart
"""

import argparse
import csv
import html
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import yaml

from darkroom.download.status import is_status

ROOT = Path(__file__).parents[1]
PICTURES, DRAWINGS = "usr/share/openclipart/png", "usr/share/openclipart/svg"
# Pictures that one title may be of.
MAX_ALIKE = 40
DATASET: dict[str, Any] = {
    "description": "Debian's clip art",
    "rows_per_part": 1_000,
    "download": {"allow_networks": ["127.0.0.0/8"], "num_threads": 8},
    "manners": {"host_connections": 64, "host_pause_s": 0},
    "scorers": {"size": {}, "duplicate": {}},
    "keep": [
        {"column": "caption", "matches": r"\w", "unknown": "drop", "name": "caption_has_words"},
        {"column": "min_side_px", "min": 64},
        {"column": "aspect_ratio", "max": 3.0, "name": "max_aspect_ratio"},
        {"column": "duplicate", "equals": False},
    ],
    "recaption": None,
}
RUN = {
    "extends": "demo",
    "dataset": "clipart",
    "bucket": {"resolution_px": 256, "step_px": 32, "min_side_px": 128, "max_side_px": 512},
    "train": {"caption_choice": None},  # the demo's names captions that are generated
}
_TITLE = re.compile(r"<dc:title[^>]*>(.*?)</dc:title>", re.DOTALL)


class Server(ThreadingHTTPServer):
    """Of the pictures; as many at a time as ask."""

    daemon_threads = True
    request_queue_size = 64


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server on loopback that has a folder's files."""
    with Server(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def title_of(drawing: Path) -> str:
    """What an SVG says that it is called; empty where it says nothing."""
    try:
        found = _TITLE.search(drawing.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return " ".join(html.unescape(re.sub("<[^>]*>", "", found[1])).split()) if found else ""


def write_list(path: Path, packages: Path, address: str) -> int:
    """A row for each path of a picture; returns their number."""
    pictures = packages / PICTURES
    names = sorted(name.relative_to(pictures) for name in pictures.rglob("*.png"))
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["URL", "TEXT", "is_link"])
        for name in names:
            drawing = packages / DRAWINGS / name.with_suffix(".svg")
            is_link = str((pictures / name).is_symlink()).lower()
            out.writerow([f"{address}/{quote(name.as_posix())}", title_of(drawing), is_link])
    return len(names)


def make_project(folder: Path, packages: Path) -> None:
    """The repository's workflow with a run `clipart`.

    Titles that many pictures share are of a collection, or of the program that wrote them ("gramastar", "Part of
    the Flat Icon Collection (Wed Aug 25 23:29:46 2004)"), and say nothing of what is to be seen.
    """
    for entry in ("Snakefile", "rules", "workflow", "profiles", "config"):
        copy = shutil.copytree if (ROOT / entry).is_dir() else shutil.copy2
        copy(ROOT / entry, folder / entry)
    (folder / "src").symlink_to(ROOT / "src")
    titles = Counter(map(title_of, (packages / DRAWINGS).rglob("*.svg")))
    junk = sorted(title for title, number in titles.items() if title and number > MAX_ALIKE)
    dataset = {**DATASET, "source": {"kind": "list", "path": "clipart.csv"}}
    if junk:
        own = {"column": "caption", "not_in": junk, "name": "caption_of_its_own"}
        dataset["keep"] = [dataset["keep"][0], own, *dataset["keep"][1:]]
    (folder / "config/datasets/clipart.yaml").write_text(yaml.safe_dump(dataset))
    (folder / "config/runs/clipart.yaml").write_text(yaml.safe_dump(RUN))


def make(folder: Path, stage: str, cores: int) -> tuple[float, float]:
    """Seconds that a stage takes: of the clock, and of processors."""
    command = [sys.executable, "-m", "snakemake", stage, "--profile", "profiles/local", "--quiet", "all"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [*command, "--cores", str(cores), "--config", "run=clipart"],
        cwd=folder, env={**os.environ, "NO_COLOR": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stdout[-4000:])
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - start, used


def tell(folder: Path) -> pl.DataFrame:
    """Print what became of the rows; returns the download's tables as one."""
    here = folder / "results/datasets/clipart"
    rows = pl.concat([pl.read_parquet(path) for path in sorted(here.glob("download/*.parquet"))])
    for status, number in rows["status"].value_counts().sort("count", "status", descending=True).iter_rows():
        print(f"{number:>8,}  {status}")
    told = json.loads((here / "filter/funnel.json").read_text())
    for row in told["criteria"]:
        print(f"{row['remaining']:>8,}  after {row['criterion']}: {row['first_failure']:,} less")
    (summary,) = folder.glob("results/caches/*/bucket/buckets.json")
    buckets = json.loads(summary.read_text())
    filled = sum(number > 0 for number in buckets["pictures_by_bucket"].values())
    print(f"{buckets['num_bucketed']:>8,}  in {filled} buckets, {buckets['num_dropped']} dropped")
    links = rows.filter("is_link")["status"].value_counts().sort("status").rows()
    sizes = rows.drop_nulls("original_width").select("original_width", "original_height")
    sides = sizes.max_horizontal().cast(pl.Float64) / sizes.min_horizontal()
    longest = max(sides.to_list(), default=1.0)
    print(f"links: {dict(links)}; the longest is {longest:.1f} times as long as wide")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", type=Path, help="folder into which both packages were unpacked")
    parser.add_argument("--cores", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, served(asked.packages / PICTURES) as address:
        folder = Path(name)
        make_project(folder, asked.packages)
        num_rows = write_list(folder / "clipart.csv", asked.packages, address)
        if not num_rows:
            parser.error(f"{asked.packages / PICTURES}: no pictures; it should be openclipart-png, unpacked")
        for stage in ("download", "filter", "bucket"):
            clock, used = make(folder, stage, asked.cores)
            print(f"{stage:<10}{clock:8.1f} s, {used:8.1f} CPU s", flush=True)
        rows = tell(folder)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    is_well = rows["row"].sort().to_list() == list(range(num_rows)) and all(map(is_status, rows["status"]))
    print(f"largest process {peak:.0f} MB; each of {num_rows:,} rows has one status: {is_well}")
    sys.exit(not is_well)


if __name__ == "__main__":
    main()
