"""A run that does little, and what its jobs took, as the tests of plans need them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from darkroom.config import Project, load_project
from darkroom.planning.observations import Observation
from darkroom.planning.place import Place
from darkroom.planning.work import STEPS, Amounts, Work, key_of, works
from darkroom.stages import STAGES, members

ROOT = Path(__file__).parents[1]
HERE = Place("this", slots=4, gpus={"train_run": 1})
RUN = "sd2-imagenet-tiny"
BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


# So few that they can be counted.
FEW = """
train: {num_steps: 60, checkpoint_every_steps: 30}
draw: {max_prompts: 6, num_pictures_per_prompt: 1}
"""


def configured(folder: Path) -> Path:
    """A folder with the project's configuration, in which the run does little, and its code, and no results."""
    shutil.copytree(ROOT / "config", folder / "config")
    for name in ("src", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    run = folder / f"config/runs/{RUN}.yaml"
    run.write_text(run.read_text() + FEW)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(configured(tmp_path_factory.mktemp("configured")))
        return load_project(RUN)


@pytest.fixture
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's configuration and code, and no results."""
    monkeypatch.chdir(configured(tmp_path))
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "profiles/local")
    return tmp_path


def measured(work: Work, units: float, seconds: float, **more: float) -> Observation:
    time = 1000 * units + seconds
    return Observation(
        work.stage, work.name, work.key, "this", units, time, f"{work.name}.tsv", seconds, **more
    )


def of_all_works(project: Project, start: float = 2.0, each: float = 0.5) -> list[Observation]:
    """Every work of a run, measured at two sizes without noise: start + each x units seconds and bytes."""
    amounts = {name: Amounts(24) for name in project.datasets}
    found = []
    for stage in STAGES:
        for of in members(project, stage):
            for work in works(of, stage, amounts):
                first = 0.0 if work.name in (STEPS, "train_run beside") else start
                for units in (10.0, 40.0):
                    took = first + each * units
                    if work.rule in ("files", "checkpoints"):
                        found.append(
                            replace(measured(work, units, took), seconds=None, machine="", count=took)
                        )
                    else:
                        found.append(measured(work, units, took, memory_mib=100 + units, cpu_s=took / 2))
    for stage, name in (("filter", "kept"), ("cache", "cached")):
        key = key_of(project, stage)
        found.append(Observation(stage, name, key, "", 24.0, 1.0, stage, count=18.0))
    return found
