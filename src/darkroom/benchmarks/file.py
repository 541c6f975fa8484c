"""Prompts of one's own: a text file with one a line, or JSON lines with a `prompt` and other columns."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from darkroom.benchmarks.base import Benchmark, PromptFile, Record
from darkroom.settings.json_texts import read_json

ONE_TASK = "prompts"
_JSON_LINES = (".jsonl", ".ndjson")
# What GenEval's metadata says of a picture; a benchmark of that kind checks and judges it.
_OF_GENEVAL = ("include", "exclude")


class PromptsOfYours(PromptFile):
    """Prompts of your own, of which nothing but the text is known."""

    kind: Literal["file"]
    path: str = Field(
        description="a text file, one prompt a line, or JSON lines (.jsonl) with `prompt`, perhaps `tag` (its"
        " task), and any other columns, which are kept"
    )


def read_prompts(path: str | Path) -> list[Record]:
    """The prompts of a file in their order; empty lines are passed over.

    Raises:
        ValueError: a line is no prompt, or there is none; names the file and the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text in UTF-8 ({error.reason} at byte {error.start})") from None
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            is_json = path.suffix.lower() in _JSON_LINES
            records.append(_from_json(line) if is_json else {"tag": ONE_TASK, "prompt": line.strip()})
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if not records:
        raise ValueError(f"{path}: holds no prompt; write one a line")
    return records


def _from_json(line: str) -> Record:
    value: Any = read_json(line)
    if not isinstance(value, dict):
        raise ValueError('no record; it should look like {"prompt": "a red circle"}')
    record = {"tag": ONE_TASK, **value}
    for key in ("prompt", "tag"):
        if not (isinstance(record.get(key), str) and record[key].strip()):
            raise ValueError(f"{key!r} is missing or no text")
    for key in _OF_GENEVAL:
        if record.get(key):
            raise ValueError(f"{key!r} is GenEval's; write draw.prompts.kind: geneval, which judges by it")
    return record


SPEC = Benchmark("file", PromptsOfYours, lambda section: read_prompts(section.find()), {ONE_TASK: "Prompts"})
