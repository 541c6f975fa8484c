"""Reading by offset into memory that is used again: each byte in its place, and none that is held changes."""

import gc
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from darkroom.store import reads
from darkroom.store.reads import FileState, RandomFiles, Reads
from darkroom.train import memory
from darkroom.train.memory import BatchMemory


def state_of(path):
    with open(path, "rb") as file:
        return FileState.of(path, file.fileno())


def written(folder, num=5, size=1000):
    """Files of random bytes: (their states, their bytes)."""
    contents = [np.random.default_rng(n).bytes(size) for n in range(num)]
    for n, content in enumerate(contents):
        (folder / f"{n}.bin").write_bytes(content)
    return [state_of(folder / f"{n}.bin") for n in range(num)], contents


def reads_of(runs):
    """Runs (file, offset, size) one after another."""
    files, offsets, sizes = (np.array(column, np.int64) for column in zip(*runs, strict=True))
    return Reads(files, offsets, sizes, np.cumsum(sizes) - sizes)


@hypothesis_settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 900), st.integers(0, 100)), min_size=1),
    st.integers(1, 3),
)
def test_runs_come_to_their_places_however_few_files_may_be_open(tmp_path_factory, runs, max_open):
    states, contents = written(tmp_path_factory.mktemp("files"))
    files, asked = RandomFiles(states), reads_of(runs)
    into = bytearray(int(asked.sizes.sum()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reads, "MAX_OPEN", max_open)
        files.read(asked, memoryview(into))
        assert len(files._opened) <= max_open
    assert bytes(into) == b"".join(contents[n][first : first + size] for n, first, size in runs)


def test_threads_share_files_of_which_few_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr(reads, "MAX_OPEN", 1)
    states, contents = written(tmp_path)
    files, wrong = RandomFiles(states), []

    def work(number):
        generator = np.random.default_rng(number)
        for _ in range(100):
            runs = [(int(generator.integers(5)), int(generator.integers(900)), 100) for _ in range(8)]
            into = bytearray(800)
            files.read(reads_of(runs), memoryview(into))
            if bytes(into) != b"".join(contents[n][first : first + 100] for n, first, _ in runs):
                wrong.append(runs)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_file_that_is_written_again_or_cut_short_is_refused_by_name(tmp_path):
    states, contents = written(tmp_path)
    (tmp_path / "1.bin").write_bytes(contents[1] + b"more")
    with pytest.raises(ValueError, match=r"1\.bin: was written again while it was in use"):
        RandomFiles(states).read(reads_of([(1, 0, 10)]), memoryview(bytearray(10)))
    with pytest.raises(ValueError, match=r"2\.bin: ends before byte 1010"):
        RandomFiles(states).read(reads_of([(2, 990, 20)]), memoryview(bytearray(20)))


def test_memory_is_used_again_only_when_nobody_holds_any_of_it():
    lender = BatchMemory()
    first = lender.lay_out([(3, 4), (5,)], np.int16)
    address = first.arrays[0].ctypes.data
    held = torch.from_numpy(first.arrays[0]).view(torch.float16)[1:]
    expected = held.clone()
    del first
    gc.collect()
    other = lender.take(100)
    other[:] = 255
    assert other.ctypes.data != address and torch.equal(held, expected)
    del held
    gc.collect()
    assert lender.take(100).ctypes.data == address


def test_no_more_memory_is_kept_than_batches_are_under_way():
    lender = BatchMemory()
    held = [lender.take(1) for _ in range(20)]
    held.clear()
    lender.take(1)
    assert len(lender._free) < memory.NUM_KEPT
