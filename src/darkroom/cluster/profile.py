"""What each rule asks for, read from a profile as Snakemake and its SLURM executor read it."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# The rules that a profile does not name.
OTHERS = "other rules"
MINUTES = {"s": 1 / 60, "m": 1, "h": 60, "d": 1440}


@dataclass(frozen=True)
class Request:
    """What one job of a rule asks for; None where the profile leaves it to the cluster.

    `memory_mb` is on each node, for the first and for the last attempt; `cpus` and `gpus` are on each node.
    """

    rule: str
    partition: str | None
    account: str | None
    num_nodes: int
    cpus: int
    gpus: int
    gpu_type: str | None
    memory_mb: tuple[int, int] | None
    minutes: float | None


def read_profile(path: str | Path) -> list[Request]:
    """The requests of a profile, in its order, those of all other rules last.

    `path` is the profile's folder or its file.

    Raises:
        ValueError: the file is missing or a value cannot be understood; names rule, key and value.
    """
    file = Path(path) / "profile.yaml" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise ValueError(f"{file}: no such profile; --profile names a folder with a profile.yaml")
    values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    defaults, rules = values.get("default-resources", {}), values.get("set-resources", {})
    threads, retries = values.get("set-threads", {}), int(values.get("retries", 0))
    names = [*rules, *(name for name in threads if name not in rules), OTHERS]
    requests = []
    for name in names:
        merged = {**defaults, **rules.get(name, {})}
        try:
            requests.append(_request(name, merged, int(threads.get(name, 1)), retries + 1))
        except ValueError as error:
            raise ValueError(f"{file}: {name}: {error}") from None
    return requests


def _request(rule: str, values: Mapping[str, Any], threads: int, attempts: int) -> Request:
    num_nodes = _number("nodes", values.get("nodes", 1))
    per_node = values.get("tasks_per_node")
    if per_node is None:
        tasks = _number("tasks", values.get("tasks", 1))
        per_node = -(-tasks // num_nodes)
    gpu_type, gpus = _gpus(values, num_nodes)
    memory = values.get("mem_mb")
    runtime = values.get("runtime")
    return Request(
        rule=rule,
        partition=_text(values.get("slurm_partition")),
        account=_text(values.get("slurm_account")),
        num_nodes=num_nodes,
        cpus=_number("cpus_per_task", values.get("cpus_per_task", threads))
        * _number("tasks_per_node", per_node),
        gpus=gpus,
        gpu_type=gpu_type,
        memory_mb=None
        if memory is None
        else (_number("mem_mb", memory, 1), _number("mem_mb", memory, attempts)),
        minutes=None if runtime is None else _minutes(runtime),
    )


def _text(value: Any) -> str | None:
    """A value without the quotes that keep Snakemake from evaluating it."""
    return None if value is None else str(value).strip("'\"")


def _gpus(values: Mapping[str, Any], num_nodes: int) -> tuple[str | None, int]:
    """Type and number of GPUs on each node, from `gres` (each node) or `gpu` (all nodes together)."""
    gres = _text(values.get("gres"))
    if gres is not None:
        match = re.fullmatch(r"gpu(?::([^:]+))?:(\d+)", gres)
        if match is None:
            raise ValueError(f"gres is {gres!r}; it should be gpu:NUMBER or gpu:TYPE:NUMBER")
        return match[1], int(match[2])
    return _text(values.get("gpu_model")), -(-_number("gpu", values.get("gpu", 0)) // num_nodes)


def _minutes(value: Any) -> float:
    """Minutes of `90`, `"2h"` or `"1d 12h"`."""
    text = str(_text(value)).lower().replace(" ", "")
    if text.isdigit():
        return int(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])[a-z]*", text)
    if not parts or not re.fullmatch(r"(?:\d+(?:\.\d+)?[smhd][a-z]*)+", text):
        raise ValueError(f"runtime is {value!r}; it should be minutes or a time like 90m, 2h, 1d12h")
    return sum(float(number) * MINUTES[unit] for number, unit in parts)


def _number(key: str, value: Any, attempt: int = 1) -> int:
    """A whole number, or arithmetic on numbers and `attempt`."""
    try:
        return int(_evaluate(ast.parse(str(value), mode="eval").body, attempt))
    except (SyntaxError, ValueError, ZeroDivisionError):
        raise ValueError(
            f"{key} is {value!r}; it should be a number, or one made of numbers and `attempt`"
        ) from None


def _evaluate(node: ast.expr, attempt: int) -> float:
    match node:
        case ast.Constant(value=int() | float()):
            return float(node.value)  # type: ignore[arg-type]
        case ast.Name(id="attempt"):
            return attempt
        case ast.BinOp(left=left, op=operator, right=right):
            a, b = _evaluate(left, attempt), _evaluate(right, attempt)
            match operator:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.Div():
                    return a / b
    raise ValueError
