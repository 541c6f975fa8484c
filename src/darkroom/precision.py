"""`dtype: auto`: bfloat16 where the machine computes fast in it, float32 elsewhere.

A CPU without bfloat16 instructions emulates them: a matrix product takes 26 to 50 times as long as in float32
with AVX2, and twice as long with an AVX-512 that lacks them. The choice is by instruction sets, not by a
measurement, so that one machine always makes the same; `trials/precision.py` measures whether it is right.
"""

import os
from pathlib import Path
from typing import Literal

import torch

AUTO = "auto"
Chosen = Literal["float32", "bfloat16"]

# What /proc/cpuinfo calls them: x86's on vectors and on tiles, and Arm's.
_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
# The values of ONEDNN_MAX_CPU_ISA with which oneDNN, torch's library of matrix products, uses none of them.
_WITHOUT = {
    "SSE41",
    "AVX",
    "AVX2",
    "AVX2_VNNI",
    "AVX2_VNNI_2",
    "AVX512_CORE",
    "AVX512_CORE_VNNI",
}


def choose(device: torch.device) -> tuple[Chosen, str]:
    """The dtype that `auto` stands for on a device of this machine, and why."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "the GPU computes in it"
        return "float32", "the GPU has no bfloat16 instructions"
    if device.type != "cpu":
        return "float32", f"bfloat16 was not tried on {device.type}"
    found = sorted(_FLAGS & cpu_flags())
    if not found:
        return "float32", "the CPU has no bfloat16 instructions"
    limit = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "").upper()
    if limit in _WITHOUT:
        return "float32", f"ONEDNN_MAX_CPU_ISA is {limit}, which has no bfloat16 instructions"
    capability = torch.backends.cpu.get_cpu_capability()
    if capability in ("NO AVX", "AVX2") or not torch.backends.mkldnn.is_available():
        return "float32", f"torch uses {capability} here, without bfloat16 instructions"
    return "bfloat16", f"the CPU has {' and '.join(found)}"


def resolve(dtype: str, device: torch.device) -> str:
    """A dtype of the configuration, with `auto` replaced by what it stands for on a device of this machine."""
    return choose(device)[0] if dtype == AUTO else dtype


def described(dtype: str, device: torch.device) -> str:
    """For a log: what is computed in, and who chose it."""
    if dtype != AUTO:
        return f"computes in {dtype}, as the configuration says"
    chosen, why = choose(device)
    return f"dtype auto computes in {chosen}: {why}"


def cpu_flags(path: str | Path = "/proc/cpuinfo") -> set[str]:
    """The instruction sets that the kernel names of the CPU; none where it names none."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    # x86 calls the line `flags`, Arm `Features`.
    named = (line.partition(":") for line in lines)
    return {
        flag for name, _, flags in named if name.strip() in ("flags", "Features") for flag in flags.split()
    }
