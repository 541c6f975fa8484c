"""GenEval's prompts (arXiv 2310.11513): a JSON record a line, which says what the picture must hold.

A record has `tag` (the task), `include` (objects that must be there), perhaps `exclude`, and `prompt`.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from darkroom.benchmarks.base import Benchmark, PromptSet, Record, find_prompts
from darkroom.settings.json_texts import read_json

TASKS = {
    "single_object": "One object",
    "two_object": "Two objects",
    "counting": "Counting",
    "colors": "Colours",
    "position": "Position",
    "color_attr": "Colour binding",
}


class GenEvalPrompts(PromptSet):
    """GenEval's metadata: what each picture must show is known."""

    kind: Literal["geneval"]
    path: str | None = Field(
        None, description="metadata of your own, a JSON record a line; null: the 553 official prompts"
    )

    def files(self) -> list[Path]:
        """See `PromptSet`."""
        return [] if self.path is None else [find_prompts(self.path)]

    @property
    def called(self) -> str:
        """See `PromptSet`."""
        return "geneval" if self.path is None else self.path


def read_records(path: str | Path) -> list[Record]:
    """GenEval's metadata file: one JSON record a line.

    Raises:
        ValueError: a line is no record; names the file and the line.
    """
    records = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = read_json(line)
            check_record(record)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        records.append(record)
    return records


def asks_for_objects(record: Record) -> bool:
    """Whether a record says what its picture must hold: otherwise no picture can be wrong."""
    return bool(record.get("include") or record.get("exclude"))


def check_record(record: Any) -> None:
    """Raise a ValueError that says what of a metadata record is wrong."""
    if not isinstance(record, dict):
        raise ValueError('no record; it should look like {"tag": ..., "include": [...], "prompt": ...}')
    for key, kind in (("tag", str), ("include", list), ("prompt", str)):
        if not isinstance(record.get(key), kind):
            raise ValueError(f"{key!r} is missing or no {kind.__name__}")
    for key in ("include", "exclude"):
        for index, item in enumerate(record.get(key, [])):
            if not (isinstance(item, dict) and isinstance(item.get("class"), str)):
                raise ValueError(f"{key}[{index}] has no 'class'")
            if not (isinstance(item.get("count"), int) and item["count"] >= 1):
                raise ValueError(f"{key}[{index}] needs a 'count' of 1 or more")
            if "position" in item and not 0 <= item["position"][1] < index:
                raise ValueError(f"{key}[{index}] has a position relative to an object that comes later")


def _read(section: GenEvalPrompts) -> list[Record]:
    files = section.files()
    if files:
        return read_records(files[0])
    from darkroom.benchmarks.geneval_official import official_records

    return official_records()


SPEC = Benchmark("geneval", GenEvalPrompts, _read, TASKS)
