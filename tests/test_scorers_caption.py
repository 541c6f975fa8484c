"""The scorer `caption` judges a caption's text."""

from pathlib import Path

import polars as pl
import pytest

from darkroom import store
from darkroom.score import score_part

JUNK = (
    "", "  ", "IMG_2041.JPG", "DSC-0043 (2)", "P1010203", "Screenshot 2021-03-04 at 10.11.12", "12-34", "---",
    "HASH(0x862bbb8)", "[object Object]", "https://example.org/a/b?c=d", "holiday_beach_final2.png",
    "d41d8cd98f00b204e9800998ecf8427e", "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "image", "untitled-3", "N/A",
    "thumbnail", "photo 12",
)  # fmt: skip
GOOD = (
    "a cat", "Photo of a dog on grass", "image of the sea", "Scan of an old letter", "P. Picasso in 1910",
    "a file named cat.png on a screen", "Rot", "两只猫", "untitled painting by an unknown artist",
    "deadbeef island",    "default settings dialog", "Ein Hund, 3 Jahre alt", "the 1984 film",
)  # fmt: skip


def scored(folder: Path, captions: list[str | None]) -> pl.DataFrame:
    rows = [
        {"uid": f"{i:032x}", "row": i, "status": "ok", "caption": text} for i, text in enumerate(captions)
    ]
    store.write_table(folder / "table.parquet", pl.DataFrame(rows, infer_schema_length=None))
    score_part("caption", {}, folder / "table.parquet", None, folder / "out.parquet")
    return store.read_table(folder / "out.parquet")


def test_junk_is_told_from_captions(tmp_path: Path) -> None:
    found = scored(tmp_path, [*JUNK, *GOOD])["caption_junk"].to_list()
    wrong = [text for text, is_junk in zip([*JUNK, *GOOD], found, strict=True) if is_junk != (text in JUNK)]
    assert wrong == []


def test_words_are_counted_and_repetition_is_told(tmp_path: Path) -> None:
    found = scored(tmp_path, ["Red red RED car", "un café, l'été", "", None, "a b c d"])
    assert found["caption_words"].to_list() == [4, 4, 0, None, 4]
    assert found["caption_distinct"].to_list() == [pytest.approx(0.5), 1.0, None, None, 1.0]
    assert found["caption_junk"].to_list() == [False, False, True, None, False]
