"""The table of benchmarks: `draw.prompts.kind` names one. A new one is a file beside it and a place in it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.benchmarks import file, geneval
from darkroom.benchmarks.base import PromptSet, Record
from darkroom.kinds import table
from darkroom.settings.unions import one_of

BENCHMARKS = table("darkroom.benchmarks", geneval.SPEC, file.SPEC)

if TYPE_CHECKING:
    Prompts = PromptSet
else:
    Prompts = one_of({name: benchmark.section for name, benchmark in BENCHMARKS.items()})


def read_prompts(prompts: PromptSet, max_prompts: int = 0) -> list[Record]:
    """The records that a section names, the first `max_prompts` of each task (0: all), in their order.

    Raises:
        ValueError: a file is missing, or a line of it is wrong; says which.
    """
    records = BENCHMARKS[str(prompts.kind)].read(prompts)
    if not max_prompts:
        return records
    seen: dict[str, int] = {}
    kept = []
    for record in records:
        seen[record["tag"]] = seen.get(record["tag"], 0) + 1
        if seen[record["tag"]] <= max_prompts:
            kept.append(record)
    return kept


def prompt_files(prompts: PromptSet) -> list[Path]:
    """The files that the records are read from."""
    return prompts.files()


def prompts_name(prompts: PromptSet) -> str:
    """What a protocol calls the prompts: the kind, or the file as the configuration names it."""
    return prompts.called


def ordered_tasks(tasks: Iterable[str]) -> list[str]:
    """The different tasks in their benchmarks' order, unknown ones behind."""
    present = set(tasks)
    known = list(dict.fromkeys(tag for b in BENCHMARKS.values() for tag in b.tasks))
    return [tag for tag in known if tag in present] + sorted(present - set(known))


def task_label(tag: str) -> str:
    """What a report calls a task."""
    return next((b.tasks[tag] for b in BENCHMARKS.values() if tag in b.tasks), tag)
