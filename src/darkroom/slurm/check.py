"""Compares what a profile asks for with what a cluster has."""

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from darkroom.slurm.profile import OTHERS, Request
from darkroom.slurm.sbatch import Asked
from darkroom.slurm.survey import Node, Partition, Survey


@dataclass(frozen=True)
class Finding:
    """Something to know about a rule; `fatal` when its jobs could never run."""

    rule: str
    text: str
    fatal: bool = True


def check(requests: Sequence[Request], cluster: Survey) -> list[Finding]:
    """What of the requests this cluster cannot give, in the requests' order; empty when it can give all."""
    return [finding for request in requests for finding in _check(request, cluster)]


def rule_names(folder: str | Path) -> set[str]:
    """The rules of a workflow, from the text of its Snakefile and its rules/*.smk."""
    files = [Path(folder, "Snakefile"), *sorted(Path(folder, "rules").glob("*.smk"))]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    form = r"^\s*(?:rule|checkpoint|use\s+rule\s+\w+\s+as)\s+(\w+)\s*(?:with\s*)?:"
    return set(re.findall(form, text, re.MULTILINE))


def check_rules(requests: Sequence[Request], names: Collection[str]) -> list[Finding]:
    """The requests for rules that there are not; Snakemake passes over them without a word."""
    return [
        Finding(request.rule, f"no rule has this name{_did_you_mean(request.rule, names)}")
        for request in requests
        if names and request.rule != OTHERS and request.rule not in names
    ]


def describe(request: Request) -> str:
    """One line of what a rule's jobs ask for."""
    asked = request.asked
    if asked is None:
        return "-"
    parts = [f"{' or '.join(asked.partitions) or 'the default partition'}:"]
    parts.append(f"{asked.num_nodes} node{'s' * (asked.num_nodes > 1)} with {asked.cpus} CPUs")
    for kind, number in asked.gpus.items():
        parts.append(f"and {number}{f' {kind}' if kind else ''} GPU{'s' * (number > 1)}")
    if asked.memory_mb:
        parts.append(f"and {asked.memory_mb:,} MB")
    if asked.minutes:
        parts.append(f"for {asked.minutes:,.0f} min")
    return " ".join(parts)


