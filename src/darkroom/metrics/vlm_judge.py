"""A vision-language model as judge: yes/no questions about each picture, as DPG-Bench, TIFA and GenEval 2 ask.

Prompts bring the questions, see `benchmarks.questions`. The judge is a captioner of any kind: each different
question is a caption that it is asked for, of the pictures whose prompt has that question.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field, field_validator

from darkroom.benchmarks.base import Record
from darkroom.benchmarks.questions import Question, has_questions, judged, questions_of
from darkroom.captioners.base import Caption, CaptionerSection, Generated, Loaded, Wanted, asking_for
from darkroom.captioners.table import CAPTIONERS, AnyCaptioner
from darkroom.components.base import Component
from darkroom.metrics.base import VARIANT, Inputs, Measured, Metric
from darkroom.metrics.looked_at import SENT_AS, LookedAt
from darkroom.settings.base import Section
from darkroom.store import sha256_json

_NAME = "vlm_judge"
_ANSWERED, _SAID = f"{_NAME}_answered", f"{_NAME}_answers"
# What a judge is called in messages.
_KEY = f"measure.{_NAME}.judge"
_PLACE = "{question}"
_WORD = re.compile(r"[^\W_]+")
_YES_OR_NO = {"yes": True, "no": False}
# How a text ends that the judge meant to end so, or that was cut; any other way there is none.
_ENDS = ("stop", "length")


class VlmJudge(Section):
    """A vision-language model that answers the prompts' yes/no questions about each picture."""

    judge: AnyCaptioner = Field(
        description="who answers: a captioner, without `captions`; `kind` decides which table holds"
    )
    request: str = Field(
        f"{_PLACE} Answer with yes or no only.",
        description="what it is asked, with the question in the place of {question}",
    )

    @field_validator("judge")
    @classmethod
    def _is_asked_the_questions(cls, judge: CaptionerSection) -> CaptionerSection:
        for name in ("captions", "strip_prefixes"):
            if getattr(judge, name):
                raise ValueError(f"{name}: a judge is asked the questions of the prompts; leave it out")
        return judge

    @field_validator("request")
    @classmethod
    def _has_a_place(cls, request: str) -> str:
        if request.count(_PLACE) != 1:
            raise ValueError(f"{_PLACE} should stand in it once: a question comes there")
        return request


@dataclass(frozen=True)
class _Asked:
    """What is asked of whom.

    Attributes:
        questions: of each prompt.
        names: text of a question -> what its answers are called.
        judge: the section with a caption of that name for each.
        categories: of all questions that have one, in their order.
    """

    questions: Sequence[Sequence[Question]]
    names: Mapping[str, str]
    judge: CaptionerSection
    categories: Sequence[str]

    @classmethod
    def of(cls, section: VlmJudge, records: Sequence[Record]) -> "_Asked":
        """What a section asks about the pictures of these prompts. Raises ValueError, which names the prompt."""
        questions = [_read(index, record) for index, record in enumerate(records)]
        all_of_them = [question for of_one in questions for question in of_one]
        texts = dict.fromkeys(question.text for question in all_of_them)
        names = {text: f"q{number:06d}" for number, text in enumerate(texts)}
        prompts = {name: section.request.replace(_PLACE, text) for text, name in names.items()}
        captions = {name: Caption(prompt=prompt) for name, prompt in prompts.items()}
        categories = list(dict.fromkeys(question.category for question in all_of_them if question.category))
        return cls(questions, names, asking_for(section.judge, captions, _KEY), categories)

    def wanted(self, pictures: LookedAt) -> Wanted:
        """The names of the answers about each picture."""
        of_prompts = [tuple(dict.fromkeys(self.names[q.text] for q in of_one)) for of_one in self.questions]
        places = enumerate(of_prompts[row["prompt_index"]] for row in pictures.rows)
        return Wanted({place: names for place, names in places if names})

    def schema(self) -> dict[str, Any]:
        """The metric's columns."""
        shares = [_NAME, _ANSWERED, *map(_column, self.categories)]
        return {**dict.fromkeys(shares, pl.Float64), _SAID: pl.String}


def measure(section: VlmJudge, inputs: Inputs) -> Measured:
    """Ask every question about every picture of its prompt.

    Raises:
        ValueError: the judge cannot be asked, or gave no clear answer to any question about a model's pictures.
    """
    asked = _Asked.of(section, inputs.records)
    loaded = CAPTIONERS[asked.judge.kind].load(asked.judge, inputs.components)
    with _scratch(inputs) as scratch:
        pictures = LookedAt(inputs.drawn, scratch)
        wanted = asked.wanted(pictures)
        pictures.expect(sum(len(names) for names in wanted.names.values()))
        with loaded.asking(pictures) as ask:
            found = ask(wanted)
    table = pl.DataFrame(
        [row | _judged(asked, found, place, row) for place, row in enumerate(pictures.rows)],
        schema_overrides=asked.schema(),
    )
    _refuse_unanswered(table, found)
    return Measured(table, _protocol(section, asked, loaded), _counts(asked, found, pictures, loaded))


