"""What the commands of this folder share: the same work by ours and by named peers, in turn, and the ratio.

Every side runs in a process of its own, with one thread, a peer that is no dependency of ours in an environment
of its own (`peers`). First each gives its answer: where one is not ours, the command ends with status 1. Then all
do the work in turn, so that each sees what else the machine does, and the quickest repetition of each counts.

    python speed/ROW.py [--size smallest|small|large] [--repeats N] [--json FILE]
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import peers

ROOT = Path(__file__).parents[1]
OURS = "darkroom"
ONE_THREAD = dict.fromkeys(
    (
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"),
        *("RAYON_NUM_THREADS", "ARROW_NUM_THREADS", "ARROW_IO_THREADS"),
    ),
    "1",
)
# data-juicer installs what it lacks into the environment that runs it, which is the project's own.
NO_INSTALLS = {"UV_OFFLINE": "1", "PIP_NO_INDEX": "1"}
Sizes = Mapping[str, int]


def _same(ours: Any, theirs: Any) -> str | None:
    return None if ours == theirs else f"{theirs!r:.200} where ours is {ours!r:.200}"


@dataclass(frozen=True)
class Work:
    """What a side does, made ready: `run` is timed, `answer` (JSON, untimed) is compared."""

    run: Callable[[], Any]
    answer: Callable[[], Any]


@dataclass(frozen=True)
class Side:
    """One who does the work.

    Args:
        name: whose it is; the first side of a row is ours.
        start: folder and sizes -> the work; called in the side's own process, and not timed.
        goal: how many times as long as ours it is to take; None for ours.
        peer: the environment of `peers` that it needs; None where it is among our dependencies.
        is_tested: whether it is one of the smallest size too; not where another row has the same peer.
    """

    name: str
    start: Callable[[Path, Sizes], Work]
    goal: float | None = None
    peer: str | None = None
    is_tested: bool = True


@dataclass(frozen=True)
class Race:
    """A row of the table.

    Args:
        title: of the work.
        sizes: smallest (for tests), small (`make speed`) and large -> what `start` and `prepare` are told.
        sides: ours first.
        prepare: writes what all sides read into a folder.
        same: ours and another's answer -> None, or what is wrong with it.
        told: sizes -> what the work was, in words.
    """

    title: str
    sizes: Mapping[str, Sizes]
    sides: tuple[Side, ...]
    told: Callable[[Sizes], str]
    prepare: Callable[[Path, Sizes], None] = lambda folder, sizes: None
    same: Callable[[Any, Any], str | None] = _same


@dataclass
class Figure:
    """One line of the table: a ratio `x` of at least `goal`, or something of another unit, of at most that."""

    what: str
    unit: str
    goal: float
    value: float | None = None
    wall: float | None = None
    why_not: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the goal is; a peer that could not be had is no goal met."""
        if self.value is None:
            return False
        return self.value >= self.goal if self.unit == "x" else self.value <= self.goal


@dataclass
class Result:
    """What a command found."""

    title: str
    told: str
    figures: list[Figure]
    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def arguments(doc: str | None, argv: list[str] | None = None) -> argparse.Namespace:
    """The options of every command; `side` and `folder` are for processes that this starts."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--size", choices=("smallest", "small", "large"), default="large")
    parser.add_argument("--repeats", type=int, default=5, help="of each side; the quickest counts")
    parser.add_argument("--json", type=Path, help="write what was found there too")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(race: Race, doc: str | None) -> None:
    """Run a row's command; ends with 1 where answers differ."""
    asked = arguments(doc)
    sizes = race.sizes[asked.size]
    if asked.side is not None:
        serve(next(side for side in race.sides if side.name == asked.side), asked.folder, sizes)
        return
    with tempfile.TemporaryDirectory(prefix="speed-") as name:
        folder = Path(name)
        race.prepare(folder, sizes)
        result = measure(race, asked, folder)
    end(result, asked.json)


def end(result: Result, path: Path | None) -> None:
    """Print what was found, and end with its status."""
    print("\n".join(lines(result)))
    if path is not None:
        path.write_text(json.dumps(asdict(result)))
    sys.exit(bool(result.wrong))


