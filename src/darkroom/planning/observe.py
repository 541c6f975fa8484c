"""What finished jobs took: Snakemake's benchmark files beside their logs, and how much each job did.

Nothing is taken of a stage whose manifest was made with other settings than the configuration's: nobody knows then
which settings its jobs took that time with.
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.config import ConfigError, Project, load_project
from darkroom.machine import LINE, last_used
from darkroom.planning import work
from darkroom.planning.observations import Observation
from darkroom.scorers.table import SCORERS
from darkroom.sources.table import is_fetched
from darkroom.stages import STAGES, folder, manifest_path, members, settings_problems
from darkroom.store import read_manifest
from darkroom.train.goodput import GOODPUT

# Of a stage with more jobs than this, some from its first to its last are looked at.
_NUM_JOBS = 64
_PART_STAGES = ("download", "filter", "recaption", "rewrite", "bucket", "cache")


def observe(root: Path = Path()) -> list[Observation]:
    """What the finished stages of all runs of a project took.

    root: a folder with config/, results/ and logs/; components and sources are the project's, here.
    """
    found: dict[tuple[str, float, str, str], Observation] = {}
    for path in sorted((root / "config/runs").glob("*.yaml")):
        try:
            project = load_project(path.stem, config=root / "config")
        except ConfigError:
            continue  # says so itself when it is asked for
        for stage in STAGES:
            for of in members(project, stage):
                for row in _of_stage(root, of, stage):
                    found[row.identity] = row
    return list(found.values())


def logs_of(of: Project, stage: str) -> Path:
    """Where a stage's logs lie: logs/runs/NAME/train for results/runs/NAME/train."""
    return Path("logs") / folder(of, stage).relative_to("results")


@dataclass(frozen=True)
class _Took:
    """What a job took, and on which machine.

    wall_s: with the waiting for cores that others had; seconds: without.
    """

    machine: str
    wall_s: float
    seconds: float
    cpu_s: float
    memory_mib: float | None

    def part(self, wall_s: float) -> "_Took":
        """What some of its time took, if all of it is alike."""
        share = wall_s / self.wall_s
        return _Took(self.machine, wall_s, self.seconds * share, self.cpu_s * share, None)


@dataclass(frozen=True)
class _Stage:
    """A finished stage: where it lies, whose it is, and its counts."""

    root: Path
    of: Project
    name: str
    counts: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.root / folder(self.of, self.name)

    def observation(
        self, name: str, key: str, units: float, file: Path, took: _Took, network_bytes: float | None = None
    ) -> Observation:
        """Of a job, told by its benchmark file and that file's time."""
        time = file.stat().st_mtime
        return Observation(
            self.name, name, key, took.machine, units, time, str(file), took.seconds, took.memory_mib, took.cpu_s,
            network_bytes=network_bytes,
        )  # fmt: skip


