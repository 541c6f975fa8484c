"""Whether a training compiles its network's blocks, and which; `auto` asks the device."""

from pathlib import Path

import torch
from torch import nn

from darkroom.config.compiling import check_compiler, missing_compiler
from darkroom.config.run import Train
from darkroom.store import replacing
from darkroom.train.distributed import Ranks, broadcast_from_first
from darkroom.train.parallel import network_blocks
from darkroom.train.record import Log

_CHOICES = ("off", "on")
_NAME = "compile"
# Of GPUs, from which on inductor's kernels are worth their compilation: Ampere.
_CAPABILITY = (8, 0)


def choose(device: torch.device) -> tuple[str, str]:
    """Whether `compile: auto` compiles on a device of this machine ("on" or "off"), and why."""
    if device.type != "cuda":
        return "off", f"the device is a {device.type}"
    capability = torch.cuda.get_device_capability(device)
    told = f"the GPU's compute capability is {capability[0]}.{capability[1]}"
    if capability < _CAPABILITY:
        return "off", f"{told}, below {_CAPABILITY[0]}.{_CAPABILITY[1]}"
    missing = missing_compiler()
    return ("off", missing) if missing else ("on", told)


def resolve_compile(
    settings: Train, run_dir: str | Path, ranks: Ranks, device: torch.device, log: Log
) -> Train:
    """`settings` with `auto` replaced by what all ranks and all restarts do; chosen and kept as the dtype is.

    Raises:
        ValueError: the training began compiled and this machine has no compiler, or the file with the choice holds
            something else.
    """
    if settings.compile == "auto":
        place = broadcast_from_first(lambda: _CHOICES.index(_chosen(Path(run_dir), device, log)), ranks)
        assert place is not None
        settings = settings.model_copy(update={"compile": _CHOICES[place]})
    check_compiler(settings.compile)
    return settings


def _chosen(run_dir: Path, device: torch.device, log: Log) -> str:
    path, (here, why) = run_dir / _NAME, choose(device)
    if any(run_dir.glob("step-*")) and path.exists():
        begun = path.read_text(encoding="utf-8").strip()
        if begun not in _CHOICES:
            raise ValueError(
                f"{path}: is {begun!r}, neither of {', '.join(_CHOICES)}; write which one it was"
            )
        if begun != here:
            log(f"train: goes on with compile {begun}, as it began; one begun here would have {here}: {why}")
            return begun
    with replacing(path) as beside:
        beside.write_text(f"{here}\n", encoding="utf-8")
    log(f"train: compile auto is {here}: {why}")
    return here


def compiled_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model's network that are compiled: those without another one inside.

    Raises:
        ValueError: it has none.
    """
    blocks = network_blocks(model)
    inner = [b for b in blocks if not any(other is not b and other in set(b.modules()) for other in blocks)]
    if not inner:
        raise ValueError("train.compile: the network names no blocks to compile; write compile: off")
    return inner


def num_compiled(model: nn.Module) -> dict[str, int]:
    """How many blocks of each class are compiled."""
    names = [type(block).__name__ for block in compiled_blocks(model)]
    return {name: names.count(name) for name in sorted(set(names))}
