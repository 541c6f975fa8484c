"""`darkroom cluster check`: what a profile asks for that a cluster does not have, before anything is submitted."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.slurm import Finding, Request, Survey, check, check_rules, read_profile, try_requests
from darkroom.slurm.check import rule_names
from darkroom.slurm.sbatch import Asked
from darkroom.slurm.survey import read_gpus, read_nodes, read_partitions, read_time

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
NodeName=c2 AvailableFeatures=(null) CPUTot=64 Gres=(null) RealMemory=250000 State=IDLE Partitions=std
NodeName=g1 CPUTot=64 Gres=gpu:a100:4(S:0-1),nvme:1 RealMemory=500000 State=IDLE+DRAIN Partitions=std,a100 \
Reason=bad fan [root@2026-01-01T00:00:00]
NodeName=g2 CPUTot=64 Gres=gpu:a100:4(S:0-1) RealMemory=500000 State=ALLOCATED Partitions=a100 \
AvailableFeatures=ib,a100_80 ActiveFeatures=ib,a100_80
NodeName=g3 CPUTot=64 AvailableFeatures=a100_40 Gres=gpu:a100:2(S:0) RealMemory=500000 State=IDLE Partitions=a100
NodeName=h1 CPUTot=96 Gres=gpu:h100:8 RealMemory=2000000 State=IDLE Partitions=h100
NodeName=spare CPUTot=96 Gres=gpu:8 RealMemory=2000000 State=IDLE
"""
CLUSTER = Survey(read_partitions(PARTITIONS), read_nodes(NODES), ("vision",), ("normal", "long"))
FITS = Asked(("a100",), None, None, None, 1, 16, {"": 2}, 100_000, 600)


def told(asked: Asked, last_mb: int | None = None, cluster: Survey = CLUSTER) -> list[str]:
    """What the check says of a request, a note as such."""
    last = replace(asked, memory_mb=last_mb or asked.memory_mb)
    found = check([Request("train", ("-p", "x"), asked, last)], cluster)
    return [f"{'' if finding.fatal else 'note: '}{finding.text}" for finding in found]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, []),
        ({"partitions": ("a10",)}, ["slurm_partition: no a10 among std, a100, h100; did you mean a100?"]),
        ({"partitions": (), "gpus": {}}, []),
        ({"account": "visoin"}, ["slurm_account: visoin is not among yours: vision"]),
        ({"qos": "long"}, []),
        ({"qos": "lnog"}, ["qos: lnog is not among yours: normal, long"]),
        (
            {"partitions": ("h100",), "account": "theirs"},
            [
                "slurm_account: theirs is not among yours: vision",
                "slurm_account: h100 does not let theirs in; it does vision, speech",
                "note: slurm_partition: h100 is not up at present",
            ],
        ),
        ({"gpus": {"": 8}}, ["gres: 8 GPUs, but a node of a100 has at most 4 (types here: a100)"]),
        ({"gpus": {"h100": 2}}, ["gres: 2 h100 GPUs, but a node of a100 has at most 0 (types here: a100)"]),
        ({"gpus": {"a100": 2}}, []),
        ({"memory_mb": 600_000}, ["mem_mb: 600,000, but a node of a100 has at most 500,000"]),
        ({"cpus": 65}, ["cpus_per_task, tasks_per_node: 65 CPUs, but a node of a100 has at most 64"]),
        ({"minutes": 721}, ["runtime: 721 min, but a100 allows 720"]),
        (
            {"num_nodes": 3, "gpus": {"": 4}},
            ["nodes: 3, but a100 allows 2 a job", "nodes: 3, but 2 of a100 have all of that"],
        ),
        ({"num_nodes": 2, "gpus": {"": 4}}, ["note: nodes: 2, but 1 of 2 are in service now; jobs will wait"]),
        # Any of several will do, but sbatch takes no list with an unknown name in it.
        (
            {"partitions": ("a100", "std"), "gpus": {"": 4}, "minutes": 1000},
            ["note: nodes: 1, but 0 of 1 are in service now; jobs will wait"],
        ),
        (
            {"partitions": ("a100", "std"), "minutes": 2000},
            ["runtime: 2,000 min, but a100 allows 720"],
        ),
        (
            {"partitions": ("a100", "a10"), "gpus": {}},
            ["slurm_partition: no a10 among std, a100, h100; did you mean a100?"],
        ),
        ({"constraint": "ib"}, []),
        ({"constraint": "ib&a100_80"}, []),
        ({"constraint": "a100_40|a100_80"}, []),
        ({"constraint": "[a100_40|a100_80]*1"}, []),
        ({"constraint": "opa"}, ["constraint: no node of a100 has opa"]),
        ({"constraint": "ib&opa"}, ["constraint: no node of a100 has opa"]),
        (
            {"constraint": "a100_40", "gpus": {"": 4}},
            ["gres: 4 GPUs, but a node of a100 with a100_40 has at most 2 (types here: a100)"],
        ),
    ],
)  # fmt: skip
def test_each_thing_that_is_lacking_is_named(asked: dict[str, object], expected: list[str]) -> None:
    assert told(replace(FITS, **asked)) == expected  # type: ignore[arg-type]


