"""Yes/no questions about what a picture shows, in the column `questions` of prompts (DPG-Bench, TIFA, GenEval 2).

A question is a text, or a record with `question` and perhaps `answer` (yes or no, what is right; yes where it is
left out), `category`, and `depends_on`: the number of another question of the prompt, counted from 1, or several.
What depends on something that the picture does not show is not right either, whatever is answered to it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from darkroom.benchmarks.base import Record
from darkroom.settings.json_texts import read_json

COLUMN = "questions"
_ANSWERS = {"yes": True, "no": False}
_KEYS = ("question", "answer", "category", "depends_on")
# What scores of all categories are called, and what follows a score's name.
_TAKEN, _TAKEN_ENDINGS = ("answered",), ("_low", "_high")


@dataclass(frozen=True)
class Question:
    """One of a prompt's.

    Attributes:
        text: the question.
        right: the answer of a picture that shows what was asked for: yes (True) or no.
        category: "" where it has none.
        parents: places of the questions that it depends on.
    """

    text: str
    right: bool = True
    category: str = ""
    parents: tuple[int, ...] = ()


def questions_of(record: Record) -> tuple[Question, ...]:
    """A prompt's questions in their order; none where it has no such column.

    Raises:
        ValueError: one is wrong; says which, and what would be right.
    """
    given = record.get(COLUMN)
    if isinstance(given, str):
        # A cell of a CSV.
        try:
            given = read_json(given) if given.strip() else None
        except ValueError as error:
            raise ValueError(f"{COLUMN}: is no JSON ({error}); write a list such as {_EXAMPLE}") from None
    if given is None:
        return ()
    if not isinstance(given, list):
        raise ValueError(f"{COLUMN}: is a {type(given).__name__}; write a list such as {_EXAMPLE}")
    found = []
    for place, one in enumerate(given):
        try:
            found.append(_question(one, len(given)))
        except ValueError as error:
            raise ValueError(f"{COLUMN}, number {place + 1}: {error}") from None
    _in_order(found)
    return tuple(found)


def has_questions(record: Record) -> bool:
    """Whether a prompt has questions, though they may be wrong."""
    try:
        return bool(questions_of(record))
    except ValueError:
        return True


def judged(questions: Sequence[Question], said: Sequence[bool | None]) -> list[bool | None]:
    """Whether the answer to each question, and to all that it depends on, is the right one.

    Args:
        said: what was answered: yes (True) or no; None where that is not known.

    Returns:
        None where it cannot be told: nothing that is known is wrong, and something is not known.
    """
    found: list[bool | None] = [
        None if answer is None else answer == question.right
        for question, answer in zip(questions, said, strict=True)
    ]
    for place in _in_order(questions):
        needed = [found[place], *(found[parent] for parent in questions[place].parents)]
        found[place] = False if False in needed else None if None in needed else True
    return found


def _in_order(questions: Sequence[Question]) -> list[int]:
    """Places, each behind those that it depends on."""
    try:
        graph = {place: question.parents for place, question in enumerate(questions)}
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = ", ".join(str(place + 1) for place in error.args[1])
        raise ValueError(f"{COLUMN}: depends_on goes in a circle: {circle}") from None


def _question(given: Any, number: int) -> Question:
    record: Any = {"question": given} if isinstance(given, str) else given
    if not isinstance(record, Mapping):
        raise ValueError(f"is a {type(given).__name__}; it should be a text or a record such as {_EXAMPLE}")
    # Cells of a Parquet file's structs are there where they are empty.
    record = {key: value for key, value in record.items() if value is not None}
    if unknown := sorted(set(record) - set(_KEYS)):
        raise ValueError(f"unknown key {unknown[0]!r}; there are {', '.join(_KEYS)}")
    text, answer, category = (
        record.get(key, otherwise) for key, otherwise in zip(_KEYS, ("", "yes", ""), strict=False)
    )
    if not isinstance(text, str) or not text.strip():
        raise ValueError("'question' is missing or no text")
    if not isinstance(answer, str) or answer.strip().lower() not in _ANSWERS:
        raise ValueError(f"'answer' is {answer!r}; it should be yes or no")
    if not isinstance(category, str) or category in _TAKEN or category.endswith(_TAKEN_ENDINGS):
        raise ValueError(f"'category' is {category!r}, which is no text or the name of another score")
    parents = _parents(record.get("depends_on", []), number)
    return Question(text.strip(), _ANSWERS[answer.strip().lower()], category.strip(), parents)


def _parents(given: Any, number: int) -> tuple[int, ...]:
    several = given if isinstance(given, list) else [given]
    for one in several:
        if isinstance(one, bool) or not isinstance(one, int) or not 1 <= one <= number:
            raise ValueError(
                f"'depends_on' is {json.dumps(given)}; it should be the number of a question of this prompt,"
                f" 1 to {number}, or a list of them"
            )
    return tuple(sorted({one - 1 for one in several}))


_EXAMPLE = '[{"question": "Is there a dog?", "category": "entity"}]'
