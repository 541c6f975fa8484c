"""Compares what a profile asks for with what a cluster has."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from darkroom.cluster.profile import Request
from darkroom.cluster.survey import Node, Partition, Survey


@dataclass(frozen=True)
class Finding:
    """Something to know about a rule; `fatal` when its jobs could never run."""

    rule: str
    text: str
    fatal: bool = True


def check(requests: Sequence[Request], cluster: Survey) -> list[Finding]:
    """What of the requests this cluster cannot give, in the requests' order; empty when it can give all."""
    return [finding for request in requests for finding in _check(request, cluster)]


def describe(request: Request) -> str:
    """One line of what a rule's jobs ask for."""
    parts = [f"{request.partition or 'the default partition'}:"]
    parts.append(f"{request.num_nodes} node{'s' * (request.num_nodes > 1)} with {request.cpus} CPUs")
    if request.gpus:
        kind = f" {request.gpu_type}" if request.gpu_type else ""
        parts.append(f"and {request.gpus}{kind} GPU{'s' * (request.gpus > 1)}")
    if request.memory_mb:
        parts.append(f"and {request.memory_mb[0]:,} MB")
    if request.minutes:
        parts.append(f"for {request.minutes:,.0f} min")
    return " ".join(parts)


def _check(request: Request, cluster: Survey) -> Iterable[Finding]:
    yield from _check_account(request, cluster)
    partition = _find_partition(request, cluster)
    if isinstance(partition, Finding):
        yield partition
        return
    nodes = [node for node in cluster.nodes if partition.name in node.partitions]
    yield from _check_limits(request, partition)
    yield from _check_nodes(request, partition, nodes)


def _find_partition(request: Request, cluster: Survey) -> Partition | Finding:
    if request.partition is None:
        default = [partition for partition in cluster.partitions.values() if partition.is_default]
        return (
            default[0]
            if default
            else Finding(request.rule, "slurm_partition: none given, and no default here")
        )
    found = cluster.partitions.get(request.partition)
    if found is not None:
        return found
    near = difflib.get_close_matches(request.partition, cluster.partitions, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    names = ", ".join(cluster.partitions) or "none"
    return Finding(request.rule, f"slurm_partition: no {request.partition} among {names}{hint}")


def _check_account(request: Request, cluster: Survey) -> Iterable[Finding]:
    if (
        request.account is not None
        and cluster.accounts is not None
        and request.account not in cluster.accounts
    ):
        yield Finding(
            request.rule,
            f"slurm_account: {request.account} is not among yours: {', '.join(cluster.accounts)}",
        )
    partition = cluster.partitions.get(request.partition or "")
    if partition is None or partition.accounts is None:
        return
    if request.account is None:
        own = cluster.accounts
        if own is None or not set(own) & set(partition.accounts):
            yield Finding(
                request.rule,
                f"slurm_account: none given; {partition.name} asks for one of {', '.join(partition.accounts)}",
            )
    elif request.account not in partition.accounts:
        yield Finding(
            request.rule,
            f"slurm_account: {partition.name} does not let {request.account} in; "
            f"it does {', '.join(partition.accounts)}",
        )


def _check_limits(request: Request, partition: Partition) -> Iterable[Finding]:
    if not partition.is_up:
        yield Finding(request.rule, f"slurm_partition: {partition.name} is not up at present", fatal=False)
    if request.minutes and partition.max_minutes is not None and request.minutes > partition.max_minutes:
        yield Finding(
            request.rule,
            f"runtime: {request.minutes:,.0f} min, but {partition.name} allows {partition.max_minutes:,.0f}",
        )
    if partition.max_nodes is not None and request.num_nodes > partition.max_nodes:
        yield Finding(
            request.rule,
            f"nodes: {request.num_nodes}, but {partition.name} allows {partition.max_nodes} a job",
        )


def _check_nodes(request: Request, partition: Partition, nodes: Sequence[Node]) -> Iterable[Finding]:
    """The nodes must have each thing, then all things together, then there must be enough of them."""
    first, last = request.memory_mb or (0, 0)
    most_gpus = max((node.num_gpus(request.gpu_type) for node in nodes), default=0)
    most_memory = max((node.memory_mb for node in nodes), default=0)
    most_cpus = max((node.cpus for node in nodes), default=0)
    where = f"a node of {partition.name}"
    found = []
    if request.gpus > most_gpus:
        kinds = sorted({kind for node in nodes for kind in node.gpus if kind})
        types = f" (types here: {', '.join(kinds)})" if kinds else ""
        kind = f" {request.gpu_type}" if request.gpu_type else ""
        found.append(f"gres: {request.gpus}{kind} GPUs, but {where} has at most {most_gpus}{types}")
    if first > most_memory:
        found.append(f"mem_mb: {first:,}, but {where} has at most {most_memory:,}")
    if request.cpus > most_cpus:
        found.append(
            f"cpus_per_task, tasks_per_node: {request.cpus} CPUs, but {where} has at most {most_cpus}"
        )
    yield from (Finding(request.rule, text) for text in found)
    fitting = [
        node
        for node in nodes
        if node.num_gpus(request.gpu_type) >= request.gpus
        and node.memory_mb >= first
        and node.cpus >= request.cpus
    ]
    if not found and len(fitting) < request.num_nodes:
        yield Finding(
            request.rule,
            f"nodes: {request.num_nodes}, but {len(fitting)} of {partition.name} have all of that",
        )
    elif not found:
        ready = sum(node.in_service for node in fitting)
        if ready < request.num_nodes:
            text = f"nodes: {request.num_nodes}, but {ready} of {len(fitting)} are in service now; jobs will wait"
            yield Finding(request.rule, text, fatal=False)
        if first <= most_memory < last:
            text = f"mem_mb: the last attempt would ask for {last:,}, but {where} has at most {most_memory:,}"
            yield Finding(request.rule, text, fatal=False)