def said(text: str) -> bool | None:
    """Yes (True) or no, as the first word of an answer is; None where that is neither."""
    words = _WORD.findall(text.casefold())
    return _YES_OR_NO.get(words[0]) if words else None


def _read(index: int, record: Record) -> tuple[Question, ...]:
    try:
        return questions_of(record)
    except ValueError as error:
        raise ValueError(f"measure.{_NAME}: prompt {index + 1} ({record['prompt']!r}): {error}") from None


@contextmanager
def _scratch(inputs: Inputs) -> Iterator[Path]:
    """Where answers are kept until all are there."""
    if inputs.scratch is not None:
        yield inputs.scratch
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _judged(
    asked: _Asked, found: Mapping[tuple[int, str], Generated], place: int, row: Mapping[str, Any]
) -> dict[str, Any]:
    """The columns of one picture: shares of the questions whose answer is known."""
    questions = asked.questions[row["prompt_index"]]
    if not questions:
        return dict.fromkeys(asked.schema())
    answers = [found[place, asked.names[question.text]] for question in questions]
    clear = [said(answer.text) for answer in answers]
    right = judged(questions, clear)
    told = [
        {"question": question.text, "answer": answer.text, "right": is_right}
        | ({} if answer.finish_reason in _ENDS else {"failed": answer.finish_reason})
        for question, answer, is_right in zip(questions, answers, right, strict=True)
    ]
    by_category = {
        _column(category): _share(
            [one for one, question in zip(right, questions, strict=True) if question.category == category]
        )
        for category in asked.categories
    }
    answered = sum(one is not None for one in clear) / len(clear)
    return {
        _NAME: _share(right),
        _ANSWERED: answered,
        **by_category,
        _SAID: json.dumps(told, ensure_ascii=False),
    }


def _share(right: Sequence[bool | None]) -> float | None:
    known = [one for one in right if one is not None]
    return sum(known) / len(known) if known else None


def _column(category: str) -> str:
    return f"{_NAME}.{category}"


def _refuse_unanswered(table: pl.DataFrame, found: Mapping[tuple[int, str], Generated]) -> None:
    """Raises ValueError where nothing is known of a model's pictures."""
    for (model,), rows in table.group_by(["model"], maintain_order=True):
        if rows[_NAME].null_count() == rows.height:
            first = next(iter(found.values()))
            raise ValueError(
                f"measure.{_NAME}: no question about the pictures of {model!r} has a clear answer, yes or no;"
                f" the first is {first.text!r} ({first.finish_reason})"
            )


def _protocol(section: VlmJudge, asked: _Asked, loaded: Loaded[Any]) -> dict[str, Any]:
    """All that answers depend on besides the pictures."""
    told = dict(loaded.provenance)
    options = next(iter(asked.judge.asked().values()))
    decoding = {name: getattr(options, name) for name in ("max_new_tokens", "temperature", "top_p")}
    return {
        "definition": f"share of a prompt's questions that {told['model']} answers as is right, and all that they"
        " depend on; mean over pictures",
        VARIANT: told["model"],
        "judge": {"kind": asked.judge.kind, **told, "decoding": {**loaded.decoding, **decoding}},
        "request": section.request,
        "answers": "the first word, yes or no; any other is not known, and left out of the share",
        "pictures": f"as they were drawn; a server gets {SENT_AS}",
        "questions_sha256": sha256_json([[asdict(one) for one in of_one] for of_one in asked.questions]),
    }


def _counts(
    asked: _Asked, found: Mapping[tuple[int, str], Generated], pictures: LookedAt, loaded: Loaded[Any]
) -> dict[str, Any]:
    """Questions asked; of them, answers that are neither yes nor no, those that were refused, and failures."""
    ended = [answer.finish_reason in _ENDS for answer in found.values()]
    unclear = sum(
        has_ended and said(answer.text) is None
        for answer, has_ended in zip(found.values(), ended, strict=True)
    )
    told = {"failed": {}, **loaded.counts}
    refused = ended.count(False) - sum(told["failed"].values())
    without = sum(not asked.questions[row["prompt_index"]] for row in pictures.rows)
    counts = {"questions": len(found), "unclear": unclear, "refused": refused}
    return {**counts, "pictures_without_questions": without, **told}


def silent_on(records: Sequence[Record]) -> str:
    """Why the judge says nothing of prompts: none has questions."""
    if any(map(has_questions, records)):
        return ""
    return "the VLM judge does not apply: no prompt has questions (a column `questions`)"


def check(section: VlmJudge, records: Sequence[Record], components: Mapping[str, Component]) -> None:
    """Whether the questions can be asked.

    Raises:
        ValueError: one is wrong; names the prompt and the question.
    """
    _Asked.of(section, records)


def missing(section: VlmJudge) -> str:
    """What the judge lacks here, as a variable of the environment."""
    return CAPTIONERS[section.judge.kind].missing(asking_for(section.judge, {}, _KEY))


SPEC = Metric(
    name=_NAME,
    section=VlmJudge,
    measure=measure,
    label="VLM judge",
    direction="higher",
    digits=3,
    summary="parts",
    column=_NAME,
    parts={_NAME: "all questions", _ANSWERED: "answered"},
    silent_on=silent_on,
    check=check,
    missing=missing,
)
