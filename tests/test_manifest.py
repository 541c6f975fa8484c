"""A damaged file is noticed before it is used, and a large stage is not hashed each time."""

import os
from pathlib import Path

import pytest

from darkroom.store import check_newest_files, write_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A stage of three files, `a` the oldest and `c` the newest."""
    files = [tmp_path / name for name in "abc"]
    for age, file in zip((3, 2, 1), files, strict=True):
        file.write_text(file.name)
        os.utime(file, (10_000 - age, 10_000 - age))
    write_manifest(tmp_path / "manifest.json", stage="cache", params={}, files=files)
    return tmp_path / "manifest.json"


def test_all_files_are_compared_where_time_allows(manifest: Path) -> None:
    assert check_newest_files(manifest) == 3


def test_a_damaged_file_is_named_with_what_to_do(manifest: Path) -> None:
    manifest.with_name("a").write_text("damaged")
    with pytest.raises(ValueError, match=r"/a: changed since .*; remove it and run `snakemake cache`"):
        check_newest_files(manifest)


def test_a_missing_file_is_named(manifest: Path) -> None:
    manifest.with_name("b").unlink()
    with pytest.raises(ValueError, match=r"/b: missing; run `snakemake cache`"):
        check_newest_files(manifest)


def test_the_newest_file_comes_first_when_there_is_no_time_for_all(manifest: Path) -> None:
    assert check_newest_files(manifest, seconds=0) == 1
    manifest.with_name("a").write_text("damaged")
    with pytest.raises(ValueError, match="/a: changed"):
        check_newest_files(manifest, seconds=0)
