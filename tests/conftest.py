"""What the tests of the whole chain share: a copy of the project with a small demo world in it."""

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import warm
import yaml
from cluster import Cluster, missing_programs
from fetched import unpacked_package
from filelock import FileLock
from warm import NOT_OF_FORKS

from darkroom.config import load_project
from darkroom.config.load import merge
from darkroom.publish import pipeline_text
from darkroom.stages import STAGES
from darkroom.stages import folder as stage_folder

# Whoever runs tests in the background has them ignore Ctrl-C, and so would all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Of what is imported and collected next to nothing is garbage; then it is set aside, see below.
gc.disable()

# Before torch is imported anywhere: arithmetic as small as this is slower on several threads, and threads that
# spin while they wait starve whatever else runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]
# The property of a test that is a row of the table in docs/reliability.md.
TABLE_ROW = "row of docs/reliability.md"
TABLE_HEADER = "| What happens | How it ends | Steps repeated | Samples lost or doubled | Orphan jobs |"

MADE_ONCE = "DARKROOM_MADE_ONCE"

TINY_DATASET = {
    "source": {"num_scenes": 150, "num_digits": 6, "num_photos": 6},
    "rows_per_part": 130,
    # A machine that also runs other tests may stand still for seconds.
    "download": {"timeout_s": 8, "total_timeout_s": 24},
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
    "draw": {"max_prompts": 2, "num_pictures_per_prompt": 2, "sampling": {"num_inference_steps": 3}},
    "measure": {
        "frechet_clip_distance": {"num_reference_pictures": 40},
        "kernel_clip_distance": {"num_reference_pictures": 40},
    },
    "evaluate": {"num_bootstrap": 20},
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
        # Compiled code too, good for a source of the same time: else each project compiles the library anew.
        compiled = [str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("__pycache__/*.pyc")]
        for name in filter(None, [*names, *compiled]):
            if not name.startswith(("tests/", "docs/")) and os.path.lexists(ROOT / name):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
        self.edit("config/datasets/demo.yaml", TINY_DATASET)
        self.edit("config/runs/demo.yaml", TINY_RUN)
        # Of the published runs the one that is made here.
        choice = folder / "config/config.yaml"
        choice.write_text(re.sub(r"(?m)^published: .*$", "published: [demo]", choice.read_text()))
        (folder / "dvc.yaml").write_text(pipeline_text(folder))
        (folder / "dvc.lock").unlink(missing_ok=True)
        shutil.rmtree(folder / "published", ignore_errors=True)
        git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "tiny"]):
            subprocess.run([*git, *command], cwd=folder, check=True, capture_output=True)

    def copy(self, folder: Path) -> "TinyProject":
        """A copy in `folder`, with its times, that a test may change."""
        project = TinyProject.__new__(TinyProject)
        project.folder, project.variables = folder, self.variables
        shutil.copytree(self.folder, folder, symlinks=True)
        return project

    def edit(self, name: str, values: Mapping[str, Any]) -> None:
        """Merge `values` into a YAML file."""
        self.write(name, merge(self.read(name), values))

    def read(self, name: str) -> Any:
        """What a YAML file holds."""
        return yaml.safe_load((self.folder / name).read_text())

    def write(self, name: str, values: Any) -> None:
        """Replace what a YAML file holds."""
        (self.folder / name).write_text(yaml.safe_dump(values, sort_keys=False))

    def results(self, stage: str, run: str = "demo") -> Path:
        """Where a stage's files lie."""
        return self.folder / stage_folder(load_project(run, self.folder), stage)

    def hide(self, module: str) -> None:
        """Have programs find a package not installed."""
        (self.folder / "src/sitecustomize.py").write_text(
            "import importlib.util\nfind = importlib.util.find_spec\n"
            f"importlib.util.find_spec = lambda name, *rest: None if name == {module!r} else find(name, *rest)\n"
        )

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # Commands such as `darkroom` refuse a project whose library is another's.
        fixed = {"PATH": path, "PYTHONPATH": str(self.folder / "src")}
        fixed |= {"SNAKEMAKE_PROFILE": "profiles/local", "NO_COLOR": "1"}
        return {**os.environ, **fixed, **self.variables}

    def run(
        self, *command: str, check: bool = True, timeout_s: float = 1800, as_users_do: bool = False
    ) -> str:
        """Output (both streams) of a command in the project; see `warm`, which `as_users_do` does without."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment if as_users_do else self._warm(command),
            timeout=timeout_s, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
        return done.stdout

    def _warm(self, command: Sequence[str]) -> dict[str, str]:
        """The environment of a command, where that can be a fork."""
        if tuple(command[:2]) == ("snakemake", "-n") and "LD_PRELOAD" not in self.variables:
            return warm.plans.environment(self.environment)
        if NOT_OF_FORKS & self.variables.keys():
            return self.environment
        return warm.jobs_of(self.environment).environment(self.environment)

    def planned(self, *arguments: str) -> set[str]:
        """The rules that `snakemake -n` would run, less the targets, which make nothing."""
        output = self.run("snakemake", "-n", *arguments)
        return set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE)) - {"all", *STAGES}


@pytest.fixture(scope="session")
def make_tiny_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TinyProject]:
    return lambda name: TinyProject(tmp_path_factory.mktemp(name))


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all processes of these tests; of `make test`, for those on a cluster and the others."""
    base = tmp_path_factory.getbasetemp()
    return Path(os.environ.get(MADE_ONCE) or (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base))


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Package of `fetched.PACKAGES` -> the folder of what is in it, fetched by the first who asks."""
    return lambda package: unpacked_package(package, shared_folder(tmp_path_factory))


def made_once(project: TinyProject, tmp_path_factory: pytest.TempPathFactory, *command: str) -> TinyProject:
    """The project after a command. Of several workers the first runs it, and each has a copy of its own."""
    shared = shared_folder(tmp_path_factory) / f"made-{command[-1]}"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            output, beside = project.run(*command, as_users_do=True), shared.with_suffix(".tmp")
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
    return made_once(make_tiny_project("finished"), tmp_path_factory, "snakemake")


@pytest.fixture
def changeable(finished_project: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    """A copy of the finished project that a test may change."""
    copy = finished_project.copy(tmp_path / "copy")
    yield copy
    shutil.rmtree(copy.folder)


@pytest.fixture(scope="session")
def trained_project(finished_project: TinyProject, tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    """As after `snakemake train`; tests that change it work on a copy."""
    project = finished_project.copy(tmp_path_factory.mktemp("trained") / "project")
    for stage in ("draw", "measure", "evaluate", "report"):
        shutil.rmtree(project.folder / "results/runs/demo" / stage)
    return project


# Files of minutes, longest first: what is begun last should be short, or all other processes wait for it.
LONGEST = (
    "test_recipes",
    "test_chain",
    "test_dvc_lock",
    "test_docs",
    "test_graph",
    "test_file_systems",
    "test_adopt",
    "test_train_rendezvous",
    "test_family_flux",
    "test_slurm_faults",
    "test_slurm_drivers",
    "test_cluster_chain",
    "test_slurm_pinned",
)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: made anew at each start, they may differ between processes."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first. Tests marked `slurm` need SLURM's programs, and say so where they are not."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    missing = missing_programs()
    if missing:
        reason = f"no {', '.join(missing)}: apt-get install slurm-wlm munge"
        for item in items:
            if item.get_closest_marker("slurm"):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


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
