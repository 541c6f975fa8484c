"""`darkroom cluster check` reads a profile as Snakemake and the executor plugin do: both are asked here."""

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from played_slurm import Resources as Attributes
from snakemake.exceptions import WorkflowError
from snakemake.resources import Resources
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra

from darkroom.slurm import read_profile
from darkroom.slurm.sbatch import Asked, options, problems, read

REQUESTS: list[dict[str, Any]] = [
    {},
    {"slurm_partition": "gpu,gpu-low", "runtime": 60, "mem_mb": 4000},
    {"mem_mb_per_cpu": 900, "mem_mb": 100, "cpus_per_task": 3},
    {"constraint": "a100&ib", "qos": "long"},
    {"nodes": 2, "tasks": 6},
    {"gres": "gpu:2", "tasks": 2},
    {"gres": "gpu:a100.80gb_x:2", "cpus_per_gpu": 4},
    {"gres": "nvme:1"},
    {"gpu": 4, "nodes": 2, "tasks_per_gpu": 0},
    {"gpu": 1, "gpu_model": "a100"},
    {"mpi": "srun", "nodes": 2, "tasks_per_node": 2, "gres": "gpu:2", "tasks_per_gpu": 0, "cpus_per_task": 2},
    {"mpi": "srun", "nodes": 2, "tasks": 2},
    {"slurm_extra": "--gpus-per-node=nvidia_a100-sxm4-80gb:1 --open-mode=append", "slurm_account": "lab"},
    {"cpus_per_task": -1},
    {"gres": "gpu:1g.10gb:1", "gpu": 2},
    {"gpu": "h100:2", "cpus_per_gpu": 0},
    {"gres": "gpu:a100", "cpus_per_task": 4, "cpus_per_gpu": 2},
    {"constraint": "", "qos": "", "mem_mb": 0, "runtime": 0},
    {"slurm_partition": "gpu,gpu-low", "cluster": "b"},
    {"clusters": "b"},
    {"slurm_extra": "--wckey='a b' -Cib --gpus-per-task=1 -q long"},
    {"slurm_extra": "-G 2 --ntasks-per-node=2 --mem-per-gpu=3 -w n1"},
    {"slurm_extra": "--Gres=gpu:1 -t10 --exclusive"},
]
REFUSED: list[dict[str, Any]] = [
    {"gres": "gpu:nvidia_a100-sxm4-80gb:1"},
    {"gres": "gpu:a100:2,nvme:1"},
    {"gres": "'gpu:1'"},
    {"gpu": 1, "gpu_model": "a100-sxm"},
    {"mpi": "srun", "tasks_per_node": 1},
    {"mpi": "srun", "tasks": 1},
    {"mpi": "srun", "tasks": 2, "tasks_per_node": 2},
    {"mpi": "srun"},
    {"nodes": "2"},
    {"nodes": 0},
    {"cpus_per_task": "4"},
    {"nodes": True},
    {"slurm_extra": 5},
    {"slurm_extra": ["--a", "--b"]},
    *({"slurm_extra": extra} for extra in (
        "--gres=gpu:1", "--constraint=ib", "--qos long", "--partition=gpu", "--gpus=2", "-p gpu", "-C ib", "-Jx",
        "--mem=4", "--exclusive -t 10", "--nodes=2", "--ntasks=2", "--comment=x",
        "--gpus h100:2", "-A lab", "--clusters=b", "-D /tmp", "--export=NONE", "-n 2", "--wckey=--mem=3",
    )),
]  # fmt: skip


def played_job(values: dict[str, Any]) -> Any:
    return SimpleNamespace(resources=Attributes(values), threads=5)


def of_the_plugin(values: dict[str, Any]) -> str:
    """The plugin's own line, from the account on."""
    job = played_job(values)
    validate_slurm_extra(job)
    names = {"run_uuid": "R", "slurm_logfile": "L", "comment_str": "C", "workdir": None}
    account = f" -A {values['slurm_account']}" if "slurm_account" in values else ""
    partition = f" -p {values['slurm_partition']}" if "slurm_partition" in values else ""
    line = get_submit_command(job, {**names, "account": account, "partition": partition})
    return line.split("--comment C")[1] + set_gres_string(job)


@pytest.mark.parametrize("values", REQUESTS, ids=str)
def test_the_options_are_those_of_the_plugin(values: dict[str, Any]) -> None:
    assert problems(values) == []
    assert options(values, 5) == shlex.split(of_the_plugin(values))


