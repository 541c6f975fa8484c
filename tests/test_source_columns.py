"""What a list carries: its own columns, whatever their names and case, with their own types."""

import decimal
from pathlib import Path

import polars as pl
import pytest

from darkroom.config.dataset import parse_source
from darkroom.sources.table import list_columns, write_urls

LIST = pl.DataFrame(
    {
        "Link": ["http://a.example/1", "http://a.example/2"],
        "Words": ["one", None],
        "STARS": pl.Series([1, 255], dtype=pl.UInt8),
        "Score": pl.Series([0.1, float("inf")], dtype=pl.Float32),
        "isAd": [True, None],
        "language": pl.Series(["en", "de"], dtype=pl.Categorical),
        "price": pl.Series([decimal.Decimal("1.50"), None], dtype=pl.Decimal(10, 2)),
        "a name with spaces": ["x", "y"],
        # Not carried: no plain values, or called like a column of the download's own.
        "tags": [["a"], []],
        "content": [b"1", b"2"],
        "status": ["old", "old"],
    }
)


@pytest.fixture
def source_of_list(tmp_path: Path) -> dict[str, str]:
    LIST.write_parquet(tmp_path / "list.parquet")
    columns = {"url_column": "Link", "caption_column": "Words"}
    return {"kind": "list", "path": str(tmp_path / "list.parquet"), **columns}


def test_every_plain_column_is_carried_under_its_own_name_with_its_own_type(
    source_of_list: dict[str, str], tmp_path: Path
) -> None:
    source = parse_source(source_of_list)
    told = list_columns(source)
    assert told == {
        "STARS": "number",
        "Score": "number",
        "isAd": "boolean",
        "language": "text",
        "price": "number",
        "a name with spaces": "text",
    }
    assert write_urls(source, tmp_path / "urls.parquet", list(told)) == 2
    urls = pl.read_parquet(tmp_path / "urls.parquet")
    assert urls.columns == ["row", "url", "caption", "captions", "repeat_of", *told]
    assert urls.schema["STARS"] == pl.UInt8 and urls.schema["Score"] == pl.Float32
    assert urls["price"].to_list() == [1.5, None] and urls["language"].to_list() == ["en", "de"]
    assert urls["isAd"].to_list() == [True, None] and urls["STARS"].to_list() == [1, 255]


def test_a_column_that_the_list_has_not_is_named(source_of_list: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"list.parquet: no column 'stars'; it has STARS, Score"):
        write_urls(parse_source(source_of_list), tmp_path / "urls.parquet", ["stars"])
