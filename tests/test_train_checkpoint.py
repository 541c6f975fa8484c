"""Checkpoints: whole or passed over, the newest two kept."""

import errno
import json
import os
import subprocess

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as distributed_checkpoint
import warm
from ranks import free_port
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from darkroom.config.run import Train
from darkroom.families.mmdit import MMDiTModel
from darkroom.train import checkpoint as checkpoints
from darkroom.train.checkpoint import (
    Checkpoint,
    Writer,
    checkpoint_folder,
    newest_checkpoint,
    read_checkpoint,
    run_key,
    write_checkpoint,
)
from darkroom.train.sharded_tensors import local_shards


def tensors_of(step):
    return {"weights/a": torch.full((3,), float(step)), "history": torch.zeros(step, 2)}


def make(step):
    return Checkpoint(step, local_shards(tensors_of(step), True))


def test_a_checkpoint_comes_back_as_written(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, make(7))
    assert newest_checkpoint(tmp_path) == 7
    found = read_checkpoint(checkpoint_folder(tmp_path, 7))
    assert found.step == 7
    assert found.tensors.keys() == tensors_of(7).keys()
    assert all(torch.equal(found.tensors[name], t) for name, t in tensors_of(7).items())


def test_a_checkpoint_of_an_older_format_is_passed_over_aloud(tmp_path):
    # Before format 2, names of weights had no `network.`: loading one would fail by a list of names.
    folder = write_checkpoint(tmp_path, make(10))
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "format": 1}))
    lines = []
    assert newest_checkpoint(tmp_path, lines.append) is None
    (line,) = lines
    assert "step-00000010: passed over, its format is 1, of another version" in line


def test_the_newest_two_are_kept(tmp_path):
    for step in (5, 10, 15):
        write_checkpoint(tmp_path, make(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]


@pytest.mark.parametrize("damage", ["cut", "flip", "no state", "no tensors", "half a state"])
def test_a_torn_checkpoint_is_passed_over_aloud_and_kept_until_its_step_is_done_again(tmp_path, damage):
    for step in (5, 10):
        write_checkpoint(tmp_path, make(step))
    tensors, state = (checkpoint_folder(tmp_path, 10) / name for name in ("state.safetensors", "state.json"))
    whole = tensors.read_bytes()
    if damage == "cut":
        tensors.write_bytes(whole[:-1])
    elif damage == "flip":
        tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "no state":
        state.unlink()
    elif damage == "no tensors":
        tensors.unlink()
    else:
        state.write_bytes(state.read_bytes()[:20])
    heard = []
    assert newest_checkpoint(tmp_path, heard.append) == 5
    assert len(heard) == 1 and "step-00000010: passed over" in heard[0]
    assert newest_checkpoint(tmp_path, heard.append, set_aside=True) == 5
    for step in (8, 12, 15):
        write_checkpoint(tmp_path, make(step))
        torn = ["torn-step-00000010"] if step == 8 else []
        assert [p.name for p in sorted(tmp_path.iterdir()) if p.name.startswith("torn")] == torn
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000012", "step-00000015"]


def away(monkeypatch, number, num_failures):
    """A disk that refuses to read a checkpoint's tensors so often."""
    read, failures = checkpoints.sha256_file, iter(range(num_failures))

    def digest(path):
        if next(failures, None) is not None:
            raise OSError(number, os.strerror(number), str(path))
        return read(path)

    monkeypatch.setattr(checkpoints, "sha256_file", digest)
    monkeypatch.setattr(checkpoints, "RETRY_S", (0.01, 0.01))


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES, errno.ETIMEDOUT])
@pytest.mark.parametrize("set_aside", [False, True])
def test_a_checkpoint_that_cannot_be_read_ends_the_training_and_is_neither_passed_over_nor_removed(
    tmp_path, monkeypatch, number, set_aside
):
    for step in (5, 10):
        write_checkpoint(tmp_path, make(step))
    away(monkeypatch, number, 100)
    with pytest.raises(OSError, match=r"step-00000010 cannot be read .* nothing is removed"):
        newest_checkpoint(tmp_path, lambda _: None, set_aside)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000005", "step-00000010"]


def test_a_disk_that_answers_again_costs_nothing(tmp_path, monkeypatch):
    for step in (5, 10):
        write_checkpoint(tmp_path, make(step))
    away(monkeypatch, errno.ESTALE, 2)
    heard = []
    assert newest_checkpoint(tmp_path, heard.append) == 10
    assert len(heard) == 2 and "trying again" in heard[0]