@pytest.mark.parametrize("values", REFUSED, ids=str)
def test_what_the_plugin_refuses_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises((WorkflowError, TypeError)):
        of_the_plugin(values)
    assert len(problems(values)) == 1


def test_short_and_last_options_hold_as_for_sbatch() -> None:
    line = "-p gpu -t 1-12 --mem 4G --nodes=2 --ntasks=4 --cpus-per-task=3"
    line += " -pgpu-low,gpu -Cib -q long --gpus-per-no=a-b:2"
    assert read(line.split()) == Asked(("gpu-low", "gpu"), None, "long", "ib", 2, 6, {"a-b": 2}, 4096, 2160)
    assert read(["-G", "a100:3,4", "-N2"]).gpus == {"a100": 2, "": 2}
    assert read(["--gres=gpu:a100:2,nvme:1,gpu:1"]).gpus == {"a100": 2, "": 1}
    assert read(["--mem-per-cpu", "100", "--ntasks=2", "--cpus-per-task=4"]).memory_mb == 800
    with pytest.raises(ValueError, match="--mem much"):
        read(["--mem", "much"])


# What people write, and what stands behind `attempt` in the last of four.
VALUES = [
    ("mem_mb", "4000"), ("mem_mb", "attempt * 2000"), ("mem_mb", "min(attempt * 2000, 8000)"),
    ("mem_mb", "max(1000, 2**attempt * 500)"), ("mem_mb", "8000 // attempt"), ("mem_mb", "1500 * 1.5"),
    ("mem_mb", "[1000, 2000, 4000, 8000][attempt - 1]"), ("mem_mb", "4000 if attempt < 3 else 9000"),
    ("mem_mb", "int(attempt * 1e3)"), ("mem", "8GB"), ("mem", "8 GiB"), ("mem", "500M"), ("mem", "4000"),
    ("mem", "attempt * 1000"), ("mem_mib", "1000"), ("mem", "'2GB'"), ("runtime", "90"), ("runtime", "2h"),
    ("runtime", "1d"), ("runtime", "1.5h"), ("runtime", "'30m'"), ("runtime", "attempt * 60"),
    ("slurm_partition", "gpu,gpu-low"), ("slurm_partition", "'all'"), ("gres", "gpu:a100:2"),
    ("gres", "'gpu:1'"), ("constraint", "a100&ib"), ("slurm_extra", "--open-mode=append"),
    ("slurm_account", "$LAB"), ("slurm_account", "'123456'"), ("cpus_per_task", "threads * 2"),
]  # fmt: skip
WRONG = [
    ("runtime", "1d 12h"), ("runtime", "soon"), ("mem", "much"), ("mem_mb", "8GB"), ("mem_mb", "'4000'"),
    ("mem_mb", "-1"), ("mem_mb", "1000 // 0"),
]  # fmt: skip


def by_snakemake(key: str, text: str, attempt: int) -> Any:
    resources = Resources.parse([f"{key}={text}"], allow_expressions=True)
    ((name, resource),) = resources.items()
    value = resource.evaluate(None, input=[], attempt=attempt, threads=5, rulename="r", async_run=None).value
    if name.endswith("_mb") and not isinstance(value, int):
        raise WorkflowError(f"{value!r} is no number")
    return value


@pytest.mark.parametrize(("key", "text"), VALUES)
def test_a_value_comes_to_what_snakemake_makes_of_it(
    key: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from darkroom.slurm.profile import _standard, _values

    monkeypatch.setenv("LAB", "vision")
    for attempt in (1, 4):
        values, wrong, notes = _values(_standard({key: text}), "5", attempt)
        assert not wrong and not notes
        del values["threads"]
        assert list(values.values()) == [by_snakemake(key, text, attempt)]


@pytest.mark.parametrize(("key", "text"), WRONG)
def test_a_value_that_snakemake_refuses_is_refused(key: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(Exception):  # noqa: B017
        by_snakemake(key, text, 1)
    profile = tmp_path / "profile.yaml"
    profile.write_text(yaml.safe_dump({"default-resources": [f"{key}={text}"]}))
    (request,) = read_profile(profile)
    assert request.asked is None and len(request.problems) == 1 and text.strip("'") in request.problems[0]
