"""A record of what a training really saw, to check that restarts lose and repeat nothing unnoticed."""

import hashlib
import json
import os
from pathlib import Path

from darkroom.train.distributed import Ranks
from darkroom.train.loader import TrainBatch

# Set to 1, each rank keeps the record; unset, nothing is computed.
RECORD_SAMPLES = "DARKROOM_RECORD_SAMPLES"
FOLDER = "samples-seen"


class SamplesSeen:
    """Appends one JSON line a step to the rank's file, in one write, so a kill leaves whole lines.

    A line is {"step": completed steps, "samples": [[uid, noise, caption], ...]} in the order of the batch;
    `noise` are 16 hex digits of SHA-256 over the sample's noise and timestep, `caption` over its pooled
    embedding.
    """

    def __init__(self, folder: str | Path, rank: int) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._file = open(Path(folder) / f"rank-{rank:05d}.jsonl", "ab", buffering=0)  # noqa: SIM115

    def add(self, batch: TrainBatch) -> None:
        """Note a step's samples of this rank."""
        samples = [
            [
                f"{int(uid[0]):016x}{int(uid[1]):016x}",
                _digest(batch.noise[i].numpy().tobytes() + batch.timestep_normal[i].numpy().tobytes()),
                _digest(batch.conditioning.pooled[i].float().numpy().tobytes()),
            ]
            for i, uid in enumerate(batch.uids)
        ]
        self._file.write(json.dumps({"step": batch.step + 1, "samples": samples}).encode() + b"\n")


def find_samples_seen(run_dir: str | Path, ranks: Ranks) -> SamplesSeen | None:
    """The record of this rank, or None where the environment does not ask for one."""
    if os.environ.get(RECORD_SAMPLES) != "1":
        return None
    return SamplesSeen(Path(run_dir) / FOLDER, ranks.rank)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
