"""The VLM judge's section of the configuration, and what its values are as scores."""

import json
import re
from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest
import yaml
from doc_pages import DOCS, blocks
from pydantic import ValidationError

from darkroom.benchmarks.questions import Question, questions_of
from darkroom.evaluate.comparison import comparison_markdown
from darkroom.evaluate.scores import difference, score, score_names
from darkroom.metrics.table import METRICS, split_by_applicability
from darkroom.metrics.vlm_judge import VlmJudge
from darkroom.report.table import results_markdown

SPEC = METRICS["vlm_judge"]
NO_QUESTIONS = {"tag": "prompts", "prompt": "anything"}


def test_scores_by_category_have_intervals_over_prompts_and_pictures_without_a_score_are_in_none() -> None:
    rows = [("trained", 0, 0, 1.0), ("trained", 0, 1, None), ("trained", 1, 0, 0.5), ("trained", 1, 1, 0.0),
            ("trained", 2, 0, None), ("trained", 2, 1, None),
            ("untrained", 0, 0, 0.5), ("untrained", 0, 1, 0.0), ("untrained", 1, 0, 0.0),
            ("untrained", 1, 1, None), ("untrained", 2, 0, 1.0), ("untrained", 2, 1, 1.0)]  # fmt: skip
    table = pl.DataFrame(rows, ["model", "prompt_index", "picture", "vlm_judge"], orient="row").with_columns(
        pl.lit(1.0).alias("vlm_judge_answered"),
        pl.when(pl.col("model") == "trained").then(pl.col("vlm_judge")).alias("vlm_judge.colour"),
        tag=pl.lit("prompts"),
    )
    tables = {"vlm_judge": table}
    trained, untrained = (
        score(model, table, tables, 200, 0)["vlm_judge"] for model in ("trained", "untrained")
    )
    # Each prompt counts once, by its pictures that have a score.
    assert trained["vlm_judge"] == pytest.approx((1 + 0.25) / 2)
    assert untrained["vlm_judge"] == pytest.approx((0.25 + 0 + 1) / 3)
    assert (trained["vlm_judge_low"], trained["vlm_judge_high"]) == (0.25, 1)
    gap = difference("trained", "untrained", table, tables, 200, 0)["vlm_judge"]
    # By the pictures that both have: 0.5 of the first prompt, 0.5 of the second.
    assert gap["vlm_judge"] == gap["vlm_judge_low"] == gap["vlm_judge_high"] == 0.5
    assert "vlm_judge.colour" in trained and "vlm_judge.colour" not in {**untrained, **gap}
    names = {"vlm_judge": "VLM judge, all questions", "vlm_judge_answered": "VLM judge, answered",
             "vlm_judge.colour": "VLM judge, colour"}  # fmt: skip
    assert score_names(SPEC, trained) == names
    body = {"trained": {"vlm_judge": trained}, "untrained": {"vlm_judge": untrained}, "protocol": {}}
    assert "| VLM judge, colour | 0.625 (0.250 to 1.000) | - |" in results_markdown(body)
    compared = {
        "scores": {"a": body["trained"], "b": body["untrained"]},
        "differences": {"b": {"vlm_judge": gap}},
    }
    assert "| VLM judge, colour | 0.625 | - | - |" in comparison_markdown(compared)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"judge": {"kind": "server", "url": "http://h/v1", "model": "m", "captions": {"a": {"prompt": "b"}}}},
         "captions: a judge is asked the questions of the prompts; leave it out"),
        ({"judge": {"kind": "servr"}}, "kind must be one of transformers, server"),
        ({"judge": {"kind": "server", "url": "http://h/v1", "model": "m"}, "request": "Is it so?"},
         "{question} should stand in it once"),
        ({}, "judge\n  Field required"),
    ],
)  # fmt: skip
def test_a_wrong_section_is_refused(values: Mapping[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(told)):
        VlmJudge.model_validate(values)


def test_prompts_without_questions_are_not_judged_and_wrong_ones_are_named() -> None:
    named, reasons = split_by_applicability(["vlm_judge"], [NO_QUESTIONS])
    assert not named and "no prompt has questions (a column `questions`)" in reasons["vlm_judge"]
    wrong = [NO_QUESTIONS, {"prompt": "a cat", "questions": [{"question": "a?", "answer": "maybe"}]}]
    assert split_by_applicability(["vlm_judge"], wrong)[0] == ["vlm_judge"]
    section = VlmJudge(judge={"kind": "server", "url": "http://127.0.0.1:1/v1", "model": "m"})
    told = r"measure.vlm_judge: prompt 2 \('a cat'\): questions, number 1: 'answer' is 'maybe'"
    with pytest.raises(ValueError, match=told):
        SPEC.check(section, wrong, {})


def test_the_examples_of_the_docs_are_questions_and_a_judge() -> None:
    (lines,) = blocks("json", DOCS / "measure.md")
    records = [json.loads(line) for line in lines]
    assert [len(questions_of(record)) for record in records] == [2, 3]
    assert questions_of(records[1])[2] == Question("Is anybody there?", False, parents=(0,))
    texts = ["\n".join(block) for block in blocks("yaml", DOCS / "measure.md")]
    (run,) = [yaml.safe_load(text) for text in texts if "vlm_judge" in text]
    SPEC.check(VlmJudge.model_validate(run["measure"]["vlm_judge"]), records, {})
