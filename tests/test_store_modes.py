"""What is written has the modes that the umask asks for, whatever library wrote it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from darkroom.lock import locked
from darkroom.store import replacing, write_json, write_table
from darkroom.store.latents import write_shard
from darkroom.train.checkpoint import Checkpoint, Writer, write_checkpoint
from darkroom.train.sharded_tensors import local_shards

TENSORS = {"weights/a": torch.zeros(3)}


@pytest.fixture(params=[0o022, 0o027, 0o002, 0o077], ids="{:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_mode & 0o7777 for path in folder.rglob("*")}


def test_files_and_folders_have_the_modes_of_the_umask(tmp_path: Path, umask: int) -> None:
    given = tmp_path / "given"
    given.mkdir()
    save_file(TENSORS, given / "model.safetensors")
    (given / "read-only.json").write_text("{}")
    (given / "read-only.json").chmod(0o444)
    out = tmp_path / "out"
    write_shard(out / "part-00000.safetensors", TENSORS, {"vae": "a"})
    write_table(out / "table.parquet", pl.DataFrame({"row": [1]}), sort_by="row")
    write_json(out / "manifest.json", {})
    with replacing(out / "model") as beside:
        shutil.copytree(given, beside / "vae")
        save_file(TENSORS, beside / "lora.safetensors")
    write_checkpoint(out / "run", Checkpoint(5, local_shards(TENSORS, True)))
    writer = Writer(out / "run")
    writer.write(10, TENSORS)
    writer.finish()
    with locked(out / "locked", 0):
        pass
    found = modes(out)
    assert len(found) == 17
    for name, mode in found.items():
        asked = 0o777 if (out / name).is_dir() else 0o666
        assert mode == asked & ~umask, (name, oct(mode))


def test_a_folders_group_bit_and_links_stay(tmp_path: Path) -> None:
    with replacing(tmp_path / "model") as beside:
        (beside / "shared").mkdir(parents=True)
        (beside / "shared").chmod(0o2700)
        (beside / "nowhere").symlink_to("missing")
    assert (tmp_path / "model/shared").stat().st_mode & 0o7000 == 0o2000
    assert (tmp_path / "model/nowhere").is_symlink()
