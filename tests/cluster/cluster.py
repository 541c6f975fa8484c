"""The cluster's life: started in half a second, broken on demand, stopped without a trace."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from cluster import accounting
from cluster.machine import COMMANDS, free_ports, isolation, kill, processes_with, program
from cluster.settings import Settings, write_files

CONTROLLER, DATABASE = "slurmctld", "slurmdbd"


class Cluster:
    """A running cluster, as a context manager.

    Where the machine allows it each node has a host name and process ids of its own, so that all of a
    node's processes end with it; else nodes are told apart by their jobs' environment alone.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.nodes = self.settings.nodes
        self._unshare = isolation()
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    # Life

    def __enter__(self) -> "Cluster":
        # Not pytest's folders: the path of a socket may have 107 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.folder.chmod(0o755)
        # SLURM_CLUSTER_NAME is in the environment of all that a job starts: it marks what is ours.
        self.name = self.folder.name
        try:
            self._write()
            self._start_munge()
            if self.settings.has_database:
                self._start_database()
            self.start_controller()
            for node in self.nodes:
                self.boot_node(node)
            self.wait_for(lambda: set(self.node_states().values()) == {"idle"}, 300, "idle nodes")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Cancel the jobs, end the daemons and whatever else carries the cluster's mark, remove its folder."""
        for name in [*self.nodes, CONTROLLER, DATABASE, "mariadbd", "munged"]:
            self._end(name, signal.SIGKILL if name in self.nodes else signal.SIGTERM)
        for pid in self.processes():
            kill(pid)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self) -> None:
        for name in ("etc", "run", "log", "state", "dev", "bin", *(f"spool/{n}" for n in self.nodes)):
            (self.folder / name).mkdir(parents=True)
        user, host = pwd.getpwuid(os.getuid()).pw_name, socket.gethostname().split(".")[0]
        write_files(self.folder, self.settings, self.name, user, host, free_ports(len(self.nodes) + 2))
        # Snakemake's job step drops SLURM_CONF from a job's environment; these bring it back.
        for command in COMMANDS:
            wrapper = self.folder / "bin" / command
            wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.conf} exec {program(command)} "$@"\n')
            wrapper.chmod(0o755)
        key = self.folder / "etc/munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))

    def _start_munge(self) -> None:
        run, socket_path = self.folder / "run", self.folder / "run/munge"
        files = {
            "socket": socket_path,
            "key-file": self.folder / "etc/munge.key",
            "pid-file": run / "munge.pid",
        }
        files |= {"seed-file": run / "munge.seed", "log-file": self.folder / "log/munge.log"}
        options = [f"--{name}={path}" for name, path in files.items()]
        self._start("munged", [program("munged"), "--foreground", "--force", *options])
        self.wait_for(socket_path.exists, 300, "munge's socket")

    def _start_database(self) -> None:
        """With one account, of which this user is a member: without an account no job is taken."""
        user = pwd.getpwuid(os.getuid()).pw_name
        accounting.start_mariadb(self.folder, user, self._start, self.wait_for)
        self.start_database()
        self.run("sacctmgr", "--immediate", "add", "cluster", self.name)
        self.run("sacctmgr", "--immediate", "add", "account", accounting.ACCOUNT)
        account = f"account={accounting.ACCOUNT}"
        self.run("sacctmgr", "--immediate", "add", "user", user, account, f"default{account}")

    def _start(self, name: str, command: list[str], variables: Mapping[str, str] | None = None) -> None:
        with open(self.folder / "log" / f"{name}.out", "ab") as log:
            self._daemons[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env=self.environment(
                    {**os.environ, "SLURM_TEST_DAEMON": f"{self.name}/{name}", **(variables or {})}
                ),
                start_new_session=True,
            )  # fmt: skip

    def _end(self, name: str, number: signal.Signals) -> None:
        """End a daemon; of a node it is what `unshare` started, the first process of its own."""
        daemon = self._daemons.pop(name, None)
        if daemon is None:
            return
        children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
        with contextlib.suppress(OSError):
            inner = children.read_text().split() if name in self.nodes and self._unshare else []
            for pid in inner:
                kill(int(pid), number)
        if not (name in self.nodes and self._unshare):
            kill(daemon.pid, number)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    # Breaking and mending

    def boot_node(self, node: str) -> None:
        """Start a node's daemon; it serves as soon as it has registered."""
        command = [program("slurmd"), "-D", "-f", str(self.conf), "-N", node]
        if self._unshare:
            script = f'hostname {node} && mount --bind {self.folder}/etc/hosts /etc/hosts && exec "$@"'
            command = [*self._unshare, "sh", "-c", script, "sh", *command]
        self._start(node, command)

    def crash_node(self, node: str) -> None:
        """Power loss: the node and all that runs on it are gone at once, without a word to the controller."""
        self._end(node, signal.SIGKILL)
        for mark in (
            {"SLURM_TEST_DAEMON": f"{self.name}/{node}"},
            {"SLURM_CLUSTER_NAME": self.name, "SLURMD_NODENAME": node},
        ):
            for pid in processes_with(mark):
                kill(pid)

    def start_controller(self) -> None:
        """Start slurmctld with the state it left, and wait until it answers."""
        self._start(CONTROLLER, [program(CONTROLLER), "-D", "-f", str(self.conf)])
        self.wait_for(lambda: "UP" in self.run("scontrol", "ping", check=False), 300, "the controller")

    def stop_controller(self) -> None:
        """End slurmctld, which saves its state; running jobs go on."""
        self._end(CONTROLLER, signal.SIGTERM)

    def start_database(self) -> None:
        """Start slurmdbd, and wait until it answers."""
        command, variables = accounting.slurmdbd(self.folder)
        self._start(DATABASE, command, variables)
        known = ("sacctmgr", "--noheader", "list", "cluster")
        self.wait_for(lambda: "refused" not in self.run(*known, check=False), 300, "slurmdbd")

    def limit_submissions(self, qos: str, num_jobs: int) -> None:
        """A QOS of this user's under which no more than `num_jobs` may be in the queue; waits until it holds."""
        user = pwd.getpwuid(os.getuid()).pw_name
        limit = f"MaxSubmitJobsPerUser={num_jobs}"
        self.run("sacctmgr", "--immediate", "add", "qos", qos, limit)
        self.run("sacctmgr", "--immediate", "modify", "user", user, "set", f"qos+={qos}")
        # The database tells the controller by itself.
        known = ("scontrol", "show", "assoc_mgr", "flags=qos", f"qos={qos}")
        self.wait_for(lambda: f"QOS={qos}(" in self.run(*known, check=False), 300, "the QOS")

    def stop_database(self) -> None:
        """End slurmdbd: `sacct` gets no answer, the controller keeps what it is to be told."""
        self._end(DATABASE, signal.SIGTERM)

    # Asking

    @property
    def conf(self) -> Path:
        return self.folder / "etc/slurm.conf"

    @property
    def has_host_names(self) -> bool:
        """Whether each node has a host name and process ids of its own."""
        return bool(self._unshare)

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """`base` (this process's) for a command that is to use this cluster and no other."""
        kept = {
            name: value
            for name, value in (os.environ if base is None else base).items()
            if not name.startswith(("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_")) or name == "SLURM_TEST_DAEMON"
        }
        path = f"{self.folder / 'bin'}{os.pathsep}{kept.get('PATH', os.defpath)}"
        return {**kept, "SLURM_CONF": str(self.conf), "PATH": path}

    def run(self, *command: str, check: bool = True, timeout_s: float = 300) -> str:
        """Output (both streams) of a command in the cluster's environment."""
        done = subprocess.run(
            command, env=self.environment(), timeout=timeout_s, text=True, cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def node_states(self) -> dict[str, str]:
        """Node -> state as sinfo names it (`idle`, `mixed`, `allocated`, `down*`, ...)."""
        lines = self.run("sinfo", "-h", "-N", "-p", "cpu", "-o", "%N %T").splitlines()
        return dict(line.split() for line in lines)

    def jobs(self, *states: str) -> list[dict[str, str]]:
        """The jobs, also ended ones, oldest first: id, name, comment, state, nodes, reason, restarts.

        `states` keeps those in one of these states only, e.g. "RUNNING", "PENDING".
        """
        names = ("id", "name", "comment", "state", "nodes", "num_nodes", "partition", "reason")
        layout = "%i|%j|%k|%T|%N|%D|%P|%r"
        lines = self.run("squeue", "-h", "-t", "all", "-o", layout).splitlines()
        found = [dict(zip(names, line.split("|"), strict=True)) for line in lines]
        found.sort(key=lambda job: int(job["id"].split("_")[0]))
        return [job for job in found if not states or job["state"] in states]

    def processes(self) -> list[int]:
        """The processes that carry this cluster's mark: daemons, drivers, steps and what jobs started."""
        marks = ({"SLURM_CONF": str(self.conf)}, {"SLURM_CLUSTER_NAME": self.name})
        return sorted({pid for mark in marks for pid in processes_with(mark)})

    def wait_for(self, condition: Callable[[], object], timeout_s: float, what: str) -> None:
        """Wait until `condition` holds.

        Raises:
            TimeoutError: it did not in time; has the ends of the daemons' logs.
        """
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"no {what} within {timeout_s} s\n{self._log_ends()}")
            time.sleep(0.05)

    def _log_ends(self) -> str:
        ends = []
        for path in sorted((self.folder / "log").iterdir()):
            ends += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-12:]]
        return "\n".join(ends)
