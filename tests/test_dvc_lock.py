"""What Snakemake has made DVC knows at the end of a run: what a run leaves in dvc.lock."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TinyProject

pytestmark = pytest.mark.slow

RECORD = ["python", "workflow/scripts/dvc_commit.py"]


def publish(root: Path, *runs: str) -> None:
    (root / "config/config.yaml").write_text(yaml.safe_dump({"run": "demo", "published": list(runs)}))


def forget(project: TinyProject, *names: str) -> dict[str, Any]:
    """Take stages out of dvc.lock, as if they had not been recorded; the stages before."""
    body = project.read("dvc.lock")
    before = dict(body["stages"])
    for name in names:
        del body["stages"][name]
    project.write("dvc.lock", body)
    return before


def locked_stages(project: TinyProject) -> dict[str, Any]:
    stages: dict[str, Any] = project.read("dvc.lock")["stages"]
    return stages


def test_results_stay_writable_and_a_stage_can_be_made_again_and_again(changeable: TinyProject) -> None:
    for _ in range(2):
        changeable.run("snakemake", "report", "-R", "report_run", "--quiet", "all")
    results = changeable.folder / "results"
    assert [path for path in results.rglob("*") if path.is_file() and not path.stat().st_mode & 0o200] == []
    assert "up to date" in changeable.run("dvc", "status")
    assert changeable.planned() == set()


def test_results_that_are_read_only_links_into_dvcs_cache_are_made_writable_with_the_same_time(
    changeable: TinyProject, tmp_path: Path
) -> None:
    manifest = changeable.folder / "results/runs/demo/report/manifest.json"
    cached = tmp_path / "cached"
    os.link(manifest, cached)
    cached.chmod(0o444)
    before = manifest.stat()
    assert changeable.planned() == set()
    after = manifest.stat()
    assert after.st_mode & 0o200 and after.st_mtime_ns == before.st_mtime_ns
    assert not cached.stat().st_mode & 0o200, "the cache keeps its file"
    cached.unlink()


def test_a_cache_that_got_another_folder_is_not_made_for_dvc_before_dvc_yaml_names_it(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    project = make_tiny_project("another-cache")
    assert "not in step" not in project.run("bash", "-c", "DVC_STAGE=x snakemake -n")
    project.edit("config/runs/demo.yaml", {"bucket": {"resolution_px": 80}})
    output = project.run("bash", "-c", "DVC_STAGE=x snakemake -n; echo rc $?")
    assert "dvc.yaml is not in step with the configuration (bucket-" in output and output.endswith("rc 1\n")
    assert "not in step" not in project.run("snakemake", "-n")
    project.run("darkroom", "publish", "--write")
    assert "not in step" not in project.run("bash", "-c", "DVC_STAGE=x snakemake -n")


def test_a_run_that_extends_another_is_recorded_at_its_end(changeable: TinyProject) -> None:
    changeable.write(
        "config/runs/longer.yaml",
        {"extends": "demo", "description": "longer", "train": {"num_steps": 14}},
    )
    publish(changeable.folder, "demo", "longer")
    changeable.run("darkroom", "publish", "--write")
    changeable.run("snakemake", "--quiet", "all", "--config", "run=longer")
    assert {"train-longer", "evaluate-longer", "report-longer"} <= set(locked_stages(changeable))
    assert "up to date" in changeable.run("dvc", "status")
    assert "Running stage" not in changeable.run("dvc", "repro")


def test_what_could_not_be_recorded_is_told_with_dvcs_reason_and_the_next_run_catches_up(
    changeable: TinyProject,
) -> None:
    before = forget(changeable, "train-demo", "report-demo")
    with Held(changeable.folder / ".dvc/tmp/lock"):
        output = changeable.run(*RECORD, "demo", "--wait-s", "0")
    assert "dvc.lock was not brought up to date (train-demo, report-demo): " in output
    assert "Unable to acquire lock" in output and "give this command again" in output
    assert "train-demo" not in locked_stages(changeable)
    assert changeable.planned() == set()
    assert "train-demo" not in locked_stages(changeable), "a dry run records nothing"
    changeable.run("snakemake", "--quiet", "all")
    assert locked_stages(changeable) == before


def as_published_elsewhere(project: TinyProject, stage: str) -> None:
    """Have dvc.lock hold another manifest of a stage, as if another machine had made it."""
    path = project.folder / "dvc.lock"
    before = path.read_text()
    manifest = (project.folder / f"results/runs/demo/{stage}/manifest.json").read_bytes()
    path.write_text(before.replace(hashlib.md5(manifest).hexdigest(), "a" * 32))
    assert path.read_text() != before


def test_what_is_made_again_with_the_published_settings_replaces_it_only_when_asked(
    changeable: TinyProject,
) -> None:
    lock, copied = changeable.folder / "dvc.lock", changeable.folder / "published/train-demo/loss.csv"
    as_published_elsewhere(changeable, "train")
    copied.write_text("step,loss\n1,0.5\n")
    published = lock.read_text()
    told = changeable.run(*RECORD, "demo")
    assert "made again with the published settings, in other bytes: train-demo, draw-demo" in told
    assert "darkroom compare demo" in told
    assert lock.read_text() == published and copied.read_text() == "step,loss\n1,0.5\n"
    assert changeable.run(*RECORD, "demo", "--replace") == ""
    assert "a" * 32 not in lock.read_text() and "up to date" in changeable.run("dvc", "status")
    assert copied.read_bytes() == (changeable.folder / "results/runs/demo/train/loss.csv").read_bytes()


def test_a_changed_setting_is_recorded_with_all_that_it_was_made_from(changeable: TinyProject) -> None:
    as_published_elsewhere(changeable, "train")
    changeable.edit("config/runs/demo.yaml", {"description": "another"})
    changeable.run("snakemake", "--quiet", "all")
    assert "up to date" in changeable.run("dvc", "status")


def test_an_older_cpu_computes_in_float32_everywhere_tells_it_and_leaves_a_clone_as_it_is(
    changeable: TinyProject,
) -> None:
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    changeable.run(*git, "add", "--all")
    changeable.run(*git, "commit", "-qm", "published")
    changeable.variables = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    shutil.rmtree(changeable.folder / "checkpoints")  # or the training would keep the dtype that it began in
    changeable.run("snakemake", "--quiet", "all", "-R", "recaption_part", "train_run", "draw_chunk")
    for stage, of in (("recaption", "datasets"), ("train", "runs"), ("draw", "runs")):
        body = json.loads((changeable.folder / f"results/{of}/demo/{stage}/manifest.json").read_text())
        assert set(body["counts"]["computed_in"]) == {"float32"}, stage
    metrics = json.loads((changeable.folder / "results/runs/demo/evaluate/metrics.json").read_text())
    assert metrics["protocol"]["computed_in"] == "float32"
    log = (changeable.folder / "logs/runs/demo/train/train.log").read_text()
    assert "dtype auto computes in float32: " in log
    assert changeable.run("git", "status", "--porcelain") == ""


def test_another_dvc_is_waited_for(changeable: TinyProject) -> None:
    before = forget(changeable, "report-demo")
    with Held(changeable.folder / ".dvc/tmp/lock", seconds=8):
        output = changeable.run(*RECORD, "demo")
    assert "not brought up to date" not in output
    assert locked_stages(changeable) == before


def test_where_dvc_lock_holds_everything_dvc_is_not_started(changeable: TinyProject) -> None:
    with Held(changeable.folder / ".dvc/tmp/lock"):
        assert changeable.run(*RECORD, "demo", "--wait-s", "0") == ""


def test_a_clone_that_makes_what_was_published_has_it_in_its_cache(changeable: TinyProject) -> None:
    before = (changeable.folder / "dvc.lock").read_bytes()
    shutil.rmtree(changeable.folder / ".dvc/cache")
    changeable.run("snakemake", "--quiet", "all")
    assert "up to date" in changeable.run("dvc", "status")
    assert (changeable.folder / "dvc.lock").read_bytes() == before
    # Wherever DVC is told to keep it.
    changeable.run("dvc", "config", "--local", "cache.dir", "elsewhere")
    (changeable.folder / ".dvc/cache").rename(changeable.folder / "elsewhere")
    with Held(changeable.folder / ".dvc/tmp/lock"):
        assert changeable.run(*RECORD, "demo", "--wait-s", "0") == ""


def test_a_stage_that_dvc_yaml_tells_otherwise_is_named_and_not_recorded(changeable: TinyProject) -> None:
    forget(changeable, "report-demo")
    path = changeable.folder / "dvc.yaml"
    path.write_text(path.read_text().replace("          - description\n", "          - seed\n"))
    output = changeable.run("snakemake", "--quiet", "all")
    assert "(report-demo): dvc.yaml is not in step with the configuration" in output
    assert "report-demo" not in locked_stages(changeable)
    changeable.run("darkroom", "publish", "--write")
    changeable.run("snakemake", "--quiet", "all")
    assert "up to date" in changeable.run("dvc", "status")


def test_what_dvc_could_not_copy_is_not_taken_for_recorded(changeable: TinyProject) -> None:
    """As on a full disk: DVC itself notes such files in dvc.lock, and ends well."""
    before = forget(changeable, "report-demo")
    cache = changeable.folder / ".dvc/cache/files/md5"
    (next(cache.glob("*/*"))).parent.chmod(0o755)
    for name in (f"{number:02x}" for number in range(256)):
        (cache / name).mkdir(exist_ok=True)
        (cache / name).chmod(0o555)
    # The manifest was recorded before, so its content is there: another one.
    changeable.edit("config/runs/demo.yaml", {"description": "another"})
    output = changeable.run("snakemake", "--quiet", "all")
    assert "dvc.lock was not brought up to date (report-demo): failed to transfer" in output
    assert "Permission denied" in output and "report-demo" not in locked_stages(changeable)
    for path in cache.iterdir():
        path.chmod(0o755)
    assert "not brought up to date" not in changeable.run("snakemake", "--quiet", "all")
    assert set(locked_stages(changeable)) == set(before)
    assert "up to date" in changeable.run("dvc", "status")


@pytest.mark.parametrize("name", ["dvc.lock", "dvc.yaml"])
def test_a_merge_that_is_not_settled_is_told_with_its_file(changeable: TinyProject, name: str) -> None:
    path = changeable.folder / name
    path.write_text(f"<<<<<<< HEAD\n{path.read_text()}")
    output = changeable.run(*RECORD, "demo")
    assert f"dvc.lock was not brought up to date: {name}: not valid YAML" in output
    assert "`git status` says whether a merge left it so" in output and "Traceback" not in output


def test_what_a_killed_dvc_leaves_does_not_keep_the_next_one_from_recording(changeable: TinyProject) -> None:
    before = forget(changeable, "report-demo")
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    path = changeable.folder / "results/runs/demo/report/manifest.json"
    entry = f'{{"write": {{"{path}": {{"pid": {process.pid}, "cmd": "dvc commit"}}}}, "read": {{}}}}'
    (changeable.folder / ".dvc/tmp/rwlock").write_text(entry)
    (changeable.folder / ".dvc/tmp/lock").write_text(f" {process.pid}\n")
    assert "not brought up to date" not in changeable.run(*RECORD, "demo")
    assert locked_stages(changeable) == before


def test_a_file_system_without_flock_has_its_results_recorded(
    changeable: TinyProject, tmp_path: Path
) -> None:
    before = forget(changeable, "report-demo")
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, fcntl\n"
        "def flock(descriptor, operation):\n"
        "    raise OSError(errno.ENOLCK, 'No locks available')\n"
        "fcntl.flock = flock\n"
    )
    search = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    changeable.variables = {"PYTHONPATH": search}
    assert "Unable to acquire lock" in changeable.run("dvc", "commit", "-f", "report-demo", check=False)
    output = changeable.run(*RECORD, "demo")
    assert "core.hardlink_lock" in output and "not brought up to date" not in output
    assert locked_stages(changeable) == before
    assert "up to date" in changeable.run("dvc", "status")


def test_results_behind_a_link_are_refused_at_start_for_a_published_run_alone(
    changeable: TinyProject, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    (changeable.folder / "results").rename(scratch)
    (changeable.folder / "results").symlink_to(scratch)
    output = changeable.run("snakemake", "-n", check=False)
    assert f"results is a link to {scratch}, out of the project" in output
    assert "Keep the whole clone on that disk" in output
    # Also where it lies in the project, and leads out by another link.
    (changeable.folder / "elsewhere").symlink_to(scratch)
    (changeable.folder / "results").unlink()
    (changeable.folder / "results").symlink_to("elsewhere")
    output = changeable.run("snakemake", "-n", check=False)
    assert "results is a link to elsewhere, out of the project" in output
    publish(changeable.folder)
    assert changeable.planned() == set()


def test_gc_frees_what_is_no_longer_recorded_and_keeps_the_results(changeable: TinyProject) -> None:
    def cached() -> set[Path]:
        return {path for path in (changeable.folder / ".dvc/cache").rglob("*") if path.is_file()}

    before = cached()
    changeable.edit("config/runs/demo.yaml", {"description": "another"})
    changeable.run("snakemake", "--quiet", "all")
    assert len(cached()) == len(before) + 1, "the manifest of the new report"
    changeable.run("dvc", "gc", "--workspace", "--force")
    assert len(before - cached()) == 1, "the manifest of the old report"
    assert "up to date" in changeable.run("dvc", "status")
    assert changeable.planned() == set()


class Held:
    """DVC's lock in the hands of another process."""

    def __init__(self, path: Path, seconds: float = 600) -> None:
        code = (
            "import sys, time, zc.lockfile; lock = zc.lockfile.LockFile(sys.argv[1]);"
            " print('held', flush=True); time.sleep(float(sys.argv[2]))"
        )
        self.command = [sys.executable, "-c", code, str(path), str(seconds)]

    def __enter__(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"held\n"

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
