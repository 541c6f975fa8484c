"""The tables of the documentation agree with the code: statuses, columns, the demo world."""

from pathlib import Path

import polars as pl
import pytest
from conftest import TABLE_HEADER, TinyProject
from doc_pages import DOCS, ROOT, documented_columns, rows_after
from filter_inputs import Parts, sample
from test_slurm_faults import FAULTS, RECOVERED, title

from darkroom.config import load_project
from darkroom.download.status import STATUSES


def test_every_download_status_is_explained_once() -> None:
    text = (DOCS / "download.md").read_text(encoding="utf-8")
    told = [row[0].strip("`") for row in rows_after(text, "| Status | Why | Tried again |")]
    assert sorted(told) == sorted([*STATUSES, "http_<code>"])


def test_the_demo_worlds_rows_faults_and_held_out_combinations_are_told_right() -> None:
    from darkroom_demo import scenes
    from darkroom_demo.captions import NUMBERS, PLURALS
    from darkroom_demo.faults import FAULTS
    from darkroom_demo.prompts import prompt_records

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
        # A cache is named by its digest.
        (path,) = finished_project.folder.glob(file.replace("/CACHE/", "/*/"))
        assert pl.read_parquet_schema(path).names() == columns, file


def test_the_columns_of_the_docs_are_those_of_the_schemas(tmp_path: Path) -> None:
    from darkroom.bucket import bucket_part
    from darkroom.config.bucket import Bucket
    from darkroom.recaption.written import captions_schema
    from darkroom.sources.table import list_columns
    from darkroom.store import write_table
    from darkroom.store.latents import table_columns
    from darkroom.train.record import COLUMNS

    told = documented_columns()
    datasets, caches, runs = "results/datasets/demo", "results/caches/CACHE", "results/runs/demo"
    carried = list_columns(load_project("demo", ROOT).dataset.source)
    parts = Parts(tmp_path, [sample(0, width=512, height=512)], carried=dict.fromkeys(carried, pl.Float64))
    others = {"near_duplicate": pl.Boolean, "sharpness": pl.Float64, "watermark": pl.Float32}
    others |= {"clip_duplicate": pl.Boolean, "clip_similarity": pl.Float32}
    keys = pl.read_parquet(parts.tables[0], columns=["uid", "row"])
    write_table(
        tmp_path / "others.parquet", keys.with_columns(pl.lit(None, of).alias(n) for n, of in others.items())
    )
    parts.select(load_project("demo", ROOT).dataset.keep, {tmp_path / "others.parquet": list(others)})
    buckets = tmp_path / "buckets.parquet"
    bucket_part(parts.tables[0], parts.selections[0], Bucket(), buckets)
    files = {"download/part-00000": parts.tables[0], "filter/part-00000": parts.selections[0]}
    files |= {"score/part-00000.size": parts.scores[0], "score/duplicate": parts.duplicates}
    for name, path in files.items():
        assert told[f"{datasets}/{name}.parquet"] == pl.read_parquet_schema(path).names()
    assert told[f"{caches}/bucket/part-00000.parquet"] == pl.read_parquet_schema(buckets).names()
    assert told[f"{datasets}/urls.parquet"] == ["row", "url", "caption", "captions", "repeat_of", *carried]
    names = load_project("demo", ROOT).dataset.caption_names
    columns = list(captions_schema(names[1:]))
    assert told[f"{datasets}/recaption/part-00000.parquet"][: len(columns)] == columns
    assert told[f"{caches}/cache/part-00000.parquet"] == table_columns(names)
    assert told[f"{runs}/train/history.parquet"] == ["step", *COLUMNS]


def test_the_table_of_faults_has_a_row_for_each_that_is_tested_and_nothing_was_lost() -> None:
    text = (DOCS / "reliability.md").read_text(encoding="utf-8")
    rows = rows_after(text, TABLE_HEADER)
    assert [row[0] for row in rows] == [title(fault) for fault in FAULTS]
    for (_, ended, repeated, lost, orphans), bound in zip(rows, FAULTS.values(), strict=True):
        assert RECOVERED in ended and int(repeated) <= bound and (lost, orphans) == ("0", "0")