def test_a_last_attempt_that_asks_for_too_much_is_noted() -> None:
    note = "note: mem_mb: the last attempt would ask for 800,000, but a node of a100 has at most 500,000"
    assert told(replace(FITS, memory_mb=400_000), 800_000) == [note]


def test_an_account_is_asked_for_where_a_partition_admits_few() -> None:
    asked = replace(FITS, partitions=("h100",))
    stranger = replace(CLUSTER, accounts=("ocean",))
    assert told(asked, cluster=stranger)[0] == (
        "slurm_account: none given; h100 asks for one of vision, speech"
    )
    assert not [line for line in told(asked) if not line.startswith("note: ")]


def test_without_a_database_account_and_qos_are_passed_on_with_a_note() -> None:
    asked = replace(FITS, account="lab", qos="long")
    assert told(asked, cluster=replace(CLUSTER, accounts=None, qos=None)) == [
        "note: slurm_account: lab is passed on; no database here knows yours",
        "note: qos: long is passed on; no database here knows yours",
    ]


def test_a_rule_that_there_is_not_is_named() -> None:
    names = rule_names(ROOT)
    # A stage is a target, and not the rule that makes it.
    assert {"train_run", "download_part", "all"} <= names and "train" not in names
    found = check_rules([Request("trian_run"), Request("train_run"), Request("other rules")], names)
    assert found == [Finding("trian_run", "no rule has this name; did you mean train_run?")]


def test_the_rules_that_the_profile_names_are_there() -> None:
    assert check_rules(read_profile(ROOT / "profiles" / "slurm"), rule_names(ROOT)) == []


def test_a_rule_made_from_another_has_a_name_too(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        "rule a:\n    shell: 'true'\n\nif True:\n    use rule a as b with:\n        output: 'b'\n\n"
        "use rule a as c:\n\ncheckpoint d :\n    shell: 'true'\n"
    )
    assert rule_names(tmp_path) == {"a", "b", "c", "d"}


def test_a_misspelt_rule_is_found_among_the_threads_too(tmp_path: Path) -> None:
    profile = write_profile(
        tmp_path, set_threads={"trian_run": 2}, set_resources={"downlod_part": {"mem_mb": 1}}
    )
    found = check_rules(read_profile(profile), rule_names(ROOT))
    assert [finding.rule for finding in found] == ["downlod_part", "trian_run"]


