"""Drivers of two small rules on real clusters: one that is itself a job, and those that ask a job database.

Whatever the database does not tell, the driver ends or goes on. One cluster has a real slurmdbd, and one has none
though its driver asks. The jobs only wait; what is tested is the executor `darkroom`.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cluster import Cluster, Settings, missing_programs
from conftest import ROOT

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SNAKEFILE = """
rule all:
    input: "b.txt"
    localrule: True

rule first:
    output: "a.txt"
    shell: "touch {config[go]}.awaited; while [ ! -e {config[go]} ]; do sleep 0.2; done; touch {output}"

rule second:
    input: "a.txt"
    output: "b.txt"
    shell: "touch {output}"

# Each of four at once.
rule many:
    input: expand("many-{i}.txt", i=range(4))
    localrule: True

rule one_of_many:
    output: "many-{i}.txt"
    shell: "sleep 3; touch {output}"
"""
OPTIONS = [
    *("--executor", "darkroom", "--jobs", "4", "--default-resources", "slurm_partition=cpu", "mem_mb=500"),
    *(
        "--nolock",
        "--rerun-incomplete",
        "--retries",
        "1",
        "--latency-wait",
        "5",
        "--seconds-between-status-checks",
        "2",
    ),
    *("--darkroom-init-seconds-before-status-checks", "2", "--darkroom-status-command"),
]


class Driver:
    """`snakemake` on two small rules; the first waits until it may go on."""

    def __init__(self, folder: Path, cluster: Cluster, *resources: str, targets: Sequence[str] = ()) -> None:
        self.folder, self.cluster, self.go = folder, cluster, folder / "go"
        (folder / "Snakefile").write_text(SNAKEFILE)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        base = {**os.environ, "PATH": path, "NO_COLOR": "1", "DARKROOM_LOST_S": "10"}
        base.pop("SNAKEMAKE_PROFILE", None)
        options = [*targets, *OPTIONS, "sacct", "--config", f"go={self.go}"]
        if resources:
            options += ["--set-resources", *resources]
        with open(folder / "driver.log", "wb") as log:
            self.process = subprocess.Popen(
                ["snakemake", *options], cwd=folder, stdout=log, stderr=log, env=cluster.environment(base)
            )

    def told(self) -> str:
        return (self.folder / "driver.log").read_text(errors="replace")

    def wait_for(self, condition: Callable[[], object], what: str, timeout_s: float = 400) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"no {what} in {timeout_s:.0f} s:\n{self.told()}"
            time.sleep(0.2)

    def running(self, *others: str) -> str:
        """The number of the first rule's job once it runs, and is none of the others."""
        found: list[str] = []

        def is_running() -> bool:
            lines = self.cluster.run("squeue", "-h", "-t", "RUNNING", "-o", "%i|%Z", check=False).splitlines()
            pairs = [line.split("|") for line in lines if "|" in line]
            found[:] = [n for n, place in pairs if place == str(self.folder) and n not in others]
            return bool(found)

        self.wait_for(is_running, "running job")
        return found[0]

    def end(self, timeout_s: float = 600) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the driver waits and waits:\n{self.told()}") from None

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


Drive = Callable[..., Driver]


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    drivers: list[Driver] = []

    def start(cluster: Cluster, *resources: str, targets: Sequence[str] = ()) -> Driver:
        drivers.append(Driver(tmp_path, cluster, *resources, targets=targets))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.stop()


@pytest.fixture(scope="module")
def with_database() -> Iterator[Cluster]:
    if missing := missing_programs(has_database=True):
        pytest.skip(f"no {', '.join(missing)}: apt-get install slurmdbd mariadb-server")
    with Cluster(Settings(has_database=True)) as cluster:
        yield cluster


def test_a_job_that_is_cancelled_from_outside_is_sent_again(with_database: Cluster, drive: Drive) -> None:
    driver = drive(with_database)
    first = driver.running()
    # The database says "CANCELLED by 0", which the plugin takes for a job that runs.
    with_database.run("scancel", first)
    driver.running(first)
    assert f"Job {first} ended as CANCELLED" in driver.told()
    driver.go.touch()
    assert driver.end() == 0, driver.told()
    assert (driver.folder / "b.txt").exists()


def test_a_database_that_is_away_for_half_a_minute_costs_nothing(
    with_database: Cluster, drive: Drive
) -> None:
    driver = drive(with_database)
    driver.running()
    with_database.stop_database()
    time.sleep(15)
    driver.go.touch()
    time.sleep(15)
    with_database.start_database()
    assert driver.end() == 0, driver.told()
    assert "Trying to restart" not in driver.told()


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        ("slurm_account=nobody", "Invalid account or account/partition combination specified"),
        ("qos=nothing", "Invalid qos specification"),
        ("slurm_partition=nowhere", "invalid partition specified: nowhere"),
    ],
)
def test_what_sbatch_will_never_take_ends_with_its_words_and_is_asked_once(
    with_database: Cluster, drive: Drive, resource: str, words: str
) -> None:
    driver = drive(with_database, f"first:{resource}")
    assert driver.end() == 1
    assert driver.told().count(words) >= 1 and resource.split("=")[1] in driver.told()
    assert driver.told().count("SLURM sbatch failed") == 1 and "Trying to restart" not in driver.told()
    assert not with_database.jobs("PENDING", "RUNNING")


