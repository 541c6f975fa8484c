"""What lists cost as they grow: seconds and peak memory of `snakemake -n` and of the rule `urls`.

A list is planned before anything is known of its rows, once more after that, and again with one row more: then no
more than two parts may be others. Memory is to stay below LIMIT_MB, and seconds to grow no faster than the list.

    python trials/lists.py 100000 1000000 10000000
    python trials/lists.py 100000 1000000 --ending csv
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).parents[1]
ROWS_PER_PART = 10_000
LIMIT_MB = 1_000
_ROW_GROUP = 100_000


def batches(num_rows: int) -> Iterator[pa.Table]:
    """Rows as long as LAION's are about."""
    for first in range(0, num_rows, _ROW_GROUP):
        numbers = range(first, min(first + _ROW_GROUP, num_rows))
        yield pa.table(
            {
                "URL": [
                    f"https://pictures.example/some/folder/{n:09d}/picture-of-something.jpg" for n in numbers
                ],
                "TEXT": [f"{n} a caption of about as many words as those of the web have" for n in numbers],
                "WIDTH": pa.array([640 + n % 100 for n in numbers], pa.int32()),
                "HEIGHT": pa.array([480 + n % 100 for n in numbers], pa.int32()),
                "similarity": [0.25 + n % 7 / 100 for n in numbers],
                "pwatermark": [n % 11 / 11 for n in numbers],
            }
        )


def write_list(path: Path, num_rows: int) -> None:
    """A list of that many rows, in the format that its name says."""
    if path.suffix == ".parquet":
        with pq.ParquetWriter(path, next(batches(1)).schema) as writer:
            for table in batches(num_rows):
                writer.write_table(table)
        return
    import polars as pl

    with path.open("wb") as file:
        for number, table in enumerate(batches(num_rows)):
            pl.DataFrame(table).write_csv(file, include_header=number == 0)


def make_project(folder: Path, name: str) -> None:
    """The repository's workflow with a dataset `big` of that list."""
    for entry in ("Snakefile", "rules", "workflow", "profiles", "config"):
        copy = shutil.copytree if (ROOT / entry).is_dir() else shutil.copy2
        copy(ROOT / entry, folder / entry)
    (folder / "src").symlink_to(ROOT / "src")
    dataset = yaml.safe_load((ROOT / "config/datasets/demo.yaml").read_text())
    dataset |= {"source": {"kind": "list", "path": name}, "rows_per_part": ROWS_PER_PART, "keep": []}
    (folder / "config/datasets/big.yaml").write_text(yaml.safe_dump(dataset))
    (folder / "config/runs/big.yaml").write_text("extends: demo\ndataset: big\n")


def run(folder: Path, *arguments: str) -> tuple[float, float]:
    """Processor seconds and peak MB of a `snakemake` with its jobs."""
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/local", "--cores", "1"]
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [*command, *arguments, "--config", "run=big"], cwd=folder, stdout=out, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            out.seek(0)
            sys.exit(out.read()[-3000:])
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def states(folder: Path) -> list[str]:
    """The digests of the parts' rows that the latest plan was made with."""
    kept = pq.read_metadata(folder / ".snakemake/darkroom/sources/big.parquet").metadata
    found: list[str] = json.loads(kept[b"darkroom"])["parts"]
    return found


def measure(num_rows: int, ending: str) -> tuple[dict[str, tuple[float, float]], int]:
    """(processor seconds, peak MB) of each step, and how many parts one row more makes."""
    with tempfile.TemporaryDirectory() as name:
        folder, urls = Path(name), "results/datasets/big/urls.parquet"
        path = folder / f"list.{ending}"
        make_project(folder, path.name)
        write_list(path, num_rows)
        time.sleep(3)  # a list that was written just now would be read again
        steps = {"-n, first": run(folder, "-n", "download")}
        before = states(folder)
        steps["-n"] = run(folder, "-n", "download")
        steps["urls"] = run(folder, urls)
        write_list(path, num_rows + 1)
        steps["-n, grown"] = run(folder, "-n", "download")
        now = states(folder)
    num_changed = sum(old != new for old, new in zip(before, now, strict=False)) + len(now) - len(before)
    return steps, num_changed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("num_rows", nargs="+", type=int)
    parser.add_argument("--ending", default="parquet", choices=("parquet", "csv"))
    asked = parser.parse_args()
    print(f"{'rows':>12}  {'step':<12}{'CPU s':>8}{'peak MB':>9}")
    found, is_well = {}, True
    for num_rows in sorted(asked.num_rows):
        found[num_rows], num_changed = measure(num_rows, asked.ending)
        for step, (seconds, peak_mb) in found[num_rows].items():
            print(f"{num_rows:>12,}  {step:<12}{seconds:>8.1f}{peak_mb:>9.0f}", flush=True)
            is_well &= peak_mb < LIMIT_MB
        print(f"{num_rows:>12,}  one row more makes {num_changed} parts")
        is_well &= num_changed <= 2
    for smaller, larger in pairwise(found):
        for step, (seconds, _) in found[larger].items():
            is_well &= seconds / found[smaller][step][0] <= larger / smaller
    print(f"memory below {LIMIT_MB:,} MB, seconds no faster than the list, at most 2 parts: {is_well}")
    sys.exit(not is_well)


if __name__ == "__main__":
    main()
