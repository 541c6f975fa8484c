"""Checkpoints of ranks that hold shards: a file a rank, whole or not there, read by any number of ranks."""

import os
import resource

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as distributed_checkpoint
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from train_ranks import on_ranks

from darkroom.train import checkpoint
from darkroom.train.checkpoint import Writer, checkpoint_folder, newest_checkpoint, read_checkpoint
from darkroom.train.distributed import RankGroup, Ranks
from darkroom.train.parallel import shard_like

# Seconds of work for each start of several processes.
pytestmark = pytest.mark.slow


def tensors_of(step, num_rows=5):
    """Whole ones: rows that do not divide evenly, fewer rows than ranks, and what is not sharded."""
    made = torch.Generator().manual_seed(step)
    return {
        "weights/a": torch.randn(num_rows, 3, generator=made),
        "weights/few": torch.randn(1, 2, 2, generator=made),
        "exp_avg/a": torch.randn(num_rows, 3, generator=made).bfloat16(),
        "step/a": torch.tensor(float(step)),
        "history": torch.randn(step, 2, generator=made, dtype=torch.float64),
    }


def in_shards(tensors, mesh):
    layout = [Replicate()] * (mesh.ndim - 1) + [Shard(0)]
    return {
        name: distribute_tensor(t, mesh, layout) if name.endswith(("/a", "/few")) and t.ndim else t
        for name, t in tensors.items()
    }


def write_and_read(rank, num, mesh_shape, run_dir):
    mesh, other = init_device_mesh("cpu", mesh_shape), init_device_mesh("cpu", (num,))
    writer = Writer(run_dir, group=RankGroup(Ranks(rank, num)))
    for step in (5, 10, 15):
        writer.write(step, in_shards(tensors_of(step), mesh))
    writer.finish()
    dist.barrier()  # the first rank puts the folder in place
    expected, saved = tensors_of(15), read_checkpoint(checkpoint_folder(run_dir, 15)).tensors
    # Sharded over all ranks, as hybrid sharding did not have them.
    like = in_shards({name: torch.zeros_like(t) for name, t in expected.items()}, other)
    for name, tensor in like.items():
        ours = shard_like(saved, name, tensor)
        assert isinstance(ours, DTensor) == isinstance(tensor, DTensor)
        whole = ours.full_tensor() if isinstance(ours, DTensor) else ours
        assert whole.dtype == expected[name].dtype and torch.equal(whole, expected[name]), name
    with pytest.raises(RuntimeError, match="size mismatch for weights/few"):
        shard_like(saved, "weights/few", like["weights/a"])
    reader = HuggingFaceStorageReader(str(checkpoint_folder(run_dir, 15)))
    distributed_checkpoint.load(like, storage_reader=reader)
    for name, tensor in like.items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        assert torch.equal(whole, expected[name]), name


@pytest.mark.parametrize(("mesh_shape", "num_files"), [((3,), 3), ((2, 2), 2)])
def test_every_shard_is_written_once_and_read_by_any_number_of_ranks_and_by_torch(
    tmp_path, mesh_shape, num_files
):
    num = torch.Size(mesh_shape).numel()
    assert on_ranks(num, write_and_read, mesh_shape, tmp_path) == [0] * num
    assert newest_checkpoint(tmp_path) == 15
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]
    folder = checkpoint_folder(tmp_path, 15)
    assert len(list(folder.glob("state-*.safetensors"))) == num_files
    saved = read_checkpoint(folder).tensors
    assert saved.keys() == tensors_of(15).keys()
    for name, tensor in tensors_of(15).items():
        assert saved[name].dtype == tensor.dtype and torch.equal(saved[name], tensor), name
    last = folder / f"state-{num_files - 1:05d}.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    lines = []
    assert newest_checkpoint(tmp_path, lines.append) == 10
    assert f"the digest of {last.name} does not match" in lines[0]
    last.unlink()
    assert newest_checkpoint(tmp_path, lines.append) == 10


def write_in_trouble(rank, num, run_dir):
    """The disk of the second rank is full at step 10, and it is killed at step 20."""
    mesh = init_device_mesh("cpu", (num,))
    lines = []
    writer = Writer(run_dir, lines.append, group=RankGroup(Ranks(rank, num)))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for step in (5, 10, 15):
        if rank == 1:
            limit = 4_000 if step == 10 else hard
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # a file can grow no further
        writer.write(step, in_shards(tensors_of(step, num_rows=1_000), mesh))
        writer.wait()
    if rank == 0:
        (line,) = lines
        assert (
            "step-00000010 could not be written (rank 1: " in line and "older checkpoints are whole" in line
        )
    else:
        assert not lines
        checkpoint._sync = lambda path: os.kill(os.getpid(), 9)
    writer.write(20, in_shards(tensors_of(20, num_rows=1_000), mesh))
    with pytest.raises(RuntimeError):
        writer.finish()
    os._exit(7)


def test_a_full_disk_or_a_kill_of_one_rank_leaves_the_older_checkpoints_of_all(tmp_path):
    assert on_ranks(2, write_in_trouble, tmp_path) == [7, -9]
    assert newest_checkpoint(tmp_path) == 15
    folders = ["step-00000005", "step-00000015"]
    assert [p.name for p in sorted(tmp_path.iterdir()) if not p.name.startswith(".")] == folders
    for step in (5, 15):
        saved = read_checkpoint(checkpoint_folder(tmp_path, step)).tensors
        for name, tensor in tensors_of(step, num_rows=1_000).items():
            assert torch.equal(saved[name], tensor), name
