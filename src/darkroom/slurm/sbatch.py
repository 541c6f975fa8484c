"""The options of `sbatch` that the executor plugin makes of a rule's resources, and what they ask for.

`tests/test_sbatch_options.py` compares them with the plugin's own.
"""

import argparse
import difflib
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from darkroom.slurm.values import Value

# What the plugin sets itself, so that `slurm_extra` must not: it looks for these words anywhere in it.
_LONG = (
    "job-name", "output", "error", "export", "comment", "workdir", "account", "partition", "mem", "mem-per-cpu",
    "ntasks", "ntasks-per-gpu", "cpus-per-task", "cpus-per-gpu", "time", "constraint", "qos", "nodes", "clusters",
    "gres", "gpus",
)  # fmt: skip
_OWN = re.compile(rf"--(?:{'|'.join(_LONG)})(?=[=\s])|-J|--parsable|-[oeDApnctCN](?=\s)")
_RESOURCE_OF = {
    "--account": "slurm_account", "-A": "slurm_account", "--partition": "slurm_partition", "-p": "slurm_partition",
    "--mem": "mem_mb", "--mem-per-cpu": "mem_mb_per_cpu", "--ntasks": "tasks", "-n": "tasks",
    "--ntasks-per-gpu": "tasks_per_gpu", "--cpus-per-task": "cpus_per_task", "-c": "cpus_per_task",
    "--cpus-per-gpu": "cpus_per_gpu", "--time": "runtime", "-t": "runtime", "--constraint": "constraint",
    "-C": "constraint", "--qos": "qos", "--nodes": "nodes", "-N": "nodes", "--clusters": "clusters",
    "--gres": "gres", "--gpus": "gpu",
}  # fmt: skip
_GRES = re.compile(r"[a-zA-Z0-9_]+(:[a-zA-Z0-9_.]+)?(:\d+[TGM]?)?")
_MODEL = re.compile(r"[a-zA-Z0-9_.]+")
# The resources that Snakemake or the plugin makes something of; others are a profile's own, to count jobs by.
_HEEDED = (
    "mem", "mem_mb", "mem_mib", "disk", "disk_mb", "disk_mib", "runtime", "tmpdir", "shell_exec", "mpi", "nodes",
    "tasks", "tasks_per_node", "tasks_per_gpu", "cpus_per_task", "cpus_per_gpu", "mem_mb_per_cpu", "gpu",
    "gpu_model", "gres", "constraint", "qos", "cluster", "clusters", "slurm_cluster", "slurm_partition",
    "slurm_account", "slurm_extra",
)  # fmt: skip
_INTEGERS = ("nodes", "tasks", "tasks_per_node", "tasks_per_gpu", "cpus_per_task", "cpus_per_gpu", "mem_mb")


def problems(values: Mapping[str, Value]) -> list[str]:
    """What of a rule's resources the executor plugin, or Snakemake, refuses when it submits the job."""
    found = []
    for key in _INTEGERS:
        if isinstance(values.get(key), str):
            instead = f"a number without quotes, or mem: {values[key]}" if key == "mem_mb" else "a number"
            found.append(f"{key} is {values[key]!r}, a text; it should be {instead}")
    if found:
        return found
    extra = values.get("slurm_extra") or ""
    if not isinstance(extra, str):
        return [f"slurm_extra is {extra!r}; it should be a text of options, between both kinds of quotes"]
    try:
        shlex.split(extra)
    except ValueError as error:
        found.append(f"slurm_extra: {extra}: a shell cannot read it ({error})")
    if match := _OWN.search(extra):
        option = match[0]
        other = _RESOURCE_OF.get(option)
        remedy = f"; set {other} instead" if other else ""
        found.append(f"slurm_extra: the executor does not take {option} in it{remedy}")
    found += _problems_of_gpus(values)
    if values.get("nodes") == 0 or isinstance(values.get("nodes"), bool):
        found.append(f"nodes: {values['nodes']}; it should be 1 or more")
    return found + (_problems_of_ranks(values) if values.get("mpi") else [])


def unheeded(keys: Iterable[str]) -> list[str]:
    """The resources that are probably misspelt: neither Snakemake nor the plugin says a word of them."""
    found = []
    for key in keys:
        near = difflib.get_close_matches(key, _HEEDED, n=1, cutoff=0.7)
        if near and key not in _HEEDED:
            found.append(f"{key}: neither Snakemake nor the executor heeds it; did you mean {near[0]}?")
    return found


