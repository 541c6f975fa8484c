"""A training made to overfit: does judging on the way find its best step, and what does judging cost it?

A few of the demo's pictures, many times over. Steps are judged by all prompts while the training goes on, each
side on a core of its own. Prints

- the steps' scores, and how far below the best of all is the GenEval of the step that has the lowest validation
  loss, and of the one that a few prompts of each task choose;
- how much the validation loss varies from one time to the next, beside the loss of the training;
- the training's rate with judging beside it, and without: the same first steps once more.

Needs two cores, and half an hour or more.

    python trials/overfitting.py FOLDER
    python trials/overfitting.py FOLDER --steps 400 --every 100 --scenes 200 --few 2
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

ROOT = Path(__file__).parents[1]
VALIDATED_EVERY_STEPS = 10
# The losses of the first steps fall too steeply to tell how much they vary.
WARM_UP_STEPS = 100
RATE = re.compile(r"^train: step (\d+)/\d+, .*?([\d.]+) img/s", re.MULTILINE)


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def prepare(folder: Path, asked: argparse.Namespace) -> None:
    """A clone of the project, with a small dataset."""
    if not folder.exists():
        subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    dataset = yaml.safe_load((folder / "config/datasets/demo.yaml").read_text(encoding="utf-8"))
    dataset["source"] |= {"num_scenes": asked.scenes, "num_digits": 0, "num_photos": 0}
    dataset["description"] = "A few of the demo's scenes"
    write_yaml(folder / "config/datasets/few.yaml", dataset)


def write_run(folder: Path, name: str, num_steps: int, watch: dict[str, Any] | None) -> None:
    """The run's file; `watch` is what its section has besides `best`."""
    train = {
        "num_steps": num_steps,
        "num_threads": 1,
        "log_every_steps": VALIDATED_EVERY_STEPS,
        "sample_every_steps": 0,
        "sample_prompts": [],
        "validation": {"share": 0.15, "every_steps": VALIDATED_EVERY_STEPS},
    }
    run: dict[str, Any] = {
        "extends": "demo",
        "description": "Made to overfit",
        "dataset": "few",
        "train": train,
    }
    if watch is not None:
        run |= {"draw": {"num_threads": 1}, "watch": {"best": "geneval", **watch}}
    write_yaml(folder / f"config/runs/{name}.yaml", run)


def make(folder: Path, run: str, *targets: str) -> None:
    """Run the project's workflow in the folder, with this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    fixed = {"PATH": path, "PYTHONPATH": str(folder / "src"), "SNAKEMAKE_PROFILE": "profiles/local"}
    command = ["snakemake", "--cores", "2", "--config", f"run={run}", "--", *targets]
    subprocess.run(command, cwd=folder, env=os.environ | fixed, check=True)


def judge(folder: Path, asked: argparse.Namespace, max_prompts: int) -> pl.DataFrame:
    """The steps' scores by so many prompts of each task, 0: by all; trains where no training is yet."""
    write_run(folder, "overfitted", asked.steps, {"every_steps": asked.every, "max_prompts": max_prompts})
    make(folder, "overfitted", "watch")
    return pl.read_csv(folder / "results/runs/overfitted/watch/steps.csv")


def rates(folder: Path, run: str, last_step: int) -> list[float]:
    """Pictures a second between lines of the log, up to a step, without the first of each job."""
    found = []
    for path in sorted((folder / "logs").rglob("train*.log")):
        if run in path.parts:
            told = RATE.findall(path.read_text(encoding="utf-8"))
            found += [float(rate) for step, rate in told[1:] if int(step) <= last_step]
    return found


def jitter(values: list[float]) -> float:
    """Variance of values about a trend: of third differences, which no parabola has; they add up 20 times it."""
    return float(np.square(np.diff(values, 3)).mean()) / 20


def tell_steps(by_all: pl.DataFrame, by_few: pl.DataFrame) -> None:
    """The scores, and what choosing by less than all of them costs."""
    print(by_all.select("step", "geneval", "geneval_low", "geneval_high", "validation_loss"))
    steps, scores = by_all["step"].to_list(), by_all["geneval"].to_list()
    print(f"best of all: step {steps[scores.index(max(scores))]}, GenEval {max(scores):.3f}")
    lowest, few = by_all["validation_loss"].arg_min(), by_few["geneval"].arg_max()
    for name, place in (("the lowest validation loss", lowest), ("GenEval on a few prompts", few)):
        assert place is not None
        below = max(scores) - scores[place]
        print(f"{name} chooses step {steps[place]}: GenEval {scores[place]:.3f}, {below:.3f} below the best")
    print(f"the last step: GenEval {scores[-1]:.3f}")


def tell_losses(folder: Path) -> None:
    """How much the losses vary from one time to the next."""
    history = pl.read_parquet(folder / "results/runs/overfitted/train/history.parquet")
    history = history.filter(pl.col("step") > WARM_UP_STEPS)
    validation = history["validation_loss"].drop_nulls().to_list()
    training = history["loss"].to_list()
    of_training, of_validation = jitter(training), jitter(validation)
    print(
        f"variance about the trend: training loss {of_training:.3g}, validation loss {of_validation:.3g},"
        f" 1/{of_training / of_validation:.0f} of it"
    )


def tell_rates(judged: list[float], alone: list[float]) -> None:
    """What judging costs the training, over the steps that were trained without it as well."""
    beside, without = statistics.median(judged), statistics.median(alone)
    print(f"{beside:.1f} pictures/s judged, {without:.1f} alone: {beside / without - 1:+.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where to work; a clone of the project is made there")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--every", type=int, default=100, help="steps from one that is judged to the next")
    parser.add_argument("--scenes", type=int, default=260, help="pictures")
    parser.add_argument("--few", type=int, default=6, help="prompts of each task that choose a step, too")
    parser.add_argument(
        "--alone", type=int, default=400, help="steps that are trained without judging as well"
    )
    asked = parser.parse_args()
    prepare(asked.folder, asked)
    by_all = judge(asked.folder, asked, 0)
    # Now: a job that judges again writes another log.
    judged = rates(asked.folder, "overfitted", asked.alone)
    write_run(asked.folder, "alone", asked.alone, None)
    make(asked.folder, "alone", "train")
    tell_steps(by_all, judge(asked.folder, asked, asked.few))
    tell_losses(asked.folder)
    tell_rates(judged, rates(asked.folder, "alone", asked.alone))


if __name__ == "__main__":
    main()
