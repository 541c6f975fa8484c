"""Edits while a run is at work on a cluster, whose jobs read configuration and code when they start."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from conftest import TinyProject
from test_chain_pinned import append, check_one_setting_throughout, edit_after_first_part, refilter
from test_cluster_chain import QUICK

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

ONE_AT_A_TIME = ("snakemake", "--profile", "slurm", "--jobs", "1", "filter")


@pytest.fixture
def changeable(
    finished_project: TinyProject, slurm_cluster: Cluster, tmp_path: Path
) -> Iterator[TinyProject]:
    """A copy of the finished project that runs its own library on the cluster."""
    copy = finished_project.copy(tmp_path / "copy")
    copy.edit("profiles/slurm/profile.yaml", QUICK)
    environment = slurm_cluster.environment(copy.environment)
    copy.variables = {name: environment[name] for name in ("PATH", "SLURM_CONF")}
    copy.variables["PYTHONPATH"] = str(copy.folder / "src")
    yield copy
    assert not slurm_cluster.jobs("PENDING", "RUNNING")
    shutil.rmtree(copy.folder)


@pytest.fixture
def submitted(slurm_cluster: Cluster) -> Callable[[], list[str]]:
    """The rules of the jobs submitted since the test began."""
    before = {job["id"] for job in slurm_cluster.jobs()}
    return lambda: [job["comment"] for job in slurm_cluster.jobs() if job["id"] not in before]


def test_a_threshold_edited_between_two_jobs_leaves_the_run_as_it_began(changeable: TinyProject) -> None:
    threshold = refilter(changeable)
    rc, output = edit_after_first_part(
        changeable,
        lambda: changeable.edit(
            "config/datasets/demo.yaml", {"keep": [{"column": "min_side_px", "min": 200}]}
        ),
        *ONE_AT_A_TIME,
    )
    assert rc == 0, output
    check_one_setting_throughout(changeable, threshold)
    changeable.run("darkroom", "verify", "demo", check=False)
    assert {"filter_part", "filter_manifest"} <= changeable.planned()


def test_another_run_named_in_the_configuration_is_of_the_next_command(changeable: TinyProject) -> None:
    threshold = refilter(changeable)
    rc, output = edit_after_first_part(
        changeable,
        lambda: (changeable.folder / "config/config.yaml").write_text("run: sd2-imagenet\n"),
        *ONE_AT_A_TIME,
    )
    assert rc == 0, output
    check_one_setting_throughout(changeable, threshold)


def test_after_an_edit_of_the_library_the_driver_ends_and_sends_no_more_jobs(
    changeable: TinyProject, submitted: Callable[[], list[str]]
) -> None:
    refilter(changeable)
    edited = "src/darkroom/filter/selection.py"
    rc, output = edit_after_first_part(
        changeable, lambda: append(changeable.folder / edited, "# a comment\n"), *ONE_AT_A_TIME
    )
    assert rc == 1
    assert (
        f"the code of this run changed while it ran: {edited}; put it back, or start snakemake again"
        in output
    )
    assert sum("filter_part" in comment for comment in submitted()) == 1
    changeable.run(*ONE_AT_A_TIME)