def _of_stage(root: Path, of: Project, stage: str) -> Iterator[Observation]:
    path = root / manifest_path(of, stage)
    if not path.exists():
        return
    try:
        body = read_manifest(path)
        if settings_problems(of, stage, body, path):
            return
    except (KeyError, ValueError):
        return
    here = _Stage(root, of, stage, body["counts"])
    folders = [logs_of(of, stage)]
    if stage == "measure":
        # Features of real pictures lie with the cache.
        folders += [logs_of(member, "cache").with_name(stage) for member in of.members]
    files = sorted(path for where in folders for path in (root / where).glob("*.tsv"))
    for file in files[:: -(-len(files) // _NUM_JOBS) or 1]:
        yield from _of_job(here, file)
    yield from _of_files(here, path)


def _of_job(here: _Stage, file: Path) -> Iterator[Observation]:
    took = _took(file)
    if took is None:
        return
    if here.name == "train":
        yield from _of_training(here, file, took)
    elif named := _named(here, file.stem):
        name, detail, units = named
        asked = work.asked_of(here.of).get(detail)
        key = work.features_key(here.of, asked) if asked else work.key_of(here.of, here.name, detail)
        fetched = _fetched(here, file.stem) if here.name == "download" else None
        yield here.observation(name, key, units, file, took, network_bytes=fetched)


def _named(here: _Stage, stem: str) -> tuple[str, str, float] | None:
    """What the work of a job is called, of which scorer, metric or features it is, and how much it did.

    stem: its log's name.
    """
    stage, of = here.name, here.of
    if stem == "urls":
        return "urls", "", _rows(here.folder.parent / "urls.parquet")
    if stage == "cache" and stem == "null":
        return "cache_null", "", 0.0
    if stage in _PART_STAGES and (table := here.folder / f"{stem}.parquet").exists():
        return f"{stage}_part", "", _rows(table)
    if stage == "score" and (name := stem.rpartition(".")[2]) in of.dataset.scorers.listed():
        rule = "score_dataset" if SCORERS[name].reads == "dataset" else "score_part"
        return f"{rule} {name}", name, _rows(here.folder / f"{stem}.parquet")
    if stage == "watch" and stem.startswith("step-"):
        assert of.run.watch is not None
        return "watch_step", "", float(work.drawn_pictures(of, of.run.watch.draw(of.run.draw).max_prompts))
    if stage == "draw":
        model, _, chunk = stem.partition("-")
        table = here.folder / "pictures" / model / f"{chunk}.parquet"
        return ("draw_chunk", "", _rows(table)) if table.exists() else None
    if stage == "measure":
        return _measured(of, stem)
    whole = {"evaluate": "evaluate_run", "report": "report_run"}.get(stage)
    return (whole, "", float(2 * work.drawn_pictures(of))) if whole else None


def _measured(of: Project, stem: str) -> tuple[str, str, float] | None:
    if stem in of.run.measure.chosen:
        return f"measure_metric {stem}", stem, float(2 * work.drawn_pictures(of))
    name, _, span = stem.rpartition(".")
    asked, (first, _, last) = work.asked_of(of).get(name), span.partition("-")
    return (work.features_work(of, asked), name, float(int(last) - int(first))) if asked else None


def _of_training(here: _Stage, file: Path, took: _Took) -> Iterator[Observation]:
    """A training in what a step takes, what a pause takes, and the rest, by its own account of its time."""
    settings, key, account = here.of.run.train, work.key_of(here.of, "train"), file.with_name(GOODPUT)
    if here.of.run.watch is not None:
        yield here.observation(work.AFTER_LEGS, key, 0.0, file, took)
        return
    if not account.is_file():
        return
    spent = json.loads(account.read_text(encoding="utf-8"))
    steps, beside = spent["steps"] + spent["waiting"], spent["beside"]
    samples = float(settings.num_steps * settings.global_batch_size)
    pauses = float(settings.num_steps // settings.checkpoint_every_steps + 1)
    if steps > 0:
        yield here.observation(work.STEPS, key, samples, file, took.part(steps))
    if beside > 0:
        yield here.observation(work.BESIDE, key, pauses, file, took.part(beside))
    # Of a training of several starts, the benchmark tells of the last alone.
    rest = took.wall_s - steps - beside
    if rest > 0 and not spent["stopped"] and not spent["repeated"]:
        yield here.observation(
            work.START, key, 0.0, file, replace(took.part(rest), memory_mib=took.memory_mib)
        )


def _of_files(here: _Stage, manifest: Path) -> Iterator[Observation]:
    """What a stage left on the disk, which no machine changes; and how many pictures it has kept."""
    of, stage, root = here.of, here.name, here.root

    def left(name: str, units: float, count: float, detail: str = "") -> Observation:
        key, time = work.key_of(of, stage, detail), manifest.stat().st_mtime
        return Observation(stage, name, key, "", units, time, str(manifest), count=count)

    if stage == "score":
        for name in of.dataset.scorers.listed():
            files = [path for path in here.folder.rglob("*") if name in path.name.split(".")]
            rows = sum(_rows(path) for path in files if path.suffix == ".parquet")
            yield left(f"{work.FILES} {name}", rows, _bytes(files), name)
        yield left(work.FILES, 0.0, _bytes([manifest]))
    else:
        yield left(work.FILES, _units(here), _bytes(_files(here)))
    if stage == "train":
        yield left(work.CHECKPOINTS, 0.0, _bytes([*(root / "checkpoints" / of.name).rglob("*")]))
    counts = here.counts
    if stage == "filter" and counts["rows"]:
        yield left(work.KEPT, float(counts["rows"]), float(counts["kept"]))
    above = root / folder(of, "filter") / "manifest.json" if stage == "cache" else None
    if above is not None and above.exists() and (kept := read_manifest(above)["counts"]["kept"]):
        yield left(work.CACHED, float(kept), float(counts["pictures"]))


def _units(here: _Stage) -> float:
    """How much a whole stage did."""
    if here.name in _PART_STAGES:
        return sum(_rows(path) for path in here.folder.glob("part-*.parquet"))
    run = here.of.run
    if here.name == "train":
        return float(run.train.num_steps)
    if here.name == "watch":
        assert run.watch is not None
        return float(len(run.watch.steps(run.train.num_steps)))
    return float(2 * work.drawn_pictures(here.of))


def _files(here: _Stage) -> list[Path]:
    """The files of a stage, with those that lie outside of its folder."""
    files = [*here.folder.rglob("*")]
    if here.name == "download":
        files.append(here.folder.parent / "urls.parquet")
    if here.name == "measure":
        folders = [here.folder.with_name("features")]
        folders += [here.root / folder(of, "cache").with_name("features") for of in here.of.members]
        names = tuple(work.asked_of(here.of))
        files += [path for where in folders for path in where.glob("*") if path.name.startswith(names)]
    return files


def _bytes(paths: list[Path]) -> float:
    return float(sum(path.stat().st_size for path in paths if path.is_file()))


def _rows(table: Path) -> float:
    return float(pl.scan_parquet(table).select(pl.len()).collect().item()) if table.exists() else 0.0


def _fetched(here: _Stage, stem: str) -> float | None:
    """Bytes that a part fetched from the web."""
    table = here.folder / f"{stem}.parquet"
    if not is_fetched(here.of.dataset.source) or not table.exists():
        return 0.0
    return float(pl.scan_parquet(table).select(pl.col("num_bytes").sum()).collect().item())


def _took(file: Path) -> _Took | None:
    """What a job took, by its benchmark and by the end of its log; None where one of them does not tell."""
    try:
        log = file.with_suffix(".log").read_text(encoding="utf-8", errors="replace").splitlines()
        with open(file, encoding="utf-8", newline="") as opened:
            row = list(csv.DictReader(opened, delimiter="\t"))[-1]
        seconds, sampled = float(row["s"]), row.get("max_rss", "")
    except (OSError, IndexError, KeyError, TypeError, ValueError):
        return None
    # A job may have been started more than once: the last time counts.
    machine = next((line.removeprefix(LINE) for line in reversed(log) if line.startswith(LINE)), None)
    used = last_used(log)
    if machine is None or used is None or seconds <= 0 or used.waiting == 1:
        return None
    # Each sees less than all: one looks now and then, the other at no process but its own.
    memory = max(used.memory_mib, float(sampled) if re.fullmatch(r"[\d.]+", sampled) else 0.0)
    # A process also waits while it ends, when nobody can tell any more.
    return _Took(machine, seconds, seconds * (1 - used.waiting), used.cpu_s, memory or None)