def _problems_of_gpus(values: Mapping[str, Value]) -> list[str]:
    gres, model = str(values.get("gres") or ""), str(values.get("gpu_model") or "")
    found = []
    if gres and not _GRES.fullmatch(gres):
        kind = re.fullmatch(r"gpu:([^:,]+):(\d+)", gres)
        instead = "NAME, NAME:NUMBER or NAME:TYPE:NUMBER, of one thing, with letters, digits, _ and ."
        if kind:
            instead = f"""slurm_extra: "'--gpus-per-node={kind[1]}:{kind[2]}'" without gres"""
        found.append(f"gres: the executor does not take {gres!r}; write {instead}")
    if model and not _MODEL.fullmatch(model):
        number_of = values.get("gpu", 1)
        found.append(
            f"gpu_model: the executor does not take {model!r}; write "
            f"""slurm_extra: "'--gpus-per-node={model}:{number_of}'" without gpu and gpu_model"""
        )
    return found


def _problems_of_ranks(values: Mapping[str, Value]) -> list[str]:
    per_node, tasks = values.get("tasks_per_node"), values.get("tasks")
    if bool(per_node) == bool(tasks):
        return ["mpi: it needs either tasks_per_node or tasks, and not both"]
    key, number = ("tasks_per_node", per_node) if per_node else ("tasks", tasks)
    return [f"{key}: {number}; with mpi it should be 2 or more"] if number == 1 else []


def options(values: Mapping[str, Value], threads: int) -> list[str]:
    """The options, without those that change nothing about where a job may run; `values` have no problems."""
    made = []
    for option, keys in (
        ("-A", ("slurm_account",)),
        ("-p", ("slurm_partition",)),
        ("--clusters", ("cluster", "clusters", "slurm_cluster")),
        ("-t", ("runtime",)),
    ):
        if value := next((values[key] for key in keys if values.get(key)), None):
            made += [option, str(value)]
    if "constraint" in values:
        made += ["-C", str(values["constraint"])]
    if "qos" in values:
        made.append(f"--qos={values['qos']}")
    if values.get("mem_mb_per_cpu"):
        made += ["--mem-per-cpu", str(values["mem_mb_per_cpu"])]
    elif values.get("mem_mb"):
        made += ["--mem", str(values["mem_mb"])]
    if "nodes" in values:
        made.append(f"--nodes={values['nodes']}")
    for option in ("qos", "reservation"):
        if f"settings.{option}" in values:
            made.append(f"--{option}={values[f'settings.{option}']}")
    has_gpus = bool(values.get("gpu")) or "gpu" in str(values.get("gres", ""))
    made += _tasks(values, has_gpus)
    made += _cpus(values, threads, has_gpus)
    made += shlex.split(str(values.get("slurm_extra") or ""))
    if values.get("gres"):
        made.append(f"--gres={values['gres']}")
    if values.get("gpu_model"):
        made.append(f"--gpus={values['gpu_model']}:{values.get('gpu', 1)}")
    elif values.get("gpu"):
        made.append(f"--gpus={values['gpu']}")
    return made


def _tasks(values: Mapping[str, Value], has_gpus: bool) -> list[str]:
    made = []
    per_gpu = values.get("tasks_per_gpu", values.get("tasks"))
    if has_gpus and per_gpu is not None and int(per_gpu) >= 1:
        made.append(f"--ntasks-per-gpu={per_gpu}")
    if not values.get("mpi"):
        return made if has_gpus else [f"--ntasks={values.get('tasks') or 1}"]
    if values.get("tasks_per_node"):
        return [*made, f"--ntasks-per-node={values['tasks_per_node']}"]
    return [*made, f"--ntasks={values['tasks']}"]


def _cpus(values: Mapping[str, Value], threads: int, has_gpus: bool) -> list[str]:
    if values.get("cpus_per_task"):
        number = int(values["cpus_per_task"])
        return [f"--cpus-per-task={number}"] if number > 0 else []
    if has_gpus and values.get("cpus_per_gpu"):
        number = int(values["cpus_per_gpu"])
        return [f"--cpus-per-gpu={number}"] if number > 0 else []
    return [f"--cpus-per-task={threads}"]


@dataclass(frozen=True)
class Asked:
    """What options ask for; `memory_mb`, `cpus` and `gpus` (type -> number, "" for any) on each node."""

    partitions: tuple[str, ...]
    account: str | None
    qos: str | None
    constraint: str | None
    num_nodes: int
    cpus: int
    gpus: dict[str, int]
    memory_mb: int | None
    minutes: float | None
    clusters: str | None = None


