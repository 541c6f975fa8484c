"""What a test cluster is, and the files that tell SLURM so."""

from dataclasses import dataclass
from pathlib import Path

from cluster import accounting


@dataclass(frozen=True)
class Settings:
    """The cluster's size and temper. Nodes may claim more processors and memory than the machine has."""

    num_nodes: int = 2
    cpus_per_node: int = 8
    memory_mb_per_node: int = 16_000
    gpus_per_node: int = 2
    gpu_type: str = "fake"
    # A step that takes more memory than its job asked for is killed (polled each second).
    enforce_memory: bool = False
    # A node that has not answered for this long is down.
    node_timeout_s: int = 15
    # Between a job's SIGTERM and its SIGKILL.
    kill_wait_s: int = 5
    # slurmdbd on a private MariaDB: `sacct` and accounts work.
    has_database: bool = False
    # More lines for slurm.conf.
    extra: str = ""

    @property
    def nodes(self) -> list[str]:
        return [f"n{i + 1}" for i in range(self.num_nodes)]


def write_files(folder: Path, settings: Settings, name: str, user: str, host: str, ports: list[int]) -> None:
    """Write slurm.conf, gres.conf, cgroup.conf, hosts and, with a database, slurmdbd.conf below `folder`/etc.

    `ports` has the controller's and the database's, then one a node.
    """
    etc = folder / "etc"
    names = "\n".join(f"127.0.0.1 {node}" for node in settings.nodes)
    (etc / "hosts").write_text(f"127.0.0.1 localhost {host}\n::1 localhost\n{names}\n")
    (etc / "cgroup.conf").write_text("")
    devices = folder / "dev"
    for i in range(settings.gpus_per_node):
        # slurmd asks only that a GPU's file is a device; jobs get its number in CUDA_VISIBLE_DEVICES.
        (devices / f"gpu{i}").symlink_to("/dev/null")
    gres = [
        f"NodeName={node} Name=gpu Type={settings.gpu_type} File={devices}/gpu{i}"
        for node in settings.nodes
        for i in range(settings.gpus_per_node)
    ]
    (etc / "gres.conf").write_text("\n".join(["AutoDetect=off", *gres]) + "\n")
    lines = [*_daemons(folder, settings, name, user, host, ports[0]), *_behaviour(settings)]
    if settings.has_database:
        lines += accounting.controller_lines(folder, ports[1])
        accounting.write_file(folder, user, host, ports[1])
    else:
        lines.append("AccountingStorageType=accounting_storage/none")
    lines += [*_nodes(settings, ports[2:]), *_partitions(settings), settings.extra]
    (etc / "slurm.conf").write_text("\n".join(lines) + "\n")


def _daemons(folder: Path, settings: Settings, name: str, user: str, host: str, port: int) -> list[str]:
    """Who the daemons are and where their files lie."""
    return [
        f"ClusterName={name}",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={port}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder}/run/munge",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool/%n",
        f"SlurmctldPidFile={folder}/run/slurmctld.pid",
        f"SlurmdPidFile={folder}/run/%n.pid",
        f"SlurmctldLogFile={folder}/log/slurmctld.log",
        f"SlurmdLogFile={folder}/log/%n.log",
        # Without a database, one line for each job that has ended.
        "JobCompType=jobcomp/filetxt",
        f"JobCompLoc={folder}/log/jobs.txt",
        "MailProg=/bin/true",
    ]


def _behaviour(settings: Settings) -> list[str]:
    """Processes without cgroups, scheduling at once, preempted and lost jobs requeued."""
    memory = ["JobAcctGatherType=jobacct_gather/none"]
    if settings.enforce_memory:
        memory = [
            "JobAcctGatherType=jobacct_gather/linux",
            "JobAcctGatherFrequency=task=1",
            "JobAcctGatherParams=OverMemoryKill",
        ]
    return [
        "MpiDefault=none",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        *memory,
        "SlurmdParameters=config_overrides",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,sched_interval=2,bf_interval=2",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "DefMemPerCPU=100",
        "JobRequeue=1",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "ReturnToService=2",
        f"KillWait={settings.kill_wait_s}",
        "KillOnBadExit=1",
        "CompleteWait=0",
        "InactiveLimit=0",
        # Ended jobs stay in the queue's list for the tests to look at.
        "MinJobAge=3600",
        "MessageTimeout=20",
        "SlurmctldTimeout=60",
        f"SlurmdTimeout={settings.node_timeout_s}",
    ]


def _nodes(settings: Settings, ports: list[int]) -> list[str]:
    gpus = f"Gres=gpu:{settings.gpu_type}:{settings.gpus_per_node} " if settings.gpus_per_node else ""
    size = (
        f"CPUs={settings.cpus_per_node} CoresPerSocket={settings.cpus_per_node} "
        f"RealMemory={settings.memory_mb_per_node} {gpus}State=UNKNOWN"
    )
    return ["GresTypes=gpu"] + [
        f"NodeName={node} NodeHostname={node} NodeAddr=127.0.0.1 Port={port} {size}"
        for node, port in zip(settings.nodes, ports, strict=True)
    ]


def _partitions(settings: Settings) -> list[str]:
    """As on many clusters: processors, GPUs, and GPUs that whoever has the higher priority may take back."""
    rest = f"Nodes={','.join(settings.nodes)} MaxTime=INFINITE State=UP"
    return [
        f"PartitionName=cpu {rest} Default=YES PriorityTier=10",
        f"PartitionName=gpu {rest} PriorityTier=10",
        f"PartitionName=gpu-low {rest} PriorityTier=1 PreemptMode=REQUEUE",
    ]
