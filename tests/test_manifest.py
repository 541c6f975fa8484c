"""A damaged file is noticed before it is used, and a large stage is not hashed each time."""

import json
import os
from pathlib import Path

import pytest

from darkroom.store import (
    check_newest_files,
    check_stage,
    sha256_file,
    sha256_json,
    write_json,
    write_manifest,
    write_part_manifest,
)


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


PARAMS = {"filter": {"min_side_px": 64}, "version": 1}


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Part manifests of a stage with PARAMS."""
    for i in range(2):
        (tmp_path / f"part-0000{i}.parquet").write_text(str(i))
        path, files = tmp_path / f"part-0000{i}.json", [tmp_path / f"part-0000{i}.parquet"]
        write_part_manifest(path, files, {"kept": i}, sha256_json(PARAMS))
    return sorted(tmp_path.glob("*.json"))


def forge(part: Path, **values: object) -> None:
    write_json(part, {**json.loads(part.read_text()), **values})


@pytest.mark.parametrize("settings", [sha256_json({**PARAMS, "version": 2}), None])
def test_parts_made_with_different_settings_are_refused_with_what_to_do(
    parts: list[Path], settings: str | None
) -> None:
    forge(parts[1], settings=settings)
    remedy = "part-00001.json: made with other settings .* remove it and run `snakemake filter`"
    with pytest.raises(ValueError, match=remedy):
        write_manifest(
            parts[0].with_name("manifest.json"), stage="filter", params=PARAMS, part_manifests=parts
        )
    assert not parts[0].with_name("manifest.json").exists()


def test_a_check_tells_an_edited_and_an_exchanged_part_manifest(parts: list[Path]) -> None:
    path = parts[0].with_name("manifest.json")
    write_manifest(path, stage="filter", params=PARAMS, part_manifests=parts)
    assert check_stage(path).wrong == []
    body = json.loads(path.read_text())
    forge(parts[0], counts={"kept": 7})
    assert check_stage(path).wrong == [f"{parts[0]}: changed since {path} was written"]
    # The manifest forged as well: what the part says it was made with still tells.
    forge(parts[0], settings="0" * 64)
    write_json(path, {**body, "parts": {**body["parts"], parts[0].name: sha256_file(parts[0])}})
    assert check_stage(path).wrong == [f"{parts[0]}: was made with other settings than {path} records"]
