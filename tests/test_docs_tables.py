"""The tables of the documentation agree with the code: statuses, columns, the demo world."""

from pathlib import Path

import polars as pl
import pytest
from conftest import TABLE_HEADER, TinyProject
from doc_pages import DOCS, ROOT, documented_columns, rows_after
from test_slurm_faults import FAULTS, RECOVERED, title

from darkroom.config import load_project
from darkroom.download.status import STATUSES


def test_every_download_status_is_explained_once() -> None:
    text = (DOCS / "download.md").read_text(encoding="utf-8")
    told = [row[0].strip("`") for row in rows_after(text, "| Status | Why | Tried again |")]
    assert sorted(told) == sorted([*STATUSES, "http_<code>"])


def test_the_demo_worlds_rows_faults_and_held_out_combinations_are_told_right() -> None:
    from darkroom.demo import scenes
    from darkroom.demo.captions import NUMBERS, PLURALS
    from darkroom.demo.faults import FAULTS
    from darkroom.demo.prompts import prompt_records

    text = (DOCS / "demo-world.md").read_text(encoding="utf-8")
    source = load_project("demo", ROOT).dataset.source
    plain = {"scene": source.num_scenes, "digit": source.num_digits, "photo": source.num_photos}
    numbers = {f.name: f.num_rows(sum(plain.values())) for f in FAULTS}
    kinds = rows_after(text, "| Kind | Rows | What they show |")
    told = {row[0].strip("`"): int(row[1].replace(",", "")) for row in kinds}
    assert told == {**plain, "fault": sum(numbers.values())}
    assert rows_after(text, "| Fault | Rows | What happens | Status | Filter |") == [
        [f"`{f.name}`", str(numbers[f.name]), f.what, f"`{f.expected_status}`", f.expected_filter]
        for f in FAULTS
    ]
    held_out = [f"{color} {shape}" for color, shape in scenes.HELD_OUT_COLORED]
    held_out += [f"{NUMBERS[number]} {PLURALS[shape]}" for number, shape in scenes.HELD_OUT_COUNTED]
    held_out += [f"{subject} {name} {reference}" for subject, name, reference in scenes.HELD_OUT_RELATIONS]
    held_out += [f"{a} and {b}" for a, b in scenes.HELD_OUT_UNRELATED]
    pairs = scenes.held_out_colored_pairs()
    (color, shape), (other_color, other_shape) = pairs[0]
    example = f"such as a {color} {shape} and a {other_color} {other_shape}"
    held_out += [f"{len(pairs)} of 180", f"{example}", "wherever they stand"]
    cells = ", ".join(row[1] for row in rows_after(text, "| Held out | Which |"))
    assert cells.split(", ") == held_out
    assert f"The {len(prompt_records())} prompts" in text


@pytest.mark.slow
def test_the_columns_of_the_docs_are_those_of_the_files(finished_project: TinyProject) -> None:
    for file, columns in documented_columns().items():
        assert pl.read_parquet_schema(finished_project.folder / file).names() == columns, file


def test_the_columns_of_the_docs_are_those_of_the_schemas(tmp_path: Path) -> None:
    from darkroom.bucket import bucket_part
    from darkroom.config.dataset import Filter
    from darkroom.config.run import Bucket
    from darkroom.download.writer import SCHEMA
    from darkroom.filter import find_duplicates, score_part, select_part
    from darkroom.recaption import stage as recaption
    from darkroom.source import CARRIED
    from darkroom.store.latents import table_columns
    from darkroom.train.record import COLUMNS

    told = documented_columns()
    datasets, runs = "results/datasets/demo", "results/runs/demo"
    table, scores, copies, kept, buckets = (tmp_path / f"{name}.parquet" for name in "abcde")
    row = {"row": 0, "uid": "0" * 32, "status": "ok", "sha256": "0" * 64, "width": 512, "height": 512}
    pl.DataFrame([{**dict.fromkeys(SCHEMA), **row}], schema=SCHEMA).write_parquet(table)
    score_part(table, scores)
    find_duplicates([scores], copies)
    select_part(scores, copies, Filter(), kept)
    bucket_part(table, kept, Bucket(), buckets)
    files = {"filter/part-00000.scores": scores, "filter/duplicates": copies, "filter/part-00000": kept}
    for name, path in files.items():
        assert told[f"{datasets}/{name}.parquet"] == pl.read_parquet_schema(path).names()
    assert told[f"{runs}/bucket/part-00000.parquet"] == pl.read_parquet_schema(buckets).names()
    assert told[f"{datasets}/urls.parquet"] == ["row", "url", "caption", *CARRIED]
    assert told[f"{datasets}/download/part-00000.parquet"] == list(SCHEMA)
    captions = told[f"{datasets}/recaption/part-00000.parquet"]
    assert captions[: len(recaption._SCHEMA)] == list(recaption._SCHEMA)
    assert told[f"{runs}/cache/part-00000.parquet"] == table_columns()
    assert told[f"{runs}/train/history.parquet"] == ["step", *COLUMNS]


def test_the_table_of_faults_has_a_row_for_each_that_is_tested_and_nothing_was_lost() -> None:
    text = (DOCS / "reliability.md").read_text(encoding="utf-8")
    rows = rows_after(text, TABLE_HEADER)
    assert [row[0] for row in rows] == [title(fault) for fault in FAULTS]
    for (_, ended, repeated, lost, orphans), bound in zip(rows, FAULTS.values(), strict=True):
        assert RECOVERED in ended and int(repeated) <= bound and (lost, orphans) == ("0", "0")
