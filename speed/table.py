"""Every row of the table, one after another, with the goals; `make speed` runs it, and writes docs/speed.md.

Ends with 1 where an answer differs or a goal is missed: of a peer that cannot be had here, too.

    python speed/table.py [--size smallest|small|large] [--out docs/speed.md] [--only ROW.py ...]
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from race import ROOT, Figure

ROWS = (
    ("latents.py", 5),
    ("loader.py", 5),
    ("start.py", 1),
    ("score_select_bucket.py", 5),
    ("scoring.py", 3),
    ("judges.py", 2),
    ("funnel.py", 5),
    ("pictures.py", 5),
    ("frechet.py", 2),
    ("train_step.py", 3),
    ("job_imports.py", 3),
    ("plan.py", 1),
)
"""Command, and how often each side repeats the work."""

HEAD = """# Speed

What darkroom does against named peers: the same work in the same run, one thread a side, in turn, the quickest of
several repetitions. A ratio is the peer's processor seconds divided by ours, and above 1 ours is faster; lost rows
stand here like won ones. `make speed` measures everything again and writes this page; `python speed/ROW.py` is
one row. Every command first compares the answers, and ends with status 1 where they differ. A peer that is no
dependency of darkroom's is installed in its pinned version into a folder of its own (`speed/peers.py`), and runs
with the same PyTorch and NumPy. For a row without a peer the goal is in seconds.

"""

PROFILES = """
## Where the time goes

By profile, of rows that lose or miss their goal:

- Reading: nearly all is the system's copy out of the files into the batch. In the whole loader the noise takes
  half; the peers make none.
- Score, select and bucket: half is writing four tables, each with its uids in hex, where the query writes one.
- Scores of one call each: decoding is 2.5 ms of a picture's 31 (`unsafe`), 120 (`faces`) or 210 ms
  (`text_in_picture`). open-nsfw itself takes 22, and no less in batches. What ours adds, the weights' digest and a
  file of scores for each part, 8 pictures and 60 captions do not hide.
- Funnel: two thirds are reading, the rows' numbers too, which show that each row is there once; the query leaves
  them out.
- Imports: of the jobs of cache and training 3.6 s are diffusers' `AutoencoderKL` alone, whose packages import all
  their models, peft, xformers, torch._dynamo and parts of scipy.
- Plan, nothing made: not explained. One run took 37 s on the day where ten took 8, and 5.7 s an hour before.

## On a GPU

`bash speed/gpu.sh --out FOLDER` takes at most eight minutes on one GPU: steps a second, TFLOP/s and MFU of
trainings of SD2, SDXL, SD3-M, our MMDiT and Flux with LoRA, attention operators against each other with equal
results, VAEs and text encoders, NCCL, and the tests that are skipped without a GPU. Weights are random,
architectures the published ones. `python speed/gpu.py --dry` does the same with small networks on a CPU. No GPU
was at hand yet, so no figure stands here.
"""


def run(script: str, size: str, repeats: int) -> dict[str, Any]:
    """What a command found; of one that failed, what it said."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "found.json"
        command = [sys.executable, str(ROOT / "speed" / script), "--size", size, "--repeats", str(repeats)]
        done = subprocess.run(
            [*command, "--json", str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        print(done.stdout, flush=True)
        if path.exists():
            return dict(json.loads(path.read_text()))
    said = done.stdout.strip().splitlines()
    return {"title": script, "told": "", "figures": [], "wrong": [said[-1] if said else "it ended"]}


def figures_of(result: dict[str, Any]) -> list[Figure]:
    return [Figure(**values) for values in result["figures"]]


def cells(script: str, result: dict[str, Any]) -> list[str]:
    """The lines of the page for one row."""
    work = f"[{result['title']}](../speed/{script}): {result['told']}"
    text = []
    for figure in figures_of(result):
        value = "-" if figure.value is None else f"{figure.value:.2f} {figure.unit}"
        wall = "" if figure.wall is None else f"{figure.wall:.2f} x"
        goal = f"{figure.goal:g} {figure.unit}"
        verdict = (
            f"not measured: {figure.why_not}" if figure.why_not else "met" if figure.is_met else "missed"
        )
        text.append(f"| {work} | {figure.what} | {value} | {wall} | {goal} | {verdict} |")
        work = ""
    text += [f"| {work} | | | | | wrong: {wrong} |" for wrong in result["wrong"]]
    return text


def page(found: dict[str, dict[str, Any]], size: str, summary: str) -> str:
    """docs/speed.md."""
    lines = ["| Work | Peer, or what | CPU | Wall | Goal | |", "|---|---|---|---|---|---|"]
    lines += [line for script, result in found.items() for line in cells(script, result)]
    where = f"Measured on {processor()}, Python {platform.python_version()}, sizes `{size}`. {summary}"
    return HEAD + "\n".join(lines) + f"\n\n{where}\n" + PROFILES


def processor() -> str:
    """What /proc says it is."""
    path = Path("/proc/cpuinfo")
    names = [line for line in path.read_text().splitlines() if line.startswith("model name")]
    return f"{len(names)} cores of {names[0].partition(':')[2].strip()}" if names else platform.machine()


def replaced(text: str, script: str, lines: list[str], where: str) -> str:
    """The page with other lines for one row, or with a new row, and a note of where that was measured."""
    rows = text.split("\n")
    begin = next((at for at, row in enumerate(rows) if f"](../speed/{script}): " in row), None)
    if begin is None:
        begin = end = max(at for at, row in enumerate(rows) if row.startswith("|")) + 1
    else:
        end = next(at for at in range(begin + 1, len(rows)) if not rows[at].startswith("|  |"))
    rows[begin:end] = lines
    before, heading, after = "\n".join(rows).partition("\n## ")
    paragraphs = [one for one in before.split("\n\n") if not one.startswith(f"Measured apart: {script} on ")]
    note = f"Measured apart: {script} on {where}."
    return "\n\n".join([*(one.rstrip("\n") for one in paragraphs), note]) + "\n" + heading + after


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("smallest", "small", "large"), default="small")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/speed.md", help="the page to write")
    parser.add_argument(
        "--only", nargs="+", choices=[row for row, _ in ROWS], help="measure these, keep the others"
    )
    asked = parser.parse_args()
    begin = time.monotonic()
    rows = [row for row in ROWS if asked.only is None or row[0] in asked.only]
    found = {script: run(script, asked.size, repeats) for script, repeats in rows}
    figures = [figure for result in found.values() for figure in figures_of(result)]
    num_met, wrong = sum(figure.is_met for figure in figures), [w for r in found.values() for w in r["wrong"]]
    summary = f"{num_met} of {len(figures)} goals met."
    if asked.only is None:
        asked.out.write_text(page(found, asked.size, summary))
    for script in asked.only or ():
        where = f"{processor()}, sizes `{asked.size}`"
        asked.out.write_text(replaced(asked.out.read_text(), script, cells(script, found[script]), where))
    print(f"written: {asked.out}, in {(time.monotonic() - begin) / 60:.0f} minutes")
    print(*(f"WRONG: {what}" for what in wrong), sep="\n", end="\n" if wrong else "")
    print(summary)
    sys.exit(bool(wrong) or num_met < len(figures))


if __name__ == "__main__":
    main()
