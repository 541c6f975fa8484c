"""Benchmarks: prompts of one's own, and GenEval's metadata."""

import hashlib
import json
import math
from collections import Counter

import polars as pl
import pytest

from darkroom.benchmarks import geneval_official
from darkroom.benchmarks.coco import CLASSES
from darkroom.benchmarks.geneval import check_record
from darkroom.benchmarks.table import (
    BENCHMARKS,
    ordered_tasks,
    prompt_files,
    prompts_name,
    read_prompts,
    task_label,
)
from darkroom.config.run import Draw
from darkroom.metrics.table import split_by_applicability


def prompts_of(path, kind="file"):
    return Draw(prompts={"kind": kind, "path": str(path)}).prompts


def test_a_text_file_has_a_prompt_a_line_and_empty_lines_are_none(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("a red circle\n\n  two squares \n", encoding="utf-8-sig")
    expected = [{"tag": "prompts", "prompt": text} for text in ("a red circle", "two squares")]
    assert read_prompts(prompts_of(path)) == expected
    assert prompt_files(prompts_of(path)) == [path] and prompts_name(prompts_of(path)) == str(path)


def test_json_lines_keep_their_columns_and_may_name_tasks(tmp_path):
    path = tmp_path / "mine.jsonl"
    lines = [{"prompt": "a cat", "source": "me", "include": []}, {"prompt": "a dog", "tag": "animals"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    first, second = read_prompts(prompts_of(path))
    assert first == {"tag": "prompts", **lines[0]} and second == lines[1]
    assert [r["prompt"] for r in read_prompts(prompts_of(path), max_prompts=1)] == ["a cat", "a dog"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_has_a_prompt_a_row_and_keeps_its_columns(tmp_path, ending):
    path = tmp_path / f"mine.{ending}"
    table = pl.DataFrame(
        {"prompt": ["a cat, black", "a dog"], "tag": ["cats", None], "source": ["me", None], "number": [1, 2]}
    )
    getattr(table, f"write_{ending}")(path)
    numbers = ("1", "2") if ending == "csv" else (1, 2)
    assert read_prompts(prompts_of(path)) == [
        {"tag": "cats", "prompt": "a cat, black", "source": "me", "number": numbers[0]},
        {"tag": "prompts", "prompt": "a dog", "number": numbers[1]},
    ]
    getattr(table.rename({"prompt": "text"}), f"write_{ending}")(path)
    with pytest.raises(ValueError, match=f"mine.{ending}: has no column 'prompt'; it has text, tag, source"):
        read_prompts(prompts_of(path))


def test_a_cell_that_no_record_can_hold_is_named_with_its_row(tmp_path):
    path = tmp_path / "mine.parquet"
    for column, told in (([1.0, math.nan], "float"), ([None, b"x"], "bytes"), ([None, [b"x"]], "list")):
        pl.DataFrame({"prompt": ["a", "b"], "more": column}).write_parquet(path)
        with pytest.raises(
            ValueError,
            match=f"mine.parquet, row 2: 'more' is a {told}; it should be text, a number, or lists",
        ):
            read_prompts(prompts_of(path))
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"mine\.parquet: "):
        read_prompts(prompts_of(path))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.txt", "\n \n", "none.txt: holds no prompt; write one a line"),
        ("bad.jsonl", '{"prompt": "a"}\n{"text": "b"}', "bad.jsonl, row 2: 'prompt' is missing or no text"),
        ("list.jsonl", '["a"]', "list.jsonl, row 1: no record"),
        ("half.jsonl", '{"prompt": "a"', "half.jsonl, row 1: "),
        (
            "judged.jsonl",
            '{"prompt": "a", "include": [{"class": "cat"}]}',
            "write draw.prompts.kind: geneval",
        ),
    ],
)
def test_a_wrong_line_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_prompts(prompts_of(tmp_path / name))


def test_a_file_that_is_not_there_or_no_text_is_named_with_its_key(tmp_path):
    with pytest.raises(
        ValueError, match=r"draw\.prompts\.path: no file nowhere\.txt; it should hold the prompts"
    ):
        read_prompts(prompts_of("nowhere.txt"))
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no text in UTF-8"):
        read_prompts(prompts_of(tmp_path / "x.txt"))


def test_genevals_metadata_asks_for_objects_and_prompts_alone_do_not(tmp_path):
    geneval = [{"tag": "colors", "include": [{"class": "cat", "count": 1}], "prompt": "a cat"}]
    bare = [{"tag": "colors", "include": [], "prompt": "a cat"}]
    for records, silent in ((geneval, False), (bare, True), ([*bare, *geneval], False)):
        path = tmp_path / "metadata.jsonl"
        path.write_text("\n".join(map(json.dumps, records)))
        read = read_prompts(prompts_of(path, "geneval"))
        named, reasons = split_by_applicability(["geneval", "clip_score"], read)
        assert ("geneval" in reasons) == silent and "clip_score" in named
    assert "no prompt says which objects" in split_by_applicability(["geneval"], bare)[1]["geneval"]


def test_genevals_prompts_are_made_by_code_to_the_byte():
    """Digests of the authors' files object_names.txt, evaluation_metadata.jsonl and generation_prompts.txt."""
    prompts = Draw(prompts={"kind": "geneval"}).prompts
    assert prompt_files(prompts) == [] and prompts_name(prompts) == "geneval"
    records = read_prompts(prompts)
    texts = ["".join(f"{name}\n" for name in CLASSES), "".join(f"{json.dumps(r)}\n" for r in records)]
    texts.append("".join(f"{record['prompt']}\n" for record in records))
    assert [hashlib.sha256(text.encode()).hexdigest() for text in texts] == [
        "608f6a0e5c8ca1c7a92b818430141fe268c85b7930b50f4160f1d65893b5bacd",
        "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",
        "55b6e3650e980c13daf30569eb666e000faf19bfc2b7b4cbe999fcdb7aa9d680",
    ]
    assert Counter(record["tag"] for record in records) == {
        **{"single_object": 80, "two_object": 99, "counting": 80},
        **{"colors": 94, "position": 100, "color_attr": 100},
    }
    for record in records:
        check_record(record)
    assert len(read_prompts(prompts, max_prompts=2)) == 12


def test_a_numpy_that_draws_other_numbers_makes_no_prompts(monkeypatch):
    monkeypatch.setattr(geneval_official, "SHA256", "0" * 64)
    with pytest.raises(
        ValueError, match=r"does not draw the prompts of GenEval's authors; name their .* path: FILE"
    ):
        read_prompts(Draw(prompts={"kind": "geneval"}).prompts)


def test_tasks_come_in_their_benchmarks_order_with_its_labels():
    assert ordered_tasks(["mine", "color_attr", "counting"]) == ["counting", "color_attr", "mine"]
    assert (task_label("color_attr"), task_label("mine")) == ("Colour binding", "mine")
    assert list(BENCHMARKS)[:2] == ["geneval", "file"] and "demo" in BENCHMARKS
