"""The VLM judge: how answers become scores, and a server that answers, fails and lies."""

import hashlib
import io
import json
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm
from captioner_fixtures import KEY, server, short_pauses  # noqa: F401 - fixtures
from conftest import TinyProject
from PIL import Image
from played_captioner import MODEL, Request, Server
from test_captioner_server import FAULTS
from test_recaption import component, one_thread  # noqa: F401 - fixtures

from darkroom.captioners.llava import Decoding, Llava
from darkroom.captioners.scratch import forget
from darkroom.components.base import Component
from darkroom.metrics import vlm_judge
from darkroom.metrics.base import Inputs
from darkroom.metrics.looked_at import LookedAt
from darkroom.metrics.table import METRICS
from darkroom.metrics.vlm_judge import VlmJudge, said
from darkroom.store.drawn import Drawn, write_chunk

SPEC = METRICS["vlm_judge"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", True), ("no.", False), (" **YES**, there is", True), ("No, there is none. Yes?", False),
        ("", None), ("...", None), ("I cannot tell", None), ("yesterday", None), ("The answer is yes", None),
    ],
)  # fmt: skip
def test_an_answer_is_its_first_word_and_is_never_guessed(text: str, expected: bool | None) -> None:
    assert said(text) is expected


# A server that judges

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}
RECORDS = [
    {
        "tag": "prompts", "prompt": f"a {colour} thing",
        "questions": [
            {"question": "Is there a thing?", "category": "entity"},
            {"question": f"Is it {colour}?", "category": "colour", "depends_on": 1},
            {"question": "Is it grey?", "answer": "no", "category": "colour"},
        ],
    }
    for colour in COLOURS
]  # fmt: skip
NO_QUESTIONS = {"tag": "prompts", "prompt": "anything"}


def write_drawn(
    folder: Path, colours: Mapping[str, Sequence[str]], records: Sequence[Any] = RECORDS
) -> Inputs:
    """Model -> the colours of its pictures, two a prompt, as the draw stage stores them."""
    drawn = {}
    for model, of in colours.items():
        table, tar = folder / model / "0.parquet", folder / model / "0.tar"
        plain = [np.full((24, 32, 3), COLOURS.get(name, (128, 128, 128)), np.uint8) for name in of]
        for number, picture in enumerate(plain):
            picture[0, 0] = number
        pictures = [np.stack(plain[2 * i : 2 * i + 2]) for i in range(len(records))]
        chunk = ((i, record, [0, 1], pictures[i]) for i, record in enumerate(records))
        write_chunk(model, chunk, tar, table)
        drawn[model] = Drawn([table], [tar])
    return Inputs(drawn, records, scratch=folder / "scratch")


def section(url: str, requests: Mapping[str, Any] | None = None, **values: Any) -> VlmJudge:
    asked = {"concurrency": 8, "num_retries": 2, "timeout_s": 20, **(requests or {})}
    judge = {"kind": "server", "url": url, "model": "m", "requests": asked, **values}
    return VlmJudge.model_validate({"judge": judge})


def seen(request: Request) -> str:
    """The colour of the picture that was sent."""
    with Image.open(io.BytesIO(request.jpeg)) as picture:
        mean = np.asarray(picture.convert("RGB"))[8:, 8:].reshape(-1, 3).mean(axis=0)
    named = [name for name, colour in COLOURS.items() if np.abs(mean - colour).max() < 4]
    return named[0] if named else "grey"


def truly(request: Request) -> None:
    """Answers by what the picture shows."""
    asked = re.match(r"Is (?:it (\w+)|there a thing)\? Answer with yes or no only\.$", request.prompt)
    assert asked is not None, request.prompt
    request.answer("Yes." if asked[1] in (None, seen(request)) else "No")


TRAINED = ["red", "red", "green", "blue", "blue", "grey"]
UNTRAINED = ["grey", "grey", "grey", "green", "grey", "blue"]


