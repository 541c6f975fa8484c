"""What the tests of the whole chain share: a copy of the project with a small demo world in it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import Cluster, missing_programs
from filelock import FileLock

from darkroom.config.load import merge

# Before torch is imported anywhere: waiting threads that spin starve whatever else runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "2")

ROOT = Path(__file__).parents[1]
# The property of a test that is a row of the table in docs/reliability.md.
TABLE_ROW = "row of docs/reliability.md"
TABLE_HEADER = "| What happens | How it ends | Steps repeated | Samples lost or doubled | Orphan jobs |"

TINY_DATASET = {
    "source": {"num_scenes": 150, "num_digits": 6, "num_photos": 6},
    "rows_per_part": 130,
    "download": {"timeout_s": 3, "total_timeout_s": 6},
}
TINY_RUN = {
    "bucket": {"max_side_px": 96},
    "model": {"num_blocks": 2, "num_heads": 1},
    "train": {
        "num_steps": 12,
        "global_batch_size": 8,
        "microbatch_size": 4,
        "num_warmup_steps": 2,
        "checkpoint_every_steps": 3,
        "log_every_steps": 2,
        "sample_every_steps": 6,
    },
    "evaluate": {
        "max_prompts": 2,
        "num_pictures_per_prompt": 2,
        "num_reference_pictures": 40,
        "num_bootstrap": 20,
        "sampling": {"num_inference_steps": 3},
    },
}


class TinyProject:
    """A copy of the repository with the demo made small, and commands run in it as a user would."""

    # Added to the environment of every command, e.g. to reach a cluster.
    variables: Mapping[str, str] = {}

    # What the command that made a finished one printed, and where.
    first_output, made_in = "", Path()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, check=True, text=True,
        ).stdout.split("\0")  # fmt: skip
        for name in filter(None, names):
            if not name.startswith(("tests/", "docs/")) and os.path.lexists(ROOT / name):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
        self.edit("config/datasets/demo.yaml", TINY_DATASET)
        self.edit("config/runs/demo.yaml", TINY_RUN)
        (folder / "dvc.lock").unlink(missing_ok=True)
        shutil.rmtree(folder / "results", ignore_errors=True)
        git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "tiny"]):
            subprocess.run([*git, *command], cwd=folder, check=True, capture_output=True)

    def edit(self, name: str, values: Mapping[str, Any]) -> None:
        """Merge `values` into a YAML file."""
        self.write(name, merge(self.read(name), values))

    def read(self, name: str) -> Any:
        """What a YAML file holds."""
        return yaml.safe_load((self.folder / name).read_text())

    def write(self, name: str, values: Any) -> None:
        """Replace what a YAML file holds."""
        (self.folder / name).write_text(yaml.safe_dump(values, sort_keys=False))

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        fixed = {"PATH": path, "SNAKEMAKE_PROFILE": "profiles/local", "NO_COLOR": "1"}
        return {**os.environ, **fixed, **self.variables}

    def run(self, *command: str, check: bool = True, timeout_s: float = 600) -> str:
        """Output (both streams) of a command in the project."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, timeout=timeout_s,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
        return done.stdout

    def planned(self, *arguments: str) -> set[str]:
        """The rules that `snakemake -n` would run."""
        output = self.run("snakemake", "-n", *arguments)
        return set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE)) - {"all"}


@pytest.fixture(scope="session")
def make_tiny_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TinyProject]:
    return lambda name: TinyProject(tmp_path_factory.mktemp(name))


def made_once(project: TinyProject, tmp_path_factory: pytest.TempPathFactory, *command: str) -> TinyProject:
    """The project after a command. Of several workers the first runs it, and each has a copy of its own."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"made-{command[-1]}"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            output, beside = project.run(*command), shared.with_suffix(".tmp")
            shutil.copytree(project.folder, beside / "project", symlinks=True)
            (beside / "output.txt").write_text(output)
            (beside / "made-in.txt").write_text(str(project.folder))
            beside.rename(shared)
    project.first_output = (shared / "output.txt").read_text()
    project.made_in = Path((shared / "made-in.txt").read_text())
    if project.made_in != project.folder:
        shutil.rmtree(project.folder)
        shutil.copytree(shared / "project", project.folder, symlinks=True)
    return project


@pytest.fixture(scope="session")
def finished_project(
    make_tiny_project: Callable[[str], TinyProject], tmp_path_factory: pytest.TempPathFactory
) -> TinyProject:
    """A tiny project after one `snakemake`; tests that change it work on a copy."""
    return made_once(make_tiny_project("finished"), tmp_path_factory, "snakemake", "--quiet", "all")


@pytest.fixture(scope="session")
def trained_project(
    make_tiny_project: Callable[[str], TinyProject], tmp_path_factory: pytest.TempPathFactory
) -> TinyProject:
    """A tiny project after `snakemake train`; tests that change it work on a copy."""
    return made_once(make_tiny_project("trained"), tmp_path_factory, "snakemake", "train")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `slurm` need SLURM's programs, and say so where they are not."""
    missing = missing_programs()
    if missing:
        reason = f"no {', '.join(missing)}: apt-get install slurm-wlm munge"
        for item in items:
            if item.get_closest_marker("slurm"):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what trainings on a cluster went through, from whichever process it was measured in."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    rows = [v for report in reports for name, v in report.user_properties if name == TABLE_ROW]
    if rows:
        terminalreporter.write_line("\n".join(["", TABLE_HEADER, "|---|---|---|---|---|", *map(str, rows)]))


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Cluster]:
    """A cluster of two nodes with two pretended GPUs each, shared by tests that do not break it."""
    with Cluster() as cluster:
        yield cluster
