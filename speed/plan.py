"""How long `snakemake -n` plans a dataset of 1e8 pictures: a job a part of 500,000 rows, against a job a shard.

The peer is the same Snakemake with the unit of work that dataset tools use, a shard of 10,000 rows (img2dataset's
default); it plans a twentieth of the rows, and its seconds count twenty times. Both plans must have the same
rules, and cover every row. Ten runs of the dataset that train otherwise are planned in one command, and must
cost less than two. Where everything is made, nothing may be to do. The goals are processor seconds.

    python speed/plan.py
    python speed/plan.py --size small
"""

import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import race
import yaml
from race import Figure, Result

from darkroom.config import load_project
from darkroom.stages import STAGES, manifest_path, stage_settings, upstream_paths
from darkroom.store import sha256_path, write_json

ROOT = Path(__file__).parents[1]
ROWS_A_PART, ROWS_A_SHARD = 500_000, 10_000
PEERS_SHARE = 20
NUM_RUNS, LIMIT_RATIO = 10, 2.0
SETTLED_S = 5
SIZES = {"smallest": 1_000_000, "small": 100_000_000, "large": 100_000_000}
LARGEST = {"smallest": 0, "small": 0, "large": 1_000_000_000}


def make_project(folder: Path, num_rows: int) -> None:
    """The repository's workflow with a list of `num_rows` rows."""
    for name in ("Snakefile", "rules", "workflow", "profiles", "config"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    (folder / "src").symlink_to(ROOT / "src")
    write_list(folder, num_rows)


def write_list(folder: Path, num_rows: int) -> None:
    """Rows without a URL: a plan counts them and reads no further."""
    nulls = pa.nulls(min(num_rows, 1_000_000), pa.string())
    rows = pa.table({"URL": nulls, "TEXT": nulls})
    with pq.ParquetWriter(folder / "list.parquet", rows.schema) as writer:
        for _ in range(num_rows // len(rows)):
            writer.write_table(rows)
    # What is listed within the resolution of a file's time is listed again by the next plan.
    time.sleep(SETTLED_S)


def processor_s() -> float:
    """Processor time of the commands so far: unlike wall time, hardly touched by what else the machine does."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_runs(folder: Path, rows_per_part: int) -> list[str]:
    """Write the dataset, and runs of it that train with other seeds; the names of these."""
    dataset = yaml.safe_load((ROOT / "config/datasets/demo.yaml").read_text())
    del dataset["keep"]  # names columns that this list has not
    del dataset["scorers"]  # one job a part, not one a part and scorer
    dataset |= {"source": {"kind": "list", "path": "list.parquet"}, "rows_per_part": rows_per_part}
    (folder / "config/datasets/big.yaml").write_text(yaml.safe_dump(dataset))
    names = [f"big-{number}" for number in range(NUM_RUNS)]
    for number, name in enumerate(names):
        text = f"extends: demo\ndataset: big\nseed: {number}\n"
        (folder / f"config/runs/{name}.yaml").write_text(text)
    return names


def plan(folder: Path, rows_per_part: int, num_runs: int = 1) -> tuple[float, float, Counter[str]]:
    """Wall and processor seconds of a dry run, and the number of jobs of each rule."""
    names = ",".join(write_runs(folder, rows_per_part)[:num_runs])
    # What reading the rows once costs is measured by lists.py.
    snakemake(folder, names, "-n")
    begin, used = time.perf_counter(), processor_s()
    output = snakemake(folder, names, "-n")
    wall_s, used_s = time.perf_counter() - begin, processor_s() - used
    # The table of jobs stands at the beginning and at the end.
    table = output.split("Job stats:")[1].split("\n\n")[0]
    return (
        wall_s,
        used_s,
        Counter({name: int(number) for name, number in re.findall(r"^(\w+) +(\d+)$", table, re.M)}),
    )


def snakemake(folder: Path, names: str, *arguments: str) -> str:
    """What Snakemake prints of the runs `names`."""
    command = [sys.executable, "-m", "snakemake", *arguments, "--profile", "profiles/slurm"]
    command += ["--config", f"run={names}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return done.stdout + done.stderr


def plan_of_all_made(folder: Path, rows_per_part: int) -> tuple[float, float]:
    """Wall and processor seconds of a dry run where every file is there, of jobs that Snakemake has notes of."""
    name = write_runs(folder, rows_per_part)[0]
    outputs = re.findall(r"^    output: (.*)$", snakemake(folder, name, "-n"), re.MULTILINE)
    for path in (folder / path for paths in outputs for path in paths.split(", ")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix else path.mkdir(exist_ok=True)
    project = load_project(name, config=folder / "config")
    for stage in STAGES:
        upstream = {
            above: sha256_path(folder / path) for above, path in upstream_paths(project, stage).items()
        }
        body = {"stage": stage, "params": stage_settings(project, stage), "upstream": upstream}
        write_json(folder / manifest_path(project, stage), {**body, "parts": {}, "files": {}, "counts": {}})
    snakemake(folder, name, "--touch", "--forceall")
    begin, used = time.perf_counter(), processor_s()
    output = snakemake(folder, name, "-n")
    assert "Nothing to be done" in output and "missing provenance" not in output, output[-2000:]
    return time.perf_counter() - begin, processor_s() - used


def check(ours: Counter[str], many: Counter[str], peer: Counter[str], num_rows: int) -> list[str]:
    """What is wrong with the plans."""
    wrong = []
    if set(ours) != set(peer):
        wrong.append(f"the two plans have different rules: {sorted(set(ours) ^ set(peer))}")
    for jobs, parts in (
        (ours, num_rows // ROWS_A_PART),
        (peer, num_rows // PEERS_SHARE // ROWS_A_SHARD),
    ):
        found = {number for rule, number in jobs.items() if rule.endswith("_part")}
        if found != {parts}:
            wrong.append(f"a rule leaves rows out: {sorted(found)} jobs for {parts} parts")
    if ours["cache_part"] != many["cache_part"]:
        wrong.append("runs that agree do not share their cache")
    return wrong


def main() -> None:
    asked = race.arguments(__doc__)
    num_rows, largest = SIZES[asked.size], LARGEST[asked.size]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_project(folder, num_rows)
        wall_s, ours_s, ours = plan(folder, ROWS_A_PART)
        many_wall_s, many_s, many = plan(folder, ROWS_A_PART, NUM_RUNS)
        made_wall_s, made_s = plan_of_all_made(folder, ROWS_A_PART)
    with tempfile.TemporaryDirectory() as name:
        make_project(Path(name), num_rows // PEERS_SHARE)
        peer_wall_s, peer_s, peer = plan(Path(name), ROWS_A_SHARD)
    seconds = {
        "nothing made": (ours_s, wall_s),
        "everything made": (made_s, made_wall_s),
        "ten runs, nothing made": (many_s, many_wall_s),
        "a shard of 10,000 rows": (PEERS_SHARE * peer_s, PEERS_SHARE * peer_wall_s),
    }
    figures = [
        Figure("nothing made", "s", 4.0, ours_s),
        Figure("everything made", "s", 4.0, made_s),
        Figure("ten runs / one", "times", LIMIT_RATIO, many_s / ours_s),
        Figure(
            "a shard of 10,000 rows",
            "x",
            1.0,
            PEERS_SHARE * peer_s / ours_s,
            PEERS_SHARE * peer_wall_s / wall_s,
        ),
    ]
    if largest:
        with tempfile.TemporaryDirectory() as name:
            make_project(Path(name), largest)
            wall_s, used_s, _ = plan(Path(name), ROWS_A_PART)
        seconds["1e9 rows, nothing made"] = (used_s, wall_s)
        figures.append(Figure("1e9 rows, nothing made", "s", 10.0, used_s))
    told = f"{num_rows:,} rows in parts of {ROWS_A_PART:,}, CPU s"
    race.end(Result("plan", told, figures, seconds, check(ours, many, peer, num_rows)), asked.json)


if __name__ == "__main__":
    main()
