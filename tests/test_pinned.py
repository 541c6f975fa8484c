"""A run keeps the configuration and the code that it was started with, whatever is edited meanwhile."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from darkroom import pinned
from darkroom.config import load_project
from darkroom.jobs import job
from darkroom.pinned import VARIABLE, PinError, check_code, config_folder, hold, take_snapshot

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a library of its own, in which a driver has begun."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    for name in (
        "Snakefile",
        "rules/filter.smk",
        "workflow/scripts/urls.py",
        "src/darkroom/filter/selection.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "src/darkroom/weights.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src/plugin.py").write_text("")
    packages = {"darkroom": tmp_path / "src/darkroom", "plugin": tmp_path / "src/plugin.py"}
    monkeypatch.setattr(pinned, "_packages", lambda: packages)
    # What a driver inside another's job inherits, and does not heed.
    monkeypatch.setenv(VARIABLE, "/nowhere")
    hold(take_snapshot(tmp_path), tmp_path / ".snakemake/darkroom/pinned")
    return tmp_path


def test_a_job_reads_the_configuration_of_its_start(project: Path) -> None:
    before = load_project("demo")
    edited = project / "config/datasets/demo.yaml"
    edited.write_text(edited.read_text().replace("min_side_px, min: ", "min_side_px, min: 9"))
    (project / "config/config.yaml").write_text("run: another\n")
    assert load_project("demo").dataset.keep != before.dataset.keep
    assert load_project("demo", config=config_folder()) == before
    assert (config_folder() / "config.yaml").read_text() == (ROOT / "config/config.yaml").read_text()


def test_paths_in_a_pinned_configuration_start_from_the_project(project: Path) -> None:
    # A VAE of eight levels has a factor of 128; if its config.json were not found, 8 would be taken.
    vae = project / "src/darkroom_demo/components/vae/config.json"
    vae.parent.mkdir(parents=True)
    vae.write_text('{"block_out_channels": [8, 8, 8, 8, 8, 8, 8, 8]}')
    with pytest.raises(ValueError, match="a multiple of 128 px"):
        load_project("demo", config=config_folder())


@pytest.mark.parametrize(
    "name",
    [
        "Snakefile",
        "rules/filter.smk",
        "workflow/scripts/urls.py",
        "src/darkroom/filter/selection.py",
        "src/plugin.py",
    ],
)
def test_changed_code_is_refused_by_name_until_it_is_put_back(project: Path, name: str) -> None:
    check_code()
    code = (project / name).read_bytes()
    (project / name).write_bytes(code + b"# a comment\n")
    remedy = f"changed while it ran: {name}; put it back, or start snakemake again"
    with pytest.raises(PinError, match=remedy):
        check_code()
    (project / name).write_bytes(code)
    os.utime(project / name, (0, 0))
    check_code()
    (project / name).unlink()
    with pytest.raises(PinError, match=remedy):
        check_code()


def test_the_code_of_packages_that_add_kinds_is_pinned_and_refused_where_it_is_gone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinned, "_packages", lambda: {"darkroom": project / "src/darkroom"})
    with pytest.raises(PinError, match="the package plugin, which is not installed any more"):
        check_code()
    monkeypatch.undo()
    code = take_snapshot(ROOT).code
    assert {"workflow", "darkroom", "darkroom_demo"} <= set(code)
    assert {"darkroom_demo/world.py", "darkroom_demo/components/vae/config.json"} <= set(
        code["darkroom_demo"]
    )


def test_what_an_editor_leaves_and_new_weights_are_no_change_of_code(project: Path) -> None:
    (project / "workflow/scripts/.urls.py.swp").write_text("")
    (project / "src/darkroom/filter/more.py").write_text("")
    (project / "src/darkroom/weights.safetensors").write_bytes(b"others")
    check_code()


def test_a_disk_that_cannot_be_read_is_no_change_of_code(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> str:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(pinned, "sha256_file", fail)
    with pytest.raises(OSError, match="Stale file handle"):
        check_code()


def test_a_driver_looks_again_only_after_a_pause(project: Path) -> None:
    check_code(pause_s=60)
    (project / "Snakefile").write_text("")
    check_code(pause_s=60)
    with pytest.raises(PinError, match="Snakefile"):
        check_code(pause_s=0)


def test_a_job_refuses_before_it_writes_and_its_log_says_why(project: Path) -> None:
    (project / "workflow/scripts/urls.py").write_text("")
    with pytest.raises(PinError), job(project / "job.log"):
        (project / "result").touch()
    assert not (project / "result").exists()
    assert "changed while it ran: workflow/scripts/urls.py" in (project / "job.log").read_text()


def test_a_script_started_by_hand_may_have_any_code(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    (project / "Snakefile").write_text("")
    check_code()


def test_jobs_of_a_driver_that_is_over_are_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = os.environ[VARIABLE]
    (project / "config/config.yaml").write_text("run: another\n")
    hold(take_snapshot(project), project / ".snakemake/darkroom/pinned")
    assert [str(path) for path in (project / ".snakemake/darkroom/pinned").iterdir()] == [
        os.environ[VARIABLE]
    ]
    monkeypatch.setenv(VARIABLE, earlier)
    for look in (check_code, config_folder):
        with pytest.raises(PinError, match="is over, and another has begun"):
            look()


def test_a_job_that_the_environment_did_not_reach_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(PinError, match=f"{VARIABLE} is not set"):
        config_folder()


def test_a_run_that_begins_again_unchanged_finds_its_snapshot(project: Path) -> None:
    first = os.environ[VARIABLE]
    hold(take_snapshot(project), project / ".snakemake/darkroom/pinned")
    assert os.environ[VARIABLE] == first


def test_a_job_parses_the_workflow_with_the_pinned_run_and_refuses_other_code(tmp_path: Path) -> None:
    names = subprocess.run(["git", "ls-files", "Snakefile", "rules", "workflow", "config"], cwd=ROOT,
                           capture_output=True, text=True, check=True).stdout.split()  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "src").symlink_to(ROOT / "src")
    held = "import os; from darkroom.pinned import *; hold(take_snapshot('.'), 'pinned')"
    held += "; print(os.environ[VARIABLE])"
    folder = subprocess.run([sys.executable, "-c", held], cwd=tmp_path, capture_output=True, text=True,
                            check=True).stdout.strip()  # fmt: skip
    (tmp_path / "config/config.yaml").write_text("run: nonsense\n")
    command = [
        str(Path(sys.executable).with_name("snakemake")),
        "--cores",
        "1",
        "-n",
        "--mode",
        "remote",
        "results/datasets/demo/urls.parquet",
    ]
    environment = {**os.environ, VARIABLE: folder}
    environment.pop("SNAKEMAKE_PROFILE", None)

    def parsed(**variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, env={**environment, **variables}, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip

    done = parsed()
    assert done.returncode == 0 and "results/datasets/demo/urls.parquet" in done.stdout, done.stdout
    assert "is not set" in parsed(**{VARIABLE: ""}).stdout
    with open(tmp_path / "workflow/scripts/urls.py", "a") as script:
        script.write("# a comment\n")
    done = parsed()
    assert done.returncode == 1 and "workflow/scripts/urls.py; put it back" in done.stdout, done.stdout