def test_every_picture_is_asked_its_prompts_questions_and_scored_by_category(
    tmp_path: Path, server: Server
) -> None:
    server.reply, server.together = truly, 2
    inputs = write_drawn(
        tmp_path, {"trained": [*TRAINED, "red", "red"], "untrained": [*UNTRAINED, "red", "red"]},
        [*RECORDS, NO_QUESTIONS],
    )  # fmt: skip
    price = {"price_per_million_tokens": {"input": 2, "output": 10}}
    found = SPEC.measure(section(server.url, price), inputs)
    table = found.table
    assert table["model"].to_list() == ["trained"] * 8 + ["untrained"] * 8
    third = pytest.approx(1 / 3)
    expected = [1, 1, 1, pytest.approx(2 / 3), 1, third, None, None]
    assert table["vlm_judge"].to_list()[:8] == expected
    assert table["vlm_judge.colour"].to_list()[:8] == [1, 1, 1, 0.5, 1, 0, None, None]
    assert table["vlm_judge.entity"].to_list() == [*[1] * 6, None, None] * 2
    assert table["vlm_judge_answered"].to_list() == [*[1] * 6, None, None] * 2
    assert json.loads(table["vlm_judge_answers"][3]) == [
        {"question": "Is there a thing?", "answer": "Yes.", "right": True},
        {"question": "Is it green?", "answer": "No", "right": False},
        {"question": "Is it grey?", "answer": "No", "right": True},
    ]
    assert server.asked.total() == 2 * 6 * 3 and 1 < server.most <= 8
    counts = dict(found.counts)
    assert (counts["questions"], counts["unclear"], counts["refused"], counts["failed"]) == (36, 0, 0, {})
    assert counts["pictures_without_questions"] == 4 and counts["answered_by"] == {MODEL: 36}
    tokens = counts["prompt_tokens"] * 2 + counts["completion_tokens"] * 10
    assert counts["prompt_tokens"] == 3600 and counts["cost"] == pytest.approx(tokens / 1e6, abs=1e-6)
    assert not server.keys - {None}


