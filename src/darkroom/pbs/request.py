"""What a job asks for: Snakemake's resources as options of qsub, in the words of PBS Professional or of Torque."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

# How a request for nodes is written: `-l select=1:ncpus=2`, or `-l nodes=1:ppn=2`. OpenPBS is PBS Professional.
DIALECTS = ("pro", "torque")
# Resources of profiles for SLURM, which would be lost without a word, and what stands for them here.
_OF_SLURM = {
    "slurm_partition": "pbs_queue", "slurm_account": "pbs_account", "slurm_extra": "pbs_extra", "qos": "pbs_extra",
    "constraint": "pbs_chunk", "gres": "gpu", "gpus_per_task": "gpu", "tasks_per_node": "tasks",
}  # fmt: skip
# Debian's qsub for SLURM hands words on to a shell.
_WORD = re.compile(r"[A-Za-z0-9_][\w.@/:=+-]*")


def check(resources: Mapping[str, Any]) -> None:
    """Refuse what PBS is never asked for: as early as jobs are planned, when amounts may not be known.

    Raises:
        ValueError: names the resource and what is right.
    """
    if resources.get("pbs") not in DIALECTS:
        raise ValueError(f"pbs: {resources.get('pbs')!r}; it should be {' or '.join(DIALECTS)}")
    for name, here in _OF_SLURM.items():
        if resources.get(name) is not None:
            raise ValueError(f"{name}: only SLURM is asked for it; under PBS write {here}")
    nodes, mpi = resources.get("nodes", 1), resources.get("mpi")
    if nodes != 1:
        raise ValueError(
            f"nodes: {nodes}; under PBS a job has one node: write nodes: 1, and for the ranks of a training"
            " mpi: torchrun with tasks: NUMBER_OF_GPUS"
        )
    if mpi not in (None, "torchrun"):
        raise ValueError(
            f"mpi: {mpi}; under PBS torchrun starts the ranks of a training: write mpi: torchrun"
        )


def options(resources: Mapping[str, Any], threads: int) -> list[str]:
    """The options of qsub for a job with these resources and this number of threads (of each rank).

    Raises:
        ValueError: names the resource and what is right.
    """
    check(resources)
    ranks = _number(resources, "tasks", 1) if resources.get("mpi") else 1
    cpus = ranks * _number(resources, "cpus_per_task", threads)
    memory = f"{_number(resources, 'mem_mb')}mb"
    minutes = _number(resources, "runtime")
    time = f"walltime={minutes // 60:02d}:{minutes % 60:02d}:00"
    gpus = _number(resources, "gpu", 0)
    if resources["pbs"] == "pro":
        words = ["select=1", f"ncpus={cpus}", f"mem={memory}", *([f"ngpus={gpus}"] if gpus else [])]
        asked = [":".join([*words, *_words(resources, "pbs_chunk")]), time]
    else:
        words = ["nodes=1", f"ppn={cpus}", *([f"gpus={gpus}"] if gpus else [])]
        asked = [":".join([*words, *_words(resources, "pbs_chunk")]), f"mem={memory}", time]
    found = ["-l", ",".join(asked)] if resources["pbs"] == "torque" else ["-l", asked[0], "-l", asked[1]]
    for option, name in (("-q", "pbs_queue"), ("-A", "pbs_account")):
        for word in _words(resources, name):
            found += [option, word]
    return found + shlex.split(str(resources.get("pbs_extra") or ""))


def _number(resources: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = resources.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < (name != "gpu"):
        raise ValueError(f"{name}: {value!r}; it should be a whole number of {int(name != 'gpu')} or more")
    return value


def _words(resources: Mapping[str, Any], name: str) -> list[str]:
    value = resources.get(name)
    if value is None or value == "":
        return []
    if not _WORD.fullmatch(str(value)):
        raise ValueError(f"{name}: {value!r}; it should be one word, as qsub takes it")
    return [str(value)]
