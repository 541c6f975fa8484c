"""`darkroom cluster check`: what a profile asks for that a cluster does not have, before anything is submitted."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from cluster import Cluster
from conftest import ROOT
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.cluster import Request, Survey, check, read_profile
from darkroom.cluster.survey import read_gpus, read_nodes, read_partitions, read_time

# `scontrol show partition --oneliner`, shortened.
PARTITIONS = """\
PartitionName=std AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES MaxNodes=UNLIMITED \
MaxTime=1-00:00:00 MinNodes=0 Nodes=c[1-2] PriorityTier=1 State=UP TotalCPUs=128 TotalNodes=2
PartitionName=a100 AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=NO MaxNodes=2 MaxTime=12:00:00 \
Nodes=g[1-3] PriorityTier=1 State=UP TotalCPUs=192 TotalNodes=3
PartitionName=h100 AllowGroups=ALL AllowAccounts=vision,speech Default=NO MaxNodes=UNLIMITED \
MaxTime=UNLIMITED Nodes=h1 PriorityTier=1 State=DOWN TotalCPUs=96 TotalNodes=1
"""
# `scontrol show node --oneliner`, shortened.
NODES = """\
NodeName=c1 Arch=x86_64 CPUAlloc=3 CPUEfctv=62 CPUTot=64 Gres=(null) RealMemory=250000 State=MIXED Partitions=std
NodeName=c2 Arch=x86_64 CPUAlloc=0 CPUTot=64 Gres=(null) RealMemory=250000 State=IDLE Partitions=std
NodeName=g1 CPUTot=64 Gres=gpu:a100:4(S:0-1),nvme:1 RealMemory=500000 State=IDLE+DRAIN Partitions=std,a100 \
Reason=bad fan [root@2026-01-01T00:00:00]
NodeName=g2 CPUTot=64 Gres=gpu:a100:4(S:0-1) RealMemory=500000 State=ALLOCATED Partitions=a100
NodeName=g3 CPUTot=64 Gres=gpu:a100:2(S:0) RealMemory=500000 State=IDLE Partitions=a100
NodeName=h1 CPUTot=96 Gres=gpu:h100:8 RealMemory=2000000 State=IDLE Partitions=h100
NodeName=spare CPUTot=96 Gres=gpu:8 RealMemory=2000000 State=IDLE
"""
CLUSTER = Survey(read_partitions(PARTITIONS), read_nodes(NODES), ("vision",))
FITS = Request("train", "a100", None, 1, 16, 2, None, (100_000, 400_000), 600)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, []),
        ({"partition": "a10"}, ["slurm_partition: no a10 among std, a100, h100; did you mean a100?"]),
        ({"partition": None, "gpus": 0}, []),
        ({"account": "visoin"}, ["slurm_account: visoin is not among yours: vision"]),
        (
            {"partition": "h100", "account": "theirs"},
            [
                "slurm_account: theirs is not among yours: vision",
                "slurm_account: h100 does not let theirs in; it does vision, speech",
                "note: slurm_partition: h100 is not up at present",
            ],
        ),
        ({"gpus": 8}, ["gres: 8 GPUs, but a node of a100 has at most 4 (types here: a100)"]),
        ({"gpu_type": "h100"}, ["gres: 2 h100 GPUs, but a node of a100 has at most 0 (types here: a100)"]),
        ({"gpu_type": "a100"}, []),
        ({"memory_mb": (600_000, 600_000)}, ["mem_mb: 600,000, but a node of a100 has at most 500,000"]),
        (
            {"memory_mb": (400_000, 800_000)},
            ["note: mem_mb: the last attempt would ask for 800,000, but a node of a100 has at most 500,000"],
        ),
        ({"cpus": 65}, ["cpus_per_task, tasks_per_node: 65 CPUs, but a node of a100 has at most 64"]),
        ({"minutes": 721}, ["runtime: 721 min, but a100 allows 720"]),
        (
            {"num_nodes": 3, "gpus": 4},
            ["nodes: 3, but a100 allows 2 a job", "nodes: 3, but 2 of a100 have all of that"],
        ),
        ({"num_nodes": 2, "gpus": 4}, ["note: nodes: 2, but 1 of 2 are in service now; jobs will wait"]),
    ],
)  # fmt: skip
def test_each_thing_that_is_lacking_is_named(asked: dict[str, object], told: list[str]) -> None:
    found = check([replace(FITS, **asked)], CLUSTER)  # type: ignore[arg-type]
    assert [f"{'' if finding.fatal else 'note: '}{finding.text}" for finding in found] == told


def test_an_account_is_asked_for_where_a_partition_admits_few() -> None:
    asked = [replace(FITS, partition="h100")]
    stranger = replace(CLUSTER, accounts=("ocean",))
    assert [finding.text for finding in check(asked, stranger) if finding.fatal] == [
        "slurm_account: none given; h100 asks for one of vision, speech"
    ]
    assert not [finding for finding in check(asked, CLUSTER) if finding.fatal]


def test_times_and_gpus_are_read_as_slurm_writes_them() -> None:
    assert [read_time(text) for text in ("UNLIMITED", "1-00:00:00", "02:30:00", "30:00")] == [
        None,
        1440,
        150,
        30,
    ]
    assert read_gpus("gpu:h100:4(S:0-1),lustre:1,gpu:a100:2") == {"h100": 4, "a100": 2}
    assert read_gpus("gpu:8") == {"": 8} and read_gpus("(null)") == {}
    assert CLUSTER.nodes[0].cpus == 62 and len(CLUSTER.nodes) == 6


def write_profile(folder: Path, **values: object) -> Path:
    named = {key.replace("_", "-"): value for key, value in values.items()}
    (folder / "profile.yaml").write_text(yaml.safe_dump(named, sort_keys=False))
    return folder


def test_a_profile_is_read_as_snakemake_reads_it(tmp_path: Path) -> None:
    train = {"nodes": 2, "tasks": 4, "cpus_per_task": 3, "gres": "'gpu:h100:2'", "runtime": "1d 12h"}
    profile = write_profile(
        tmp_path,
        default_resources={"slurm_partition": "std", "mem_mb": "attempt * 1000", "slurm_account": "'me'"},
        set_resources={"train": train, "evaluate": {"gpu": 3, "nodes": 2, "gpu_model": "a100"}},
        set_threads={"bucket_part": 4},
        retries=2,
    )
    train_, evaluate, bucket, others = read_profile(profile)
    assert train_ == Request("train", "std", "me", 2, 6, 2, "h100", (1000, 3000), 2160)
    assert (evaluate.gpus, evaluate.gpu_type, evaluate.minutes) == (2, "a100", None)
    assert (bucket.rule, bucket.cpus, bucket.gpus) == ("bucket_part", 4, 0)
    assert (others.rule, others.cpus, others.num_nodes) == ("other rules", 1, 1)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"mem_mb": "open('x')"}, r"train: mem_mb is \"open\('x'\)\"; it should be a number"),
        ({"gres": "2"}, "train: gres is '2'; it should be gpu:NUMBER or gpu:TYPE:NUMBER"),
        ({"runtime": "soon"}, "train: runtime is 'soon'; it should be minutes or a time like 90m, 2h, 1d12h"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(values: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        read_profile(write_profile(tmp_path, set_resources={"train": values}))


def test_without_slurm_it_says_where_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(app, ["cluster", "check", "--profile", str(ROOT / "profiles/slurm")])
    assert result.exit_code == 1
    assert "scontrol is not here: run this on a login node of the cluster" in result.output
    result = CliRunner().invoke(app, ["cluster", "check", "--profile", str(tmp_path / "none")])
    assert result.exit_code == 1 and "no such profile" in result.output


@pytest.mark.slurm
def test_the_profile_of_the_repository_fits_the_cluster_of_the_tests(
    slurm_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in slurm_cluster.environment().items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["cluster", "check", "--profile", str(ROOT / "profiles/slurm")])
    assert result.exit_code == 0, result.output
    assert "gpu: 2 nodes with 4 CPUs and 2 GPUs" in result.output
    values = yaml.safe_load((ROOT / "profiles/slurm/profile.yaml").read_text())
    values["set-resources"]["train"] |= {"gres": "'gpu:h100:8'", "slurm_partition": "gpu-hi"}
    values["set-resources"]["evaluate"] = {"slurm_partition": "gpu", "gres": "'gpu:h100:8'"}
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(app, ["cluster", "check", "--profile", str(tmp_path)])
    assert result.exit_code == 1
    assert "train: slurm_partition: no gpu-hi among cpu, gpu, gpu-low" in result.output
    assert "evaluate: gres: 8 h100 GPUs, but a node of gpu has at most 0 (types here: fake)" in result.output
    assert not slurm_cluster.jobs("PENDING", "RUNNING")
