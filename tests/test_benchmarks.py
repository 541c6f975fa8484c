"""Benchmarks: prompts of one's own, and GenEval's metadata."""

import json

import pytest

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


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.txt", "\n \n", "none.txt: holds no prompt; write one a line"),
        ("bad.jsonl", '{"prompt": "a"}\n{"text": "b"}', "bad.jsonl, line 2: 'prompt' is missing or no text"),
        ("list.jsonl", '["a"]', "list.jsonl, line 1: no record"),
        ("half.jsonl", '{"prompt": "a"', "half.jsonl, line 1: "),
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


def test_tasks_come_in_their_benchmarks_order_with_its_labels():
    assert ordered_tasks(["mine", "color_attr", "counting"]) == ["counting", "color_attr", "mine"]
    assert (task_label("color_attr"), task_label("mine")) == ("Colour binding", "mine")
    assert list(BENCHMARKS)[:2] == ["geneval", "file"] and "demo" in BENCHMARKS
