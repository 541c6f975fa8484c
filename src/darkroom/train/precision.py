"""Which dtype a training computes in: the configuration's, or with `auto` that of the machine it began on."""

from pathlib import Path

import torch

from darkroom.config.run import Train
from darkroom.precision import AUTO, choose, described
from darkroom.store import replacing
from darkroom.train.distributed import Ranks, broadcast_from_first
from darkroom.train.record import Log

_DTYPES = ("float32", "bfloat16")
_NAME = "dtype"


def resolve_dtype(
    settings: Train, run_dir: str | Path, ranks: Ranks, device: torch.device, log: Log
) -> Train:
    """`settings` with `auto` replaced by what all ranks and all restarts compute in.

    Rank 0 chooses by its own machine and keeps the choice in the run directory, which it holds: a training that
    has a checkpoint goes on in the dtype it began with, wherever that is.

    Raises:
        ValueError: the file with the choice holds something else.
    """
    if settings.dtype != AUTO:
        if ranks.is_first:
            log(f"train: {described(settings.dtype, device)}")
        return settings
    place = broadcast_from_first(lambda: _DTYPES.index(_chosen(Path(run_dir), device, log)), ranks)
    assert place is not None
    return settings.model_copy(update={"dtype": _DTYPES[place]})


def _chosen(run_dir: Path, device: torch.device, log: Log) -> str:
    path, (here, _) = run_dir / _NAME, choose(device)
    if any(run_dir.glob("step-*")) and path.exists():
        begun = path.read_text(encoding="utf-8").strip()
        if begun not in _DTYPES:
            raise ValueError(f"{path}: is {begun!r}, neither of {', '.join(_DTYPES)}; write which one it was")
        if begun != here:
            log(
                f"train: goes on in {begun}, which it began in; a training begun here would compute in {here}"
            )
            return begun
    with replacing(path) as beside:
        beside.write_text(f"{here}\n", encoding="utf-8")
    log(f"train: {described(AUTO, device)}")
    return here
