"""`darkroom cluster check` on a cluster says what submission does."""

import subprocess
from pathlib import Path

import pytest
import yaml
from cluster import Cluster
from conftest import ROOT
from test_cluster_check import write_profile
from typer.testing import CliRunner

from darkroom.cli import app

pytestmark = pytest.mark.slurm


@pytest.fixture
def on_cluster(slurm_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    for name, value in slurm_cluster.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    return slurm_cluster


def run_check(profile: Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["cluster", "check", "--profile", str(profile)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_the_profile_of_the_repository_fits_the_cluster_of_the_tests(
    on_cluster: Cluster, tmp_path: Path
) -> None:
    code, output = run_check(ROOT / "profiles/slurm")
    assert code == 0, output
    assert "gpu: 2 nodes with 4 CPUs and 2 GPUs" in output
    values = yaml.safe_load((ROOT / "profiles/slurm/profile.yaml").read_text())
    values["set-resources"]["train_run"] |= {"gres": "'gpu:h100:8'", "slurm_partition": "gpu-hi"}
    values["set-resources"]["evaluate_run"] = {"slurm_partition": "gpu", "gres": "'gpu:h100:8'"}
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(values))
    code, output = run_check(tmp_path)
    assert code == 1
    assert "train_run: slurm_partition: no gpu-hi among cpu, gpu, gpu-low" in output
    assert "evaluate_run: gres: 8 h100 GPUs, but a node of gpu has at most 0 (types here: fake)" in output
    assert not on_cluster.jobs("PENDING", "RUNNING")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"gres": "gpu:nvidia_a100-sxm4-80gb:1"}, "the executor does not take"),
        ({"slurm_extra": "--gpus-per-node=fake:3"}, "sbatch: Requested node configuration is not available"),
        ({"constraint": "ib"}, "sbatch: Invalid feature specification"),
        ({"slurm_partition": "gpu,gpux"}, "did you mean gpu?"),
        ({"slurm_partition": "gpu,gpu-low", "gres": "gpu:fake:2"}, None),
        ({"mem_mb": "min(attempt * 2000, 8000)"}, None),
        (
            {"mem_mb_per_cpu": 9000, "cpus_per_task": 2},
            "mem_mb: 18,000, but a node of gpu has at most 16,000",
        ),
        ({"qos": "anything"}, None),
    ],
    ids=str,
)
def test_the_check_says_what_submission_does(
    on_cluster: Cluster, tmp_path: Path, values: dict[str, object], problem: str | None
) -> None:
    defaults = ["slurm_partition=gpu", "mem_mb=500", "runtime=5"]
    code, output = run_check(
        write_profile(tmp_path, default_resources=defaults, set_resources={"train_run": values})
    )
    assert code == (problem is not None), output
    assert problem is None or problem in output
    # And the submission itself.
    resources = [f"train_run:{key}={value}" for key, value in values.items()]
    (tmp_path / "Snakefile").write_text("rule train_run:\n    output: 'x'\n    shell: 'touch {output}'\n")
    command = ["snakemake", "--executor", "darkroom", "--jobs", "1", "--default-resources", *defaults]
    command += ["--set-resources", *resources, "--seconds-between-status-checks", "1", "--latency-wait", "5"]
    command += ["--darkroom-status-command", "squeue", "--darkroom-init-seconds-before-status-checks", "1"]
    done = subprocess.run(
        ["env", "-u", "SNAKEMAKE_PROFILE", *command],
        cwd=tmp_path, env=on_cluster.environment(), capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert (done.returncode != 0) == (problem is not None), done.stdout + done.stderr
