"""Yes/no questions of prompts: what they may be, and what an answer to one says of others."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from darkroom.benchmarks.questions import Question, has_questions, judged, questions_of
from darkroom.benchmarks.table import read_prompts
from darkroom.config.run import Draw


def test_a_question_is_a_text_or_a_record_and_a_list_may_be_json_in_a_cell() -> None:
    record = {"question": "Is it red?", "answer": "No", "category": "colour", "depends_on": 1}
    found = (Question("Is there a dog?"), Question("Is it red?", False, "colour", (0,)))
    given = [" Is there a dog? ", record]
    assert questions_of({"prompt": "p", "questions": given}) == found
    assert questions_of({"prompt": "p", "questions": json.dumps(given)}) == found
    padded = [{"question": "Is there a dog?", "answer": None, "category": None, "depends_on": None}, record]
    assert questions_of({"prompt": "p", "questions": padded}) == found
    assert [questions_of(r) for r in ({}, {"questions": None}, {"questions": " "}, {"questions": []})] == [
        ()
    ] * 4
    assert has_questions({"questions": 3}) and not has_questions({"questions": "[]"})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (3, "questions: is a int; write a list such as"),
        ("Is there a dog?", "questions: is no JSON"),
        ([3], "questions, number 1: is a int; it should be a text or a record"),
        (
            ["a?", {"questoin": "b?"}],
            "questions, number 2: unknown key 'questoin'; there are question, answer",
        ),
        ([{"category": "c"}], "number 1: 'question' is missing or no text"),
        ([{"question": "a?", "answer": "two"}], "'answer' is 'two'; it should be yes or no"),
        (
            [{"question": "a?", "category": "answered"}],
            "'category' is 'answered', which is no text or the name of",
        ),
        ([{"question": "a?", "category": "a_low"}], "'category' is 'a_low'"),
        (
            [{"question": "a?", "depends_on": 0}],
            "'depends_on' is 0; it should be the number of a question of this",
        ),
        (["a?", {"question": "b?", "depends_on": [1, 3]}], r"'depends_on' is \[1, 3\]; .*, 1 to 2"),
        ([{"question": "a?", "depends_on": 1}], "questions: depends_on goes in a circle: 1"),
        (
            [{"question": "a?", "depends_on": 2}, {"question": "b?", "depends_on": 1}],
            "depends_on goes in a circle: ",
        ),
    ],
)
def test_a_wrong_question_is_named_by_its_number(given: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        questions_of({"prompt": "p", "questions": given})


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_questions_are_a_column_of_a_prompt_file(tmp_path: Path, ending: str) -> None:
    questions = [{"question": "A dog?", "category": "entity"}, {"question": "Red?", "depends_on": [1]}]
    path = tmp_path / f"mine.{ending}"
    if ending == "jsonl":
        path.write_text(json.dumps({"prompt": "a red dog", "questions": questions}))
    elif ending == "csv":
        pl.DataFrame({"prompt": ["a red dog"], "questions": [json.dumps(questions)]}).write_csv(path)
    else:
        pl.DataFrame({"prompt": ["a red dog"], "questions": [questions]}).write_parquet(path)
    (record,) = read_prompts(Draw(prompts={"kind": "file", "path": str(path)}).prompts)
    expected = (Question("A dog?", category="entity"), Question("Red?", parents=(0,)))
    assert questions_of(json.loads(json.dumps(record))) == expected


def test_what_depends_on_something_wrong_is_wrong_and_on_something_unknown_is_unknown() -> None:
    # A chain told backwards: 3 <- 2 <- 1, and one that is asked for not to be there.
    chain = [
        Question("c", parents=(1,)),
        Question("b", parents=(2,)),
        Question("a"),
        Question("n", right=False),
    ]
    cases: dict[tuple[bool | None, ...], list[bool | None]] = {
        (True, True, True, False): [True, True, True, True],
        (True, True, False, True): [False, False, False, False],
        (True, True, None, False): [None, None, None, True],
        (False, True, None, False): [False, None, None, True],
        (None, False, True, None): [False, False, True, None],
    }
    for answers, expected in cases.items():
        assert judged(chain, answers) == expected
