"""What the tests of several ranks share: real processes, each told who it is."""

import os
import socket
import subprocess
from pathlib import Path

import warm


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def environment(rank, num_ranks, port, **more):
    """The environment of one rank, as torchrun would make it, on a thread of its own."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "MASTER_PORT": port, **more}
    told = {name: str(value) for name, value in numbers.items() if value is not None}
    return {**os.environ, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", **told}


class Processes:
    """Ranks that were started, and what they wrote (both streams)."""

    def __init__(self, folder, file, arguments, environments):
        self._logs = [Path(folder) / f"rank-{i}.log" for i in range(len(environments))]
        command = ["python", str(file), *map(str, arguments)]
        self.processes = []
        for env, log in zip(environments, self._logs, strict=True):
            with open(log, "w") as out:
                known = warm.jobs.environment(env)
                self.processes.append(subprocess.Popen(command, env=known, stdout=out, stderr=out))

    def wait(self, timeout_s=600):
        """(exit code, output) of each; none is left behind, and one that does not end fails the test."""
        try:
            codes = [p.wait(timeout_s) for p in self.processes]
        finally:
            for process in self.processes:
                process.kill()
                process.wait()
        return [(code, log.read_text()) for code, log in zip(codes, self._logs, strict=True)]


def start_ranks(folder, file, arguments, num_ranks, present=None, **more):
    """Start `file arguments` as ranks of one training; `present`: only those of them."""
    port = free_port()
    numbers = range(num_ranks) if present is None else present
    return Processes(folder, file, arguments, [environment(r, num_ranks, port, **more) for r in numbers])
