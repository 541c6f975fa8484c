"""`snakemake -n` in a fork of a process that has imported Snakemake, which is most of what a plan costs.

Run as a script it is that process: a line of JSON is a command, the answer is its exit code. Nothing of a
project is imported before the fork, so each plan runs the library of its own project.
"""

import atexit
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

# What costs most of a start, less what has threads of its own after it was imported (polars).
PRELOADED = (
    *("snakemake.persistence", "snakemake_executor_plugin_slurm", "smart_open", "nbformat", "jinja2"),
    "requests",
)
TIMEOUT_S = 1800


class Planner:
    """The process, started by the first command; it ends with the one that started it."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], output: Path
    ) -> int:
        """Exit code of `snakemake` with these arguments; both its streams go to the file `output`."""
        if self._server is None:
            own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            # Fewer threads of numpy's to fork beside.
            own["OPENBLAS_NUM_THREADS"] = "1"
            self._server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, text=True, env=own)  # fmt: skip
        assert self._server.stdin is not None and self._server.stdout is not None
        asked = {"arguments": list(arguments), "folder": str(folder), "environment": dict(environment)}
        self._server.stdin.write(json.dumps({**asked, "output": str(output)}) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, "the process that plans has ended"
        return int(answer)


def plan(asked: dict[str, str], arguments: list[str], environment: dict[str, str]) -> int:
    """In the fork: become the command."""
    signal.alarm(TIMEOUT_S)
    output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(environment)
    # As at the start of Python: the folder of the command, which has nothing to import, then PYTHONPATH.
    sys.path[:1] = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = [str(Path(sys.executable).parent / "snakemake"), *arguments]
    cli = importlib.import_module("snakemake.cli")
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    # Not `snakemake.cli`: that imports the project's plugins, which import its library.
    for name in PRELOADED:
        importlib.import_module(name)
    assert not any(name.startswith(("darkroom", "snakemake_logger_plugin_darkroom")) for name in sys.modules)
    for line in sys.stdin:
        told = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            # What this process registered is its own; what the plan does, is done as at the end of a command.
            atexit._clear()
            try:
                code = plan(told, told["arguments"], told["environment"])
                atexit._run_exitfuncs()
            except BaseException:
                traceback.print_exc()
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):
                    stream.flush()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
