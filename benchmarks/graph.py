"""How long `snakemake -n` plans a dataset of 1e8 pictures: a job a part of 500,000 rows, against a job a shard.

The peer is the same Snakemake with the unit of work that dataset tools use, a shard of 10,000 rows (img2dataset's
default). Both plans must have the same rules, and cover every row. Ten runs of the dataset that train otherwise
are planned in one command, and must cost less than two. Where everything is made, nothing may be to do.

    python benchmarks/graph.py
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
import yaml

from darkroom.config import load_project
from darkroom.stages import STAGES, manifest_path, stage_settings, upstream_paths
from darkroom.store import sha256_path, write_json

ROOT = Path(__file__).parents[1]
NUM_ROWS = 100_000_000
ROWS_A_PART, ROWS_A_SHARD = 500_000, 10_000
LIMIT_S = 10.0
NUM_RUNS, LIMIT_RATIO = 10, 2.0


def make_project(folder: Path, num_rows: int = NUM_ROWS) -> None:
    """The repository's workflow with a list of `num_rows` rows."""
    for name in ("Snakefile", "rules", "workflow", "profiles", "config"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    (folder / "src").symlink_to(ROOT / "src")
    nulls = pa.nulls(min(num_rows, 1_000_000), pa.string())
    rows = pa.table({"URL": nulls, "TEXT": nulls})
    with pq.ParquetWriter(folder / "list.parquet", rows.schema) as writer:
        for _ in range(num_rows // len(rows)):
            writer.write_table(rows)


def processor_s() -> float:
    """Processor time of the commands so far: unlike wall time, hardly touched by what else the machine does."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_runs(folder: Path, rows_per_part: int) -> list[str]:
    """Write the dataset, and runs of it that train with other seeds; the names of these."""
    dataset = yaml.safe_load((ROOT / "config/datasets/demo.yaml").read_text())
    del dataset["keep"]  # names columns that this list has not
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


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_project(folder)
        wall_s, ours_s, ours = plan(folder, ROWS_A_PART)
        many_wall_s, many_s, many = plan(folder, ROWS_A_PART, NUM_RUNS)
        peer_wall_s, peer_s, peer = plan(folder, ROWS_A_SHARD)
        made_wall_s, made_s = plan_of_all_made(folder, ROWS_A_PART)
    assert set(ours) == set(peer), "the two plans have different rules"
    for jobs, rows in ((ours, ROWS_A_PART), (peer, ROWS_A_SHARD)):
        parts = {number for rule, number in jobs.items() if rule.endswith("_part")}
        assert parts == {NUM_ROWS // rows}, "a rule leaves rows out"
    assert ours["cache_part"] == many["cache_part"], "runs that agree do not share their cache"
    print(f"{'':<34}{'jobs':>8}{'wall s':>9}{'CPU s':>9}")
    print(f"{'a part of 500,000 rows (ours)':<34}{ours['total']:>8,}{wall_s:>9.1f}{ours_s:>9.1f}")
    print(f"{'the same, ten runs in one command':<34}{many['total']:>8,}{many_wall_s:>9.1f}{many_s:>9.1f}")
    print(f"{'the same, everything made':<34}{0:>8,}{made_wall_s:>9.1f}{made_s:>9.1f}")
    print(f"{'a shard of 10,000 rows (the peer)':<34}{peer['total']:>8,}{peer_wall_s:>9.1f}{peer_s:>9.1f}")
    print(f"the peer takes {peer_s / ours_s:.1f} times as long; ours is to take less than {LIMIT_S:.0f} s")
    print(
        f"ten runs take {many_s / ours_s:.2f} times as long as one, and are to take less than {LIMIT_RATIO:.0f}"
    )
    sys.exit(ours_s > LIMIT_S or many_s > LIMIT_RATIO * ours_s)


if __name__ == "__main__":
    main()
