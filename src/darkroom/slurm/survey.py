"""What a cluster has: its partitions, nodes, accounts and QOS, as SLURM's own commands tell."""

import getpass
import re
from dataclasses import dataclass

from darkroom.slurm.commands import Unreachable, ask

OUT_OF_SERVICE = ("DOWN", "DRAIN", "FAIL", "NOT_RESPONDING", "POWERED_DOWN", "FUTURE")


@dataclass(frozen=True)
class Node:
    """One node. `gpus` is type -> number; SLURM leaves the type out on some clusters ("")."""

    name: str
    partitions: tuple[str, ...]
    cpus: int
    memory_mb: int
    gpus: dict[str, int]
    in_service: bool
    features: frozenset[str] = frozenset()

    def num_gpus(self, gpu_type: str | None) -> int:
        """GPUs of a type, or of any."""
        return sum(self.gpus.values()) if gpu_type is None else self.gpus.get(gpu_type, 0)


@dataclass(frozen=True)
class Partition:
    """One partition. None where the cluster sets no limit; `accounts` None lets everyone in."""

    name: str
    is_up: bool
    is_default: bool
    max_minutes: float | None
    max_nodes: int | None
    accounts: tuple[str, ...] | None


@dataclass(frozen=True)
class Survey:
    """A cluster. `accounts` and `qos` are the user's own; None where no database knows."""

    partitions: dict[str, Partition]
    nodes: tuple[Node, ...]
    accounts: tuple[str, ...] | None
    qos: tuple[str, ...] | None = None


def survey() -> Survey:
    """Ask the cluster of this login node.

    Raises:
        OSError: SLURM's commands are not here or the controller does not answer; has their message.
    """
    partitions = read_partitions(ask("scontrol", "show", "partition", "--oneliner"))
    nodes = read_nodes(ask("scontrol", "show", "node", "--oneliner"))
    return Survey(partitions, nodes, _own("Account"), _own("QOS"))


def _own(column: str) -> tuple[str, ...] | None:
    """The accounts or QOS of the user's associations, or None where there is no database to ask."""
    who = ("where", f"user={getpass.getuser()}")
    command = ("sacctmgr", "--noheader", "--parsable2", "show", "associations", *who, f"format={column}")
    try:
        answer = ask(*command)
    except Unreachable:
        return None
    names = [name for line in answer.splitlines() for name in line.strip().split(",") if name]
    return tuple(dict.fromkeys(names)) or None


def _fields(text: str) -> list[dict[str, str]]:
    """The `Key=value` fields of each line. Values hold no blanks, but for free text at the end of a line."""
    return [
        dict(re.findall(r"(?:^|\s)([A-Za-z:]+)=(\S*)", line)) for line in text.splitlines() if line.strip()
    ]


def read_partitions(text: str) -> dict[str, Partition]:
    """Parse `scontrol show partition --oneliner`."""
    found = {}
    for fields in _fields(text):
        accounts, max_nodes = fields.get("AllowAccounts", "ALL"), fields.get("MaxNodes", "UNLIMITED")
        found[fields["PartitionName"]] = Partition(
            name=fields["PartitionName"],
            is_up=fields.get("State") == "UP",
            is_default=fields.get("Default") == "YES",
            max_minutes=read_time(fields.get("MaxTime", "UNLIMITED")),
            max_nodes=int(max_nodes) if max_nodes.isdigit() else None,
            accounts=None if accounts == "ALL" else tuple(accounts.split(",")),
        )
    return found


def read_nodes(text: str) -> tuple[Node, ...]:
    """Parse `scontrol show node --oneliner`; nodes that belong to no partition are left out."""
    return tuple(
        Node(
            name=fields["NodeName"],
            partitions=tuple(fields["Partitions"].split(",")),
            cpus=int(fields.get("CPUEfctv", fields["CPUTot"])),
            memory_mb=int(fields["RealMemory"]),
            gpus=read_gpus(fields.get("Gres", "")),
            in_service=not any(word in fields["State"] for word in OUT_OF_SERVICE),
            features=frozenset(
                re.findall(r"[^,()]+", fields.get("AvailableFeatures", "").replace("(null)", ""))
            ),
        )
        for fields in _fields(text)
        if fields.get("Partitions")
    )


def read_gpus(gres: str) -> dict[str, int]:
    """Type -> number of a node's GPUs, from `gpu:h100:4(S:0-1),lustre:1` or `gpu:4`."""
    found: dict[str, int] = {}
    for entry in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *rest = entry.split(":")
        if name == "gpu" and rest and rest[-1].isdigit():
            kind = rest[0] if len(rest) > 1 else ""
            found[kind] = found.get(kind, 0) + int(rest[-1])
    return found


def read_time(text: str) -> float | None:
    """Minutes of SLURM's `days-hours:minutes:seconds`; None for no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return days * 1440 + hours * 60 + minutes + seconds / 60