def read(words: Sequence[str]) -> Asked:
    """Read options as sbatch does: the last of a kind holds, and long ones may be cut short.

    Raises:
        ValueError: a number of them cannot be read; names the option.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    for names in (
        "-A --account", "-p --partition", "-t --time", "-C --constraint", "-q --qos", "-N --nodes", "-n --ntasks",
        "-c --cpus-per-task", "-G --gpus", "--mem", "--mem-per-cpu", "--mem-per-gpu", "--ntasks-per-node",
        "--ntasks-per-gpu", "--cpus-per-gpu", "--gres", "--gpus-per-node", "--gpus-per-task",
        "-M --clusters",
    ):  # fmt: skip
        parser.add_argument(*names.split())
    try:
        got = vars(parser.parse_known_args(list(words))[0])
    except argparse.ArgumentError as error:
        raise ValueError(f"slurm_extra: {error}") from None
    num_nodes = int((got["nodes"] or "1").split("-")[0])
    tasks = int(got["ntasks"] or 1)
    per_node = int(got["ntasks_per_node"] or math.ceil(tasks / num_nodes))
    gpus = _gpus(got, num_nodes, per_node)
    if got["ntasks_per_gpu"] and not got["ntasks"] and not got["ntasks_per_node"]:
        per_node = int(got["ntasks_per_gpu"]) * sum(gpus.values())
    cpus = per_node * int(got["cpus_per_task"] or 1)
    if got["cpus_per_gpu"]:
        cpus = max(cpus, int(got["cpus_per_gpu"]) * sum(gpus.values()))
    memory = None
    if got["mem_per_cpu"]:
        memory = _megabytes("--mem-per-cpu", got["mem_per_cpu"]) * cpus
    elif got["mem"] and got["mem"] != "0":
        memory = _megabytes("--mem", got["mem"])
    return Asked(
        tuple(name for name in (got["partition"] or "").split(",") if name),
        got["account"], got["qos"], got["constraint"] or None, num_nodes, cpus, gpus, memory,
        None if got["time"] is None else minutes(got["time"]), got["clusters"],
    )  # fmt: skip


def _gpus(got: Mapping[str, str | None], num_nodes: int, per_node: int) -> dict[str, int]:
    """GPUs on each node, by type."""
    if got["gpus_per_node"]:
        return _kinds("--gpus-per-node", got["gpus_per_node"])
    if got["gpus_per_task"]:
        return {kind: n * per_node for kind, n in _kinds("--gpus-per-task", got["gpus_per_task"]).items()}
    if got["gres"]:
        entries = [entry.split(":", 1) for entry in got["gres"].split(",")]
        of_gpus = [rest[0] if rest else "1" for name, *rest in entries if name == "gpu"]
        return _kinds("--gres", ",".join(of_gpus)) if of_gpus else {}
    total = _kinds("--gpus", got["gpus"]) if got["gpus"] else {}
    return {kind: math.ceil(n / num_nodes) for kind, n in total.items()}


def _kinds(option: str, text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in text.split(","):
        *kind, number = entry.split(":")
        if not number.isdigit():
            kind, number = [entry], "1"
        if len(kind) > 1:
            raise ValueError(f"{option}={text}: it should be NUMBER or TYPE:NUMBER")
        name = kind[0] if kind else ""
        found[name] = found.get(name, 0) + int(number)
    return found


def _megabytes(option: str, text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"{option} {text}: it should be MB, or a number with K, M, G or T")
    return math.ceil(
        int(match[1]) * {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2}[match[2].upper()]
    )


def minutes(text: str) -> float:
    """Minutes of sbatch's `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours[:minutes[:seconds]]`.

    Raises:
        ValueError: it is none of these.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None:
        raise ValueError(f"--time={text}: it should be minutes, HOURS:MINUTES:SECONDS or DAYS-HOURS")
    days, *rest = match.groups()
    numbers = [int(part) for part in rest if part is not None]
    if days is not None:
        units = (60.0, 1.0, 1 / 60)
    else:
        units = {1: (1.0,), 2: (1.0, 1 / 60), 3: (60.0, 1.0, 1 / 60)}[len(numbers)]  # type: ignore[assignment]
    return int(days or 0) * 1440 + sum(n * unit for n, unit in zip(numbers, units, strict=False))
