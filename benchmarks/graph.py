"""How long `snakemake -n` plans a dataset of 1e8 pictures: a job a part of 500,000 rows, against a job a shard.

The peer is the same Snakemake with the unit of work that dataset tools use, a shard of 10,000 rows (img2dataset's
default). Both plans must have the same rules, and cover every row.

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

ROOT = Path(__file__).parents[1]
NUM_ROWS = 100_000_000
ROWS_A_PART, ROWS_A_SHARD = 500_000, 10_000
LIMIT_S = 10.0


def make_project(folder: Path) -> None:
    """The repository's workflow with a list of NUM_ROWS rows, whose contents no plan looks at."""
    for name in ("Snakefile", "rules", "workflow", "profiles", "config", "src"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    rows = pa.table({"URL": pa.nulls(1_000_000, pa.string()), "TEXT": pa.nulls(1_000_000, pa.string())})
    with pq.ParquetWriter(folder / "list.parquet", rows.schema) as writer:
        for _ in range(NUM_ROWS // len(rows)):
            writer.write_table(rows)


def processor_s() -> float:
    """Processor time of the commands so far: unlike wall time, hardly touched by what else the machine does."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def plan(folder: Path, rows_per_part: int) -> tuple[float, float, Counter[str]]:
    """Wall and processor seconds of a dry run, and the number of jobs of each rule."""
    dataset = yaml.safe_load((ROOT / "config/datasets/demo.yaml").read_text())
    dataset |= {"source": {"kind": "list", "path": "list.parquet"}, "rows_per_part": rows_per_part}
    (folder / "config/datasets/big.yaml").write_text(yaml.safe_dump(dataset))
    (folder / "config/runs/big.yaml").write_text("extends: demo\ndataset: big\n")
    command = [sys.executable, "-m", "snakemake", "-n", "--profile", "profiles/slurm", "--config", "run=big"]
    begin, used = time.perf_counter(), processor_s()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    wall_s, used_s = time.perf_counter() - begin, processor_s() - used
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    # The table of jobs stands at the beginning and at the end.
    table = (done.stdout + done.stderr).split("Job stats:")[1].split("\n\n")[0]
    return (
        wall_s,
        used_s,
        Counter({name: int(number) for name, number in re.findall(r"^(\w+) +(\d+)$", table, re.M)}),
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_project(folder)
        wall_s, ours_s, ours = plan(folder, ROWS_A_PART)
        peer_wall_s, peer_s, peer = plan(folder, ROWS_A_SHARD)
    assert set(ours) == set(peer), "the two plans have different rules"
    for jobs, rows in ((ours, ROWS_A_PART), (peer, ROWS_A_SHARD)):
        parts = {number for rule, number in jobs.items() if rule.endswith("_part")}
        assert parts == {NUM_ROWS // rows}, "a rule leaves rows out"
    print(f"{'':<34}{'jobs':>8}{'wall s':>9}{'CPU s':>9}")
    print(f"{'a part of 500,000 rows (ours)':<34}{ours['total']:>8,}{wall_s:>9.1f}{ours_s:>9.1f}")
    print(f"{'a shard of 10,000 rows (the peer)':<34}{peer['total']:>8,}{peer_wall_s:>9.1f}{peer_s:>9.1f}")
    print(f"the peer takes {peer_s / ours_s:.1f} times as long; ours is to take less than {LIMIT_S:.0f} s")
    sys.exit(ours_s > LIMIT_S)


if __name__ == "__main__":
    main()