def test_a_limit_on_submissions_below_jobs_is_waited_for(with_database: Cluster, drive: Drive) -> None:
    with_database.limit_submissions("two", 2)
    driver = drive(with_database, "one_of_many:qos=two", targets=["many"])
    driver.wait_for(lambda: "sbatch does not take one_of_many at present" in driver.told(), "message")
    assert len(with_database.jobs("PENDING", "RUNNING", "COMPLETING")) <= 2
    assert driver.end() == 0, driver.told()
    assert all((driver.folder / f"many-{i}.txt").exists() for i in range(4))
    told = driver.told()
    assert "QOSMaxSubmitJobPerUserLimit" in told and told.count("at present") == 1
    assert "Trying to restart" not in told and "Error" not in told


def test_a_limit_of_none_at_all_ends_with_an_error(with_database: Cluster, drive: Drive) -> None:
    with_database.limit_submissions("none", 0)
    driver = drive(with_database, "first:qos=none")
    assert driver.end() == 1
    assert "QOSMaxSubmitJobPerUserLimit" in driver.told() and "Trying to restart" not in driver.told()


def test_darkroom_cluster_check_names_an_account_that_is_not_yours(with_database: Cluster) -> None:
    profile = ROOT / "profiles/slurm/profile.yaml"
    text = profile.read_text().replace("# slurm_account: my-project", "slurm_account: nobody")
    assert "slurm_account: nobody" in text
    edited = with_database.folder / "profile.yaml"
    edited.write_text(text)
    output = with_database.run(
        sys.executable, "-m", "darkroom.cli", "cluster", "check", "--profile", str(edited), check=False
    )
    assert "slurm_account: nobody is not among yours: " in output and "lab" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_driver_that_is_told_to_end_leaves_no_job(
    slurm_cluster: Cluster, drive: Drive, number: signal.Signals
) -> None:
    driver = drive(slurm_cluster)
    job = driver.running()
    driver.process.send_signal(number)
    assert driver.end() == 1, driver.told()
    states = {found["id"]: found["state"] for found in slurm_cluster.jobs()}
    assert states[job] in ("CANCELLED", "COMPLETING")


def test_the_jobs_of_a_killed_driver_end_before_the_next_submits(
    slurm_cluster: Cluster, drive: Drive
) -> None:
    killed = drive(slurm_cluster)
    orphan = killed.running()
    killed.stop()
    driver = drive(slurm_cluster)
    driver.running(orphan)
    assert f"left jobs behind: {orphan} (first)" in driver.told() and "they are gone" in driver.told()
    driver.go.touch()
    assert driver.end() == 0, driver.told()


def test_a_controller_that_is_away_costs_nothing(drive: Drive) -> None:
    with Cluster() as cluster:
        driver = drive(cluster)
        # Until then the job itself needs the controller, to start its step.
        driver.wait_for(Path(f"{driver.go}.awaited").exists, "step of the job")
        cluster.stop_controller()
        driver.wait_for(lambda: "the scheduler does not answer" in driver.told(), "message")
        cluster.start_controller()
        driver.wait_for(lambda: "the scheduler answers again" in driver.told(), "message")
        driver.go.touch()
        assert driver.end() == 0, driver.told()
        assert "Trying to restart" not in driver.told()


def test_without_a_database_a_driver_that_asks_it_still_ends(slurm_cluster: Cluster, drive: Drive) -> None:
    driver = drive(slurm_cluster)
    driver.running()
    driver.go.touch()
    assert driver.end() == 0, driver.told()


def test_a_driver_may_itself_be_a_job(slurm_cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "go").touch()
    alone = ["env", "-u", "SNAKEMAKE_PROFILE", str(Path(sys.executable).parent / "snakemake")]
    words = [*alone, *OPTIONS, "squeue", "--config", f"go={tmp_path / 'go'}"]
    slurm_cluster.run(
        *("sbatch", "--wait", "--mem=1000", f"--chdir={tmp_path}", f"--output={tmp_path}/driver.log"),
        *("--wrap", shlex.join(words)),
        timeout_s=600,
    )
    assert (tmp_path / "b.txt").exists(), (tmp_path / "driver.log").read_text()
    rules = [job["comment"] for job in slurm_cluster.jobs() if job["comment"].startswith("rule_")]
    assert {"rule_first", "rule_second"} <= set(rules)
