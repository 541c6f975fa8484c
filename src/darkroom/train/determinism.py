"""Deterministic operators for as long as a training lasts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def deterministic(device: torch.device, num_threads: int = 0) -> Iterator[None]:
    """Deterministic operators on the device and a fixed number of threads (0: as it is), until the block ends."""
    determinism: Any = torch.utils.deterministic
    threads, was_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fills = determinism.fill_uninitialized_memory
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if num_threads:
        torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A guard for programs that read uninitialised memory; it costs a pass over every new tensor.
    determinism.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(was_deterministic)
        determinism.fill_uninitialized_memory = fills