@pytest.mark.parametrize(
    ("says", "code", "own", "expected"),
    [
        ("", 0, [], []),
        ("", 0, [Finding("train", "qos: x is not among yours: y")], [(False, "qos: x is not among yours: y")]),
        ("", 0, [Finding("train", "runtime: too long")], [(True, "runtime: too long")]),
        (
            "allocation failure: Invalid feature specification", 1, [],
            [(True, "sbatch: Invalid feature specification")],
        ),
        (
            "sbatch: error: QOSMaxSubmitJobPerUserLimit", 1, [],
            [(False, "sbatch: QOSMaxSubmitJobPerUserLimit")],
        ),
        (
            "allocation failure: Requested node configuration is not available", 1,
            [Finding("train", "nodes: 1, but 0 of 2 are in service now; jobs will wait", fatal=False)],
            [
                (False, "nodes: 1, but 0 of 2 are in service now; jobs will wait"),
                (False, "sbatch: Requested node configuration is not available"),
            ],
        ),
    ],
)  # fmt: skip
def test_sbatch_has_the_last_word(
    says: str, code: int, own: list[Finding], expected: list[object], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/asked\necho '{says}' >&2\nexit {code}\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    requests = [Request("train", ("-p", "gpu"), FITS, FITS), Request("wrong", problems=("x",))]
    found = try_requests([*requests, replace(requests[0], rule="again")], own)
    assert [(finding.fatal, finding.text) for finding in found if finding.rule == "train"] == expected
    # Once for all rules that ask for the same, and not for what never gets to sbatch.
    assert (tmp_path / "asked").read_text() == "--test-only -p gpu --wrap=true\n"


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
    train = {"nodes": 2, "tasks": 4, "cpus_per_task": 3, "gres": "'gpu:h100:2'", "tasks_per_gpu": 0}
    profile = write_profile(
        tmp_path,
        default_resources={"slurm_partition": "std", "mem_mb": "attempt * 1000", "slurm_account": "'me'"},
        set_resources={"train": {**train, "mpi": "srun", "mem": "8GB"}, "evaluate": {"gpu": 3, "nodes": 2}},
        set_threads={"bucket_part": 4},
        retries=2,
    )
    train_, evaluate, bucket, others = read_profile(profile)
    assert train_.asked == Asked(("std",), "me", None, None, 2, 6, {"h100": 2}, 8000, None)
    assert evaluate.asked and evaluate.asked.gpus == {"": 2}
    assert bucket.asked and (bucket.rule, bucket.asked.cpus, bucket.asked.gpus) == ("bucket_part", 4, {})
    assert others.asked and others.asked_last and (others.rule, others.asked.num_nodes) == ("other rules", 1)
    assert (others.asked.memory_mb, others.asked_last.memory_mb) == (1000, 3000)


def test_lists_are_read_as_mappings_are(tmp_path: Path) -> None:
    mapping = write_profile(
        tmp_path,
        default_resources={"slurm_partition": "gpu,gpu-low", "mem_mb": "min(attempt * 2000, 8000)"},
        set_resources={"train": {"gres": "gpu:2", "runtime": "2h"}},
        set_threads={"train": 4},
        darkroom_qos="long",
        retries=5,
    )
    as_mapping = read_profile(mapping)
    lists = write_profile(
        tmp_path,
        default_resources=["slurm_partition=gpu,gpu-low", "mem_mb=min(attempt * 2000, 8000)"],
        set_resources=["train:gres=gpu:2", "train:runtime=2h"],
        set_threads=["train=4"],
        darkroom_qos="long",
        retries=5,
    )
    assert read_profile(lists) == as_mapping
    train = as_mapping[0].asked
    assert train and train.partitions == ("gpu", "gpu-low") and train.minutes == 120 and train.qos == "long"
    assert as_mapping[0].asked_last and as_mapping[0].asked_last.memory_mb == 8000


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"gres": 2}, None),
        ({"runtime": "soon"}, "runtime is 'soon'; it should be minutes or a time of one unit like 90m"),
        ({"mem_mb": "8GB"}, "mem_mb is '8GB', a text; it should be a number without quotes, or mem: 8GB"),
        ({"slurm_partition": "all"}, """which Python has a meaning for; write slurm_partition: "'all'\""""),
        (
            {"gres": "gpu:nvidia_a100-sxm4-80gb:1"},
            """write slurm_extra: "'--gpus-per-node=nvidia_a100-sxm4-80gb:1'" without gres""",
        ),
        ({"gres": "gpu:a100:2,nvme:1"}, "of one thing"),
        ({"slurm_extra": "--qos=long"}, "slurm_extra: the executor does not take --qos in it; set qos instead"),
        ({"mem_mb": "2 ** 99999"}, "which does not work out: too large"),
        ({"mem_mb": "attempts * 2000"}, "mem_mb is 'attempts * 2000', a text"),
        ({"gres": "gpu:h100-80gb:2"}, """write slurm_extra: "'--gpus-per-node=h100-80gb:2'" without gres"""),
        ({"slurm_extra": "--gpus 2"}, "slurm_extra: the executor does not take --gpus in it; set gpu instead"),
        ({"slurm_extra": "--mail-user='x"}, "slurm_extra: --mail-user='x: a shell cannot read it"),
    ],
)  # fmt: skip
def test_what_never_gets_to_sbatch_is_said_in_our_words(
    values: dict[str, object], problem: str | None, tmp_path: Path
) -> None:
    request = read_profile(write_profile(tmp_path, set_resources={"train": values}))[0]
    assert (request.asked is None) == (problem is not None)
    assert problem is None or problem in " ".join(request.problems)