def test_the_protocol_names_the_judge_as_the_server_does_and_all_that_an_answer_depends_on(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.reply = truly
    monkeypatch.setenv("JUDGE_KEY", KEY)
    inputs = write_drawn(tmp_path, {"trained": TRAINED})
    chosen = section(server.url, {"key_variable": "JUDGE_KEY"}, max_new_tokens=5)
    protocol = SPEC.measure(chosen, inputs).protocol
    judge = protocol["judge"]
    assert (judge["model"], judge["model_path"], judge["kind"]) == (MODEL, server.url, "server")
    assert judge["library"].startswith("httpx ") and judge["decoding"] == {
        "model": "m", "seed": 0, "limit_name": "max_tokens", "detail": None, "max_side_px": 1024,
        "max_new_tokens": 5, "temperature": 0.0, "top_p": 1.0,
    }  # fmt: skip
    assert protocol["request"] == "{question} Answer with yes or no only."
    assert SPEC.named(protocol).label == f"VLM judge ({MODEL})"
    assert server.keys == {f"Bearer {KEY}"} and KEY not in json.dumps(protocol)
    assert "requests" not in json.dumps(chosen.model_dump(mode="json")) and "JUDGE" not in json.dumps(
        protocol
    )
    other = [{**RECORDS[0], "questions": ["Is there a thing?"]}, *RECORDS[1:]]
    again = SPEC.measure(chosen, write_drawn(tmp_path / "b", {"trained": TRAINED}, other)).protocol
    assert [key for key in protocol if protocol[key] != again[key]] == ["questions_sha256"]


def test_an_answer_that_is_unclear_or_missing_is_no_no_but_left_out_and_counted(
    tmp_path: Path, server: Server
) -> None:
    def reply(request: Request) -> None:
        asked_of = seen(request), request.prompt.partition("?")[0]
        if asked_of == ("red", "Is it red"):
            request.answer("It might be.")
        elif asked_of == ("green", "Is it green"):
            request.send(b"", 400)
        elif asked_of == ("blue", "Is there a thing"):
            request.answer(None, "content_filter")
        else:
            truly(request)

    server.reply = reply
    # Each prompt's first picture cannot be judged wholly; of the second of each all is known.
    inputs = write_drawn(tmp_path, {"trained": ["red", "grey", "green", "grey", "blue", "grey"]})
    found = SPEC.measure(section(server.url), inputs)
    rows = [json.loads(told) for told in found.table["vlm_judge_answers"]]
    assert [[one["right"] for one in row] for row in rows] == [
        [True, None, True], [True, False, False], [True, None, True], [True, False, False],
        # What depends on something unknown is unknown, and is not right for having been answered.
        [None, None, True], [True, False, False],
    ]  # fmt: skip
    assert rows[2][1] == {"question": "Is it green?", "answer": "", "right": None, "failed": "http_400"}
    assert rows[4][0]["failed"] == "content_filter" and rows[0][1]["answer"] == "It might be."
    assert found.table["vlm_judge"].to_list() == [1, pytest.approx(1 / 3)] * 3
    assert found.table["vlm_judge_answered"].to_list() == [pytest.approx(2 / 3), 1] * 3
    told = {key: found.counts[key] for key in ("questions", "unclear", "refused", "failed")}
    assert told == {"questions": 18, "unclear": 1, "refused": 1, "failed": {"http_400": 1}}
    # Made again, only what failed is asked.
    forget(tmp_path / "out.parquet", found.counts)
    server.asked.clear()
    server.reply = truly
    again = SPEC.measure(section(server.url), inputs)
    assert server.asked.total() == 1 and not again.counts["failed"]
    assert again.table["vlm_judge"].to_list()[2] == 1


def test_a_judge_that_says_neither_yes_nor_no_is_refused_and_so_is_one_that_is_not_there(
    tmp_path: Path, server: Server
) -> None:
    inputs = write_drawn(tmp_path, {"trained": TRAINED, "untrained": UNTRAINED})

    def reply(request: Request) -> None:
        truly(request) if seen(request) == "red" else request.answer("A picture.")

    server.reply = reply
    told = r"measure.vlm_judge: no question about the pictures of 'untrained' has a clear answer, yes or no"
    with pytest.raises(ValueError, match=told):
        SPEC.measure(section(server.url), inputs)
    server.reply = lambda request: request.send(b"no", 401)
    with pytest.raises(ValueError, match="16 requests in a row ended as http_401"):
        SPEC.measure(section(server.url, temperature=0.5), inputs)
    unset = section(server.url, {"key_variable": "NO_SUCH_KEY"})
    told = (
        "measure.vlm_judge.judge.requests.key_variable: the environment variable NO_SUCH_KEY is not set here"
    )
    assert SPEC.missing(unset).startswith(told) and not SPEC.missing(section(server.url))
    with pytest.raises(ValueError, match=re.escape(told)):
        SPEC.measure(unset, inputs)


def test_a_fault_is_of_its_own_question_and_of_no_other(tmp_path: Path, server: Server) -> None:
    names = list(FAULTS)
    records = [
        {"tag": "prompts", "prompt": name, "questions": ["Is there a thing?", f"Is it {number}?"]}
        for number, name in enumerate(names)
    ]

    def reply(request: Request) -> None:
        asked = re.match(r"Is it (\d+)\?", request.prompt)
        if asked is None:
            request.answer("yes")
        else:
            FAULTS[names[int(asked[1])]][0](request)

    server.reply = reply
    inputs = write_drawn(tmp_path, {"trained": ["grey"] * 2 * len(names)}, records)
    quick = section(server.url, {"timeout_s": 0.7, "num_retries": 1})
    found = SPEC.measure(quick, inputs)
    rows = [json.loads(told) for told in found.table["vlm_judge_answers"]]
    assert [row[0]["right"] for row in rows] == [True] * len(rows)
    # None of the server's faults says yes or no, so nothing is known.
    assert [row[1]["right"] for row in rows] == [None] * len(rows)
    failed = [row[1].get("failed", "") for row in rows[::2]]
    words = [word if word not in ("stop", "length") else "" for _, word in FAULTS.values()]
    assert failed == words
    assert found.table["vlm_judge"].to_list() == [1] * len(rows)
    lost = sum(found.counts["failed"].values()) + found.counts["refused"] + found.counts["unclear"]
    assert lost == len(rows) and found.counts["refused"] == 2 * 3


JOB = """
import json
import sys
from pathlib import Path
from darkroom.metrics.base import Inputs
from darkroom.metrics.vlm_judge import VlmJudge, measure
from darkroom.store.drawn import Drawn, read_records
folder = Path(sys.argv[1])
drawn = Drawn([folder / "trained/0.parquet"], [folder / "trained/0.tar"])
inputs = Inputs({"trained": drawn}, read_records(folder / "prompts.jsonl"), scratch=folder / "scratch")
print("begins", flush=True)
measure(VlmJudge.model_validate({"judge": json.loads(sys.argv[2])}), inputs)
"""


def test_a_job_that_is_killed_goes_on_from_the_answers_that_it_has(tmp_path: Path, server: Server) -> None:
    server.reply = truly
    inputs = write_drawn(tmp_path, {"trained": TRAINED})
    whole = SPEC.measure(section(server.url), inputs)
    number = server.asked.total()
    for path in (tmp_path / "scratch").iterdir():
        path.unlink()
    server.asked.clear()

    def slowly(request: Request) -> None:
        time.sleep(0.03)
        truly(request)

    server.reply = slowly
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    judge = {"kind": "server", "url": server.url, "model": "m", "requests": {"concurrency": 2}}
    job = ["python", "-c", JOB, str(tmp_path), json.dumps(judge)]
    for _ in range(2):
        before = server.asked.total()
        with subprocess.Popen(job, stdout=subprocess.PIPE, env=warm.jobs.environment(os.environ)) as process:
            assert process.stdout is not None and process.stdout.readline() == b"begins\n"
            while server.asked.total() < before + 4 and process.poll() is None:
                time.sleep(0.001)
            process.kill()
    again = SPEC.measure(section(server.url), inputs)
    assert again.table.equals(whole.table) and again.protocol == whole.protocol
    assert again.counts == whole.counts
    # Each kill loses what was under way, and no more.
    assert number < server.asked.total() <= number + 2 * 2


def test_answers_about_other_pictures_are_not_taken_for_these(tmp_path: Path, server: Server) -> None:
    server.reply = truly
    first = write_drawn(tmp_path, {"trained": TRAINED})
    SPEC.measure(section(server.url), first)
    server.asked.clear()
    other = write_drawn(tmp_path, {"trained": UNTRAINED})
    found = SPEC.measure(section(server.url), other)
    assert server.asked.total() == 18 and found.table["vlm_judge.colour"].to_list()[0] == 0


# Other judges


def test_a_checkpoint_of_transformers_is_asked_the_same(
    tmp_path: Path, component: Component, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tiny one says neither yes nor no: here half of all that may be said is a yes.
    monkeypatch.setattr(vlm_judge, "said", lambda text: hashlib.sha256(text.encode()).digest()[0] < 128)
    judge = {"kind": "transformers", "captioner": "tiny", "max_new_tokens": 6, "dtype": "float32"}
    chosen = VlmJudge.model_validate({"judge": judge, "request": "{question}"})
    inputs = write_drawn(tmp_path, {"trained": TRAINED, "untrained": UNTRAINED})
    components = {"tiny": component}
    found = SPEC.measure(chosen, Inputs(inputs.drawn, RECORDS, components, scratch=tmp_path / "scratch"))
    assert (
        found.protocol["judge"]["model"] == "tiny" and found.protocol["judge"]["decoding"]["batch_size"] == 64
    )
    pictures = LookedAt(inputs.drawn, tmp_path)
    llava = Llava(component, "float32")
    texts = set()
    for place, row in enumerate(pictures.rows):
        asked = [one["question"] for one in RECORDS[row["prompt_index"]]["questions"]]
        head, tails = llava.requests(asked)
        prepared = llava.prepare([pictures.image(place)], head)
        said_of_it = llava.generate(prepared, [Decoding(tail, 6) for tail in tails])
        told = [one["answer"] for one in json.loads(found.table["vlm_judge_answers"][place])]
        assert told == [texts_of[0].text for texts_of in said_of_it]
        texts |= set(told)
    assert len(texts) > 3, "the tiny model says too little to see a mix-up"


# Its rule


@pytest.mark.slow
def test_a_run_is_judged_by_its_rule_warns_of_a_missing_key_and_measures_nothing_again_for_how_it_asks(
    changeable: TinyProject, server: Server
) -> None:
    project = changeable
    questions = [{"question": "Is there a thing?", "category": "entity"}, "Is it red?"]
    (project.folder / "prompts.jsonl").write_text(
        "".join(
            json.dumps({"prompt": f"a red {what}", "questions": questions}) + "\n"
            for what in ("circle", "star")
        )
    )
    server.reply = truly
    judge = {"kind": "server", "url": server.url, "model": "m"}
    requests = {"key_variable": "JUDGE_KEY", "concurrency": 2}

    def edit(**more: Any) -> None:
        run = project.read("config/runs/demo.yaml")
        run["draw"]["prompts"] = {"kind": "file", "path": "prompts.jsonl"}
        run["measure"] = {"vlm_judge": {"judge": {**judge, "requests": {**requests, **more}}}}
        project.write("config/runs/demo.yaml", run)

    edit()
    project.variables = {"JUDGE_KEY": ""}
    told = project.run("snakemake", "-n", "evaluate")
    key = "config/runs/demo.yaml: measure.vlm_judge.judge.requests.key_variable: the environment variable"
    assert f"{key} JUDGE_KEY" in told and "rule measure_metric" in told and not server.asked
    project.variables = {"JUDGE_KEY": KEY}
    project.run("snakemake", "evaluate", "--quiet", "all")
    metrics = json.loads((project.results("evaluate") / "metrics.json").read_text())
    scores = metrics["trained"]["vlm_judge"]
    assert scores["vlm_judge.entity"] == 1 and scores["vlm_judge_answered"] == 1
    assert 0.5 <= scores["vlm_judge"] <= 1 and scores["vlm_judge_low"] <= scores["vlm_judge_high"]
    manifest = json.loads((project.results("measure") / "manifest.json").read_text())
    counts = manifest["counts"]["vlm_judge"]
    assert counts["answered_by"] == {MODEL: counts["questions"]} and server.keys == {f"Bearer {KEY}"}
    assert [path.name for path in project.results("measure").glob(".*")] == []
    edit(timeout_s=9, concurrency=1)
    assert "measure_metric" not in project.planned("evaluate")
    found = [
        path for path in project.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ]
    assert found == []