def measure(race: Race, asked: argparse.Namespace, folder: Path) -> Result:
    """Answers, then seconds in turn."""
    sizes, sides = race.sizes[asked.size], [s for s in race.sides if s.is_tested or asked.size != "smallest"]
    result = Result(race.title, race.told(sizes), [])
    command = [sys.executable, sys.argv[0], "--size", asked.size, "--folder", str(folder)]
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        running: dict[str, _Process] = {}
        answers: dict[str, Any] = {}
        for side in sides:
            try:
                extra = peers.folder(side.peer) if side.peer else None
            except peers.NotHad as error:
                missing[side.name] = str(error)
                continue
            process = stack.enter_context(_Process([*command, "--side", side.name], extra))
            running[side.name], answers[side.name] = process, process.ask("answer")
        if OURS in missing:  # what it is to be measured with; then there is nothing to compare
            missing |= dict.fromkeys(running, missing[OURS])
            running, answers = {}, {}
        for name, answer in answers.items():
            if name != OURS and (wrong := race.same(answers[OURS], answer)):
                result.wrong.append(f"{name} gives another answer: {wrong}")
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
        for _ in range(0 if result.wrong else asked.repeats):
            for name, process in running.items():
                seconds[name].append(tuple(process.ask("run")))
    result.seconds = {
        name: (min(cpu for cpu, _ in found), min(wall for _, wall in found))
        for name, found in seconds.items()
        if found
    }
    for side in sides:
        if side.goal is not None:
            figure = Figure(side.name, "x", side.goal, why_not=missing.get(side.name, ""))
            if side.name in result.seconds:
                theirs, ours = result.seconds[side.name], result.seconds[OURS]
                figure.value, figure.wall = theirs[0] / ours[0], theirs[1] / ours[1]
            result.figures.append(figure)
    return result


def lines(result: Result) -> list[str]:
    """A result as text."""
    text = [f"{result.title}: {result.told}"]
    figures = {figure.what: figure for figure in result.figures}
    if result.seconds:
        text.append(f"{'':<24}{'CPU s':>9}{'wall s':>9}{'x CPU':>8}{'x wall':>8}{'goal':>7}")
    for name, (cpu, wall) in result.seconds.items():
        line = f"{name:<24}{cpu:>9.3f}{wall:>9.3f}"
        figure = figures.get(name)
        if figure is not None and figure.wall is not None:
            line += f"{figure.value:>8.2f}{figure.wall:>8.2f}{figure.goal:>7g}  {_verdict(figure)}"
        text.append(line)
    for figure in result.figures:
        if figure.why_not:
            text.append(f"{figure.what:<24}left out: {figure.why_not}")
        elif figure.wall is None and figure.value is not None:
            text.append(
                f"{figure.what:<24}{figure.value:>9.2f} {figure.unit}, goal {figure.goal:g}  {_verdict(figure)}"
            )
    text += [f"WRONG: {wrong}" for wrong in result.wrong]
    return text


def _verdict(figure: Figure) -> str:
    return "met" if figure.is_met else "missed"


def serve(side: Side, folder: Path, sizes: Sizes) -> None:
    """Be one side: do what standard input asks for until it ends."""
    # What libraries print must not come between.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    work = side.start(folder, sizes)
    for line in sys.stdin:
        if line.strip() == "answer":
            told = work.answer()
        else:
            begin, wall = _processor_s(), time.perf_counter()
            work.run()
            told = [_processor_s() - begin, time.perf_counter() - wall]
        channel.write(json.dumps(told) + "\n")
        channel.flush()


def _processor_s() -> float:
    """Of this process and of those it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(of.ru_utime + of.ru_stime for of in used)


class _Process:
    """One side's process, see `serve`."""

    def __init__(self, command: list[str], extra: Path | None) -> None:
        paths = [*([str(extra)] if extra else []), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        env = {**os.environ, **ONE_THREAD, **NO_INSTALLS, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - __exit__
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True, env=env
        )

    def ask(self, what: str) -> Any:
        """Its answer.

        Raises:
            SystemExit: the process ended; shows the end of what it said.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(what + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._said.seek(0)
            sys.exit(f"{' '.join(map(str, self._process.args))} ended:\n{self._said.read()[-3000:]}")  # type: ignore[arg-type]
        return json.loads(line)

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()