def test_a_newer_checkpoint_is_never_removed(tmp_path):
    for step in (5, 10, 8):
        write_checkpoint(tmp_path, make(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000005", "step-00000008", "step-00000010"]


def test_a_kill_while_writing_leaves_the_older_checkpoint(tmp_path):
    write_checkpoint(tmp_path, make(5))
    code = (
        "import os, sys, torch, darkroom.train.checkpoint as c\n"
        "c._sync = lambda path: os.kill(os.getpid(), 9)\n"
        "c.write_checkpoint(sys.argv[1], c.Checkpoint(10, c.local_shards({'weights/a': torch.zeros(3)}, True)))\n"
    )
    environment = warm.jobs.environment(os.environ)
    killed = subprocess.run(["python", "-c", code, str(tmp_path)], check=False, env=environment)
    assert killed.returncode == -9
    assert newest_checkpoint(tmp_path) == 5
    write_checkpoint(tmp_path, make(10))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000005", "step-00000010"]


def test_the_background_writer_keeps_what_the_tensors_were(tmp_path):
    writer, weights = Writer(tmp_path), torch.ones(4)
    writer.write(3, {"weights/a": weights})
    weights.zero_()
    writer.wait()
    assert torch.equal(read_checkpoint(checkpoint_folder(tmp_path, 3)).tensors["weights/a"], torch.ones(4))


def test_a_checkpoint_that_cannot_be_written_is_told_and_only_the_last_one_ends_the_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    heard = []
    writer = Writer(tmp_path / "file", heard.append)
    writer.write(3, {"weights/a": torch.ones(4)})
    writer.write(4, {"weights/a": torch.ones(4)})
    with pytest.raises(OSError, match=r"step-00000004 could not be written .*older checkpoints are whole"):
        writer.finish()
    assert len(heard) == 2
    assert "step-00000003 could not be written" in heard[0] and "the training goes on" in heard[0]


def test_what_is_no_error_of_the_disk_is_raised_at_the_next_checkpoint(tmp_path):
    def refuse():
        raise RuntimeError("taken over by another training")

    writer = Writer(tmp_path, check=refuse)
    writer.write(3, {"weights/a": torch.ones(4)})
    with pytest.raises(RuntimeError, match="taken over"):
        writer.write(4, {"weights/a": torch.ones(4)})
    assert not list(tmp_path.iterdir())


def test_on_a_full_disk_the_older_checkpoint_stays_and_the_half_of_the_new_one_goes(tmp_path):
    write_checkpoint(tmp_path, make(5))
    code = (
        "import resource, sys, torch\nfrom darkroom.train.checkpoint import Writer\n"
        "writer = Writer(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"  # a file can grow no further
        "writer.write(10, {'weights/a': torch.zeros(10_000)})\n"
        "writer.write(15, {'weights/a': torch.zeros(100)})\n"
        "writer.finish()\n"
    )
    command = ["python", "-c", code, str(tmp_path)]
    environment = warm.jobs.environment(os.environ)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "step-00000010 could not be written" in done.stdout and "GB are free" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000005", "step-00000015"]
    assert newest_checkpoint(tmp_path) == 15


def test_the_run_key_follows_what_decides_the_weights_and_the_samples_only():
    model = MMDiTModel(num_blocks=1, num_heads=1)
    settings = Train(num_steps=10, global_batch_size=4, microbatch_size=4)
    key = run_key(model, settings, 0, "a" * 64)
    assert len(key) == 12 and int(key, 16) >= 0
    same = {"microbatch_size": 2, "num_threads": 1, "checkpoint_every_steps": 7, "log_every_steps": 3}
    assert run_key(model, settings.model_copy(update=same), 0, "a" * 64) == key
    others = [
        run_key(model.model_copy(update={"num_heads": 2}), settings, 0, "a" * 64),
        run_key(model, settings.model_copy(update={"learning_rate": 1e-3}), 0, "a" * 64),
        run_key(model, settings.model_copy(update={"num_steps": 11}), 0, "a" * 64),
        run_key(model, settings.model_copy(update={"sample_prompts": ("a",)}), 0, "a" * 64),
        run_key(model, settings, 1, "a" * 64),
        run_key(model, settings, 0, "b" * 64),
    ]
    assert len({key, *others}) == 7


def test_the_run_key_knows_no_number_of_steps_where_the_learning_rate_does_not_depend_on_it():
    model = MMDiTModel(num_blocks=1, num_heads=1)
    sizes = {"global_batch_size": 4, "microbatch_size": 4}
    constant = {**sizes, "learning_rate_decay": "constant"}
    keys = [run_key(model, Train(num_steps=steps, **constant), 0, "a") for steps in (10, 20)]
    stable = [
        run_key(model, Train(num_steps=steps, num_decay_steps=decay, **sizes), 0, "a")
        for steps, decay in ((10, 5), (20, 5), (20, 10))
    ]
    assert len({*keys}) == 1 and len({*stable}) == 1 and keys[0] != stable[0]


def read_sharded(rank, port, run_dir):
    """One of two ranks that each hold half of every tensor's rows, as FSDP2 has them."""
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    tensors = {
        name: distribute_tensor(torch.zeros_like(tensor), mesh, [Shard(0)])
        for name, tensor in tensors_of(7).items()
    }
    reader = HuggingFaceStorageReader(str(checkpoint_folder(run_dir, 7)))
    distributed_checkpoint.load(tensors, storage_reader=reader)
    for name, tensor in tensors_of(7).items():
        half = tensor.chunk(2)[rank]
        assert len(half) < len(tensor) and torch.equal(tensors[name].to_local(), half), name
    dist.destroy_process_group()


def test_torchs_distributed_checkpoint_reads_a_checkpoint_into_sharded_tensors(tmp_path):
    write_checkpoint(tmp_path, make(7))
    torch.multiprocessing.spawn(read_sharded, (free_port(), tmp_path), nprocs=2)