@pytest.mark.parametrize(
    ("key", "near"),
    [("gpus", "gpu"), ("mem_gb", "mem_mb"), ("slurm_parition", "slurm_partition"), ("downloads", None)],
)
def test_a_misspelt_resource_which_nobody_heeds_is_noted(key: str, near: str | None, tmp_path: Path) -> None:
    request = read_profile(write_profile(tmp_path, set_resources={"train": {"mem_mb": 1, key: 2}}))[0]
    expected = f"{key}: neither Snakemake nor the executor heeds it; did you mean {near}?"
    assert request.asked and request.notes == ((expected,) if near else ())


def test_of_another_cluster_sbatch_alone_is_asked() -> None:
    asked = replace(FITS, partitions=("theirs",), clusters="b")
    assert told(asked) == ["note: clusters: what b has is not known here; sbatch alone was asked"]


def test_a_rule_that_stands_twice_in_a_profile_is_named(tmp_path: Path) -> None:
    text = "set-resources:\n  train: {mem_mb: 1}\n  train: {gres: 'gpu:1'}\n"
    (tmp_path / "profile.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"profile\.yaml: key 'train' stands twice"):
        read_profile(tmp_path)


def test_the_gpu_type_that_the_message_advises_is_understood(tmp_path: Path) -> None:
    extra = {"slurm_extra": "'--gpus-per-node=nvidia_a100-sxm4-80gb:1'"}
    request = read_profile(write_profile(tmp_path, set_resources={"train": extra}))[0]
    assert request.asked and request.asked.gpus == {"nvidia_a100-sxm4-80gb": 1}


@pytest.mark.parametrize(
    "text", ["max(2 * input.size_mb, 1000)", "open('x')", "len(wildcards.part) * 9", "f'{attempt}GB'"]
)
def test_a_formula_that_is_not_computed_here_is_a_note(text: str, tmp_path: Path) -> None:
    request = read_profile(write_profile(tmp_path, set_resources={"train": {"mem_mb": text}}))[0]
    assert request.asked and request.asked.memory_mb is None
    assert not request.problems and text in request.notes[0]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"default_resources": 3}, "default-resources is 3; it should be NAME: VALUE lines"),
        ({"default_resources": ["mem_mb"]}, "default-resources: 'mem_mb' should be NAME=VALUE"),
        ({"set_resources": {"train": 3}}, "set-resources: train: it should have NAME: VALUE lines"),
        ({"set_resources": ["train=3"]}, "set-resources: train=3 should be RULE:NAME=VALUE"),
        ({"retries": "some"}, "retries is 'some'; it should be a number"),
    ],
)
def test_a_profile_that_is_built_differently_is_told_how(
    values: dict[str, object], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=problem):
        read_profile(write_profile(tmp_path, **values))


def test_a_profile_for_another_scheduler_is_told_apart() -> None:
    with pytest.raises(ValueError, match=r"its executor \(cluster-generic\) does not ask SLURM"):
        read_profile(ROOT / "profiles/pbs")


def test_without_slurm_it_says_where_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(app, ["cluster", "check", "--profile", str(ROOT / "profiles/slurm")])
    assert result.exit_code == 1
    assert "scontrol is not here: run this on a login node of the cluster" in result.output
    result = CliRunner().invoke(app, ["cluster", "check", "--profile", str(tmp_path / "none")])
    assert result.exit_code == 1 and "no such profile" in result.output
