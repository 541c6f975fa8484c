"""Prompts of one's own: a text file with one a line, or a table with a `prompt` and other columns."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from darkroom.benchmarks.base import Benchmark, PromptFile, Record
from darkroom.rows import JSON_LINES, TABLES, read_rows

ONE_TASK = "prompts"
_EXAMPLE = '{"prompt": "a red circle"}'
# What GenEval's metadata says of a picture; a benchmark of that kind checks and judges it.
_OF_GENEVAL = ("include", "exclude")


class PromptsOfYours(PromptFile):
    """Prompts of your own, of which nothing but the text is known."""

    kind: Literal["file"]
    path: str = Field(
        description="a text file, one prompt a line, or a table (.jsonl, .csv, .parquet) with `prompt`, perhaps"
        " `tag` (its task), and any other columns, which are kept"
    )


def read_prompts(path: str | Path) -> list[Record]:
    """The prompts of a file in their order; empty lines are passed over.

    Raises:
        ValueError: a line or a row is no prompt, or there is none; names the file and the line.
    """
    path = Path(path)
    if path.suffix.lower() in (*JSON_LINES, *TABLES):
        records = [_record(path, number, values) for number, values in read_rows(path, ("prompt",), _EXAMPLE)]
    else:
        records = _lines(path)
    if not records:
        raise ValueError(f"{path}: holds no prompt; write one a line")
    return records


def _lines(path: Path) -> list[Record]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text in UTF-8 ({error.reason} at byte {error.start})") from None
    return [{"tag": ONE_TASK, "prompt": line.strip()} for line in lines if line.strip()]


def _record(path: Path, number: int, values: Mapping[str, Any]) -> Record:
    """A row of a table, without its empty cells."""
    # Of JSON lines, people count the lines.
    where = f"{path}, row {number}"
    record = {"tag": ONE_TASK, **{key: value for key, value in values.items() if value is not None}}
    for key in ("prompt", "tag"):
        if not (isinstance(record.get(key), str) and record[key].strip()):
            raise ValueError(f"{where}: {key!r} is missing or no text")
    for key, value in record.items():
        if key in _OF_GENEVAL and value:
            raise ValueError(
                f"{where}: {key!r} is GenEval's; write draw.prompts.kind: geneval, which judges by it"
            )
        if path.suffix.lower() in TABLES and not _is_plain(value):
            raise ValueError(
                f"{where}: {key!r} is a {type(value).__name__}; it should be text, a number, or lists and records"
                " of these"
            )
    return record


def _is_plain(value: Any) -> bool:
    """Whether a cell can be kept in a JSON record as it is."""
    if isinstance(value, list | dict):
        inner = value if isinstance(value, list) else value.values()
        return all(one is None or _is_plain(one) for one in inner)
    return isinstance(value, str | int | bool) or (isinstance(value, float) and math.isfinite(value))


SPEC = Benchmark(
    "file", PromptsOfYours, lambda section: read_prompts(section.files()[0]), {ONE_TASK: "Prompts"}
)
