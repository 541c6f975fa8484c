"""`darkroom draw`: a file of prompts in chunks, by any number of processes, and on from where it was killed."""

import io
import tarfile

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sample_folders import ours as ours
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.draw import many
from darkroom.draw.many import Share

SMALL = ("--steps", 2, "--width", 32, "--height", 16, "--batch-size", 4, "--prompts-per-chunk", 4)


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"circle number {number}\n" for number in range(11)))
    return path


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["draw", *map(str, arguments)])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def content(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "model").iterdir())}


def test_any_number_of_processes_draw_the_same_pictures(ours, prompts, tmp_path):
    told = run(ours, prompts, "--out", tmp_path / "one", "--num-pictures", 2, *SMALL)
    assert "3 chunks, 22 pictures drawn now" in told
    for share in ("2/2", "1/2"):
        run(ours, prompts, "--out", tmp_path / "two", "--num-pictures", 2, "--share", share, *SMALL)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert (tmp_path / "one/settings.json").read_bytes() == (tmp_path / "two/settings.json").read_bytes()
    tables = [pl.read_parquet(path) for path in sorted((tmp_path / "one/model").glob("*.parquet"))]
    table = pl.concat(tables)
    assert table["prompt"].to_list() == [f"circle number {n}" for n in range(11) for _ in range(2)]
    assert table["seed"].n_unique() == 22
    with tarfile.open(tmp_path / "one/model/chunk-00002.tar") as tar:
        picture = Image.open(io.BytesIO(tar.extractfile("00010/samples/0001.png").read()))
    assert picture.size == (32, 16) and np.asarray(picture).std() > 0


def test_a_killed_one_goes_on_with_the_chunks_that_are_left(ours, prompts, tmp_path, monkeypatch):
    whole, out, drawn = tmp_path / "whole", tmp_path / "out", []
    run(ours, prompts, "--out", whole, *SMALL)
    draw_chunk = many.draw_chunk

    def killed(model, chunk, *rest):
        if chunk == "chunk-00001":
            raise KeyboardInterrupt
        drawn.append(chunk)
        return draw_chunk(model, chunk, *rest)

    monkeypatch.setattr(many, "draw_chunk", killed)
    CliRunner().invoke(app, ["draw", *map(str, (ours, prompts, "--out", out, *SMALL))])
    assert drawn == ["chunk-00000"] and not (out / "model/chunk-00001.parquet").exists()
    monkeypatch.setattr(many, "draw_chunk", draw_chunk)
    assert "1 of 3 chunks are there already" in run(ours, prompts, "--out", out, *SMALL)
    assert content(out) == content(whole)
    assert "0 pictures drawn now" in run(ours, prompts, "--out", out, *SMALL)


def test_a_folder_holds_pictures_of_one_kind(ours, prompts, tmp_path):
    out = tmp_path / "out"
    run(ours, prompts, "--out", out, *SMALL)
    told = run(ours, prompts, "--out", out, *SMALL, "--seed", 3, code=2)
    assert "were drawn otherwise (seed was 0 and is 3)" in told
    prompts.write_text("another\n")
    assert "prompts.number was 11 and is 1" in run(ours, prompts, "--out", out, *SMALL, code=2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    told = run(ours, prompts, "--out", tmp_path / "full", *SMALL, code=2)
    assert "was not drawn by this command" in told


@pytest.mark.parametrize("share", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="write 1/8 to 8/8"):
        Share.read(share)


def test_a_missing_file_and_a_wrong_size_are_told(ours, prompts, tmp_path):
    assert "no file" in run(ours, tmp_path / "none.txt", "--out", tmp_path / "out", *SMALL, code=2)
    told = run(ours, prompts, "--out", tmp_path / "out", *SMALL, "--width", 33, code=2)
    assert "33x16: this model draws multiples of" in told