def _did_you_mean(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _check(request: Request, cluster: Survey) -> Iterable[Finding]:
    yield from (Finding(request.rule, text) for text in request.problems)
    yield from (Finding(request.rule, text, fatal=False) for text in request.notes)
    asked = request.asked
    if asked is None:
        return
    if asked.clusters is not None:
        text = f"clusters: what {asked.clusters} has is not known here; sbatch alone was asked"
        yield Finding(request.rule, text, fatal=False)
        return
    yield from _check_database(request.rule, asked, cluster)
    partitions = _find_partitions(request.rule, asked, cluster)
    if isinstance(partitions, Finding):
        yield partitions
        return
    # A job with several partitions runs in whichever can take it.
    tried = [[*_check_partition(request, asked, partition, cluster)] for partition in partitions]
    yield from min(tried, key=lambda found: (sum(finding.fatal for finding in found), len(found)))


def _check_partition(
    request: Request, asked: Asked, partition: Partition, cluster: Survey
) -> Iterable[Finding]:
    nodes = [node for node in cluster.nodes if partition.name in node.partitions]
    yield from _check_access(request.rule, asked, partition, cluster)
    yield from _check_limits(request.rule, asked, partition)
    nodes, unknown = _with_features(asked.constraint, nodes)
    if unknown:
        yield Finding(
            request.rule, f"constraint: no node of {partition.name} has {' or '.join(sorted(unknown))}"
        )
        return
    yield from _check_nodes(request, asked, partition, nodes)


def _find_partitions(rule: str, asked: Asked, cluster: Survey) -> list[Partition] | Finding:
    if not asked.partitions:
        default = [partition for partition in cluster.partitions.values() if partition.is_default]
        return default or Finding(rule, "slurm_partition: none given, and no default here")
    # Sbatch refuses a list with a name in it that it does not know.
    for name in asked.partitions:
        if name not in cluster.partitions:
            names = ", ".join(cluster.partitions) or "none"
            return Finding(
                rule, f"slurm_partition: no {name} among {names}{_did_you_mean(name, cluster.partitions)}"
            )
    return [cluster.partitions[name] for name in asked.partitions]


def _check_database(rule: str, asked: Asked, cluster: Survey) -> Iterable[Finding]:
    """Account and QOS, where a database knows the user's."""
    for key, name, own in (
        ("slurm_account", asked.account, cluster.accounts),
        ("qos", asked.qos, cluster.qos),
    ):
        if name is None:
            continue
        if own is not None and name not in own:
            yield Finding(rule, f"{key}: {name} is not among yours: {', '.join(own)}")
        if own is None:
            yield Finding(rule, f"{key}: {name} is passed on; no database here knows yours", fatal=False)


def _check_access(rule: str, asked: Asked, partition: Partition, cluster: Survey) -> Iterable[Finding]:
    if partition.accounts is None:
        return
    admitted = ", ".join(partition.accounts)
    if asked.account is not None and asked.account not in partition.accounts:
        text = f"slurm_account: {partition.name} does not let {asked.account} in; it does {admitted}"
        yield Finding(rule, text)
    elif asked.account is None and not set(cluster.accounts or ()) & set(partition.accounts):
        yield Finding(rule, f"slurm_account: none given; {partition.name} asks for one of {admitted}")


def _check_limits(rule: str, asked: Asked, partition: Partition) -> Iterable[Finding]:
    name = partition.name
    if not partition.is_up:
        yield Finding(rule, f"slurm_partition: {name} is not up at present", fatal=False)
    if asked.minutes and partition.max_minutes is not None and asked.minutes > partition.max_minutes:
        yield Finding(
            rule, f"runtime: {asked.minutes:,.0f} min, but {name} allows {partition.max_minutes:,.0f}"
        )
    if partition.max_nodes is not None and asked.num_nodes > partition.max_nodes:
        yield Finding(rule, f"nodes: {asked.num_nodes}, but {name} allows {partition.max_nodes} a job")


def _with_features(constraint: str | None, nodes: Sequence[Node]) -> tuple[list[Node], set[str]]:
    """The nodes that a constraint leaves, and the features in it that no node has.

    Of expressions with brackets or counts, which speak of several nodes at once, only the names are compared.
    """
    if constraint is None:
        return list(nodes), set()
    words = re.sub(r"\*\d+", "", constraint)
    names = set(re.findall(r"[^\s&|!,()\[\]]+", words))
    unknown = names - {feature for node in nodes for feature in node.features}
    if unknown and not ("|" in words and names - unknown):
        return [], unknown
    if re.search(r"[\[\]()!]", words):
        return list(nodes), set()
    choices = [set(re.split("[&,]", choice)) for choice in words.split("|")]
    return [node for node in nodes if any(choice <= node.features for choice in choices)], set()


def _check_nodes(
    request: Request, asked: Asked, partition: Partition, nodes: Sequence[Node]
) -> Iterable[Finding]:
    """The nodes must have each thing, then all things together, then there must be enough of them."""
    rule, where = request.rule, f"a node of {partition.name}"
    if asked.constraint is not None:
        where += f" with {asked.constraint}"
    memory = asked.memory_mb or 0
    last = (request.asked_last.memory_mb if request.asked_last else None) or 0
    most_memory = max((node.memory_mb for node in nodes), default=0)
    most_cpus = max((node.cpus for node in nodes), default=0)
    found = [*_lacking_gpus(asked, nodes, where)]
    if memory > most_memory:
        found.append(f"mem_mb: {memory:,}, but {where} has at most {most_memory:,}")
    if asked.cpus > most_cpus:
        found.append(f"cpus_per_task, tasks_per_node: {asked.cpus} CPUs, but {where} has at most {most_cpus}")
    yield from (Finding(rule, text) for text in found)
    if found:
        return
    fitting = [
        node
        for node in nodes
        if all(node.num_gpus(kind or None) >= number for kind, number in asked.gpus.items())
        and node.memory_mb >= memory
        and node.cpus >= asked.cpus
    ]
    ready = sum(node.in_service for node in fitting)
    if len(fitting) < asked.num_nodes:
        text = f"nodes: {asked.num_nodes}, but {len(fitting)} of {partition.name} have all of that"
        yield Finding(rule, text)
    elif ready < asked.num_nodes:
        text = f"nodes: {asked.num_nodes}, but {ready} of {len(fitting)} are in service now; jobs will wait"
        yield Finding(rule, text, fatal=False)
    if memory <= most_memory < last:
        text = f"mem_mb: the last attempt would ask for {last:,}, but {where} has at most {most_memory:,}"
        yield Finding(rule, text, fatal=False)


def _lacking_gpus(asked: Asked, nodes: Sequence[Node], where: str) -> Iterable[str]:
    kinds = sorted({kind for node in nodes for kind in node.gpus if kind})
    types = f" (types here: {', '.join(kinds)})" if kinds else ""
    for kind, number in asked.gpus.items():
        most = max((node.num_gpus(kind or None) for node in nodes), default=0)
        if number > most:
            name = f" {kind}" if kind else ""
            yield f"gres: {number}{name} GPUs, but {where} has at most {most}{types}"
