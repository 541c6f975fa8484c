"""The demo's prompts as a benchmark: GenEval's tasks on coloured shapes."""

from typing import Literal

from darkroom.benchmarks.base import Benchmark, PromptSet, Record
from darkroom.benchmarks.geneval import TASKS


class DemoPrompts(PromptSet):
    """Prompts of combinations that no picture of the demo world shows, with GenEval's metadata."""

    kind: Literal["demo"]


def _read(section: DemoPrompts) -> list[Record]:
    from darkroom_demo.prompts import prompt_records

    return prompt_records()


SPEC = Benchmark("demo", DemoPrompts, _read, TASKS)
