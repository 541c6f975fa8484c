"""Commands in forks of a process that has imported what they import, which is most of what small ones cost.

A folder of shims stands first in the PATH of a command: COMMANDS, `python SCRIPT` and `python -c CODE` ask the
process for a fork that becomes them; whatever else is asked of `python` starts as ever. Nothing of a project is
imported before the fork, so each command runs the library of its own project. Run as a script this file is that
process.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SOCKET = "WARM_SOCKET"
COMMANDS = {
    "snakemake": "snakemake.cli:main",
    "dvc": "dvc.cli:main",
    "darkroom": "darkroom.cli:app",
    "torchrun": "torch.distributed.run:main",
}
# What `python -m` is asked for, where that is a command.
MODULES = {"snakemake": "snakemake", "dvc": "dvc", "torch.distributed.run": "torchrun"}
# What is imported by whom, less what has threads of its own after it was imported (polars), and less
# `snakemake.cli`: that imports the project's plugins, which import its library.
PLANS = (
    *("snakemake.persistence", "snakemake_executor_plugin_slurm", "smart_open", "nbformat", "jinja2"),
    "requests",
)
JOBS = (
    *("torch", "torchvision", "diffusers.models.modeling_utils", "diffusers.pipelines.pipeline_utils"),
    *("diffusers.models.autoencoders.autoencoder_kl", "transformers.modeling_utils", "scipy.special"),
    *(
        "transformers.models.auto",
        "transformers.models.t5.modeling_t5",
        "transformers.models.clip.modeling_clip",
    ),
    *("transformers.models.llava.modeling_llava", "transformers.models.llava.processing_llava"),
    *("dvc.repo", "dvc.commands.commit", "safetensors.torch", "PIL.Image", "pydantic", "snakemake.script"),
    *("torch.distributed.run", "typer"),
)
# A variable that the linker reads when it starts, which a fork has done; or one that leads to a cluster, which
# starts processes of its own.
NOT_OF_FORKS = {"LD_PRELOAD", "SLURM_CONF"}
# Those that a library reads when it starts: their commands are forks of a process that began with them.
READ_ONCE = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")

# Started by each command in place of Python, with nothing imported that it does not need.
_SHIM = f"""#!{sys.executable} -IS
import os, sys
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
if name == "python" and arguments[:1] == ["-u"]:
    os.environ["PYTHONUNBUFFERED"], arguments = "1", arguments[1:]
first = arguments[0] if arguments else ""
if name == "python" and first == "-m" and arguments[1] in {MODULES!r}:
    name, arguments = {MODULES!r}[arguments[1]], arguments[2:]
# What the libraries' own scripts are handed is more than three streams.
elif name == "python" and first != "-c" and (not first.endswith(".py") or first.startswith({sys.prefix!r})):
    os.execv({sys.executable!r}, [{sys.executable!r}, *arguments])
import json, signal, socket
asked = dict(name=name, arguments=arguments, folder=os.getcwd())
asked |= dict(environment=dict(os.environ), umask=os.umask(0))
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.environ[{SOCKET!r}])
socket.send_fds(connection, [b"x"], [0, 1, 2])
body = json.dumps(asked).encode()
connection.sendall(len(body).to_bytes(8, "big") + body)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
answer = connection.recv(2)
code = int.from_bytes(answer, "big", signed=True) if answer else 70
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class Warm:
    """The process, started by the first command; it ends with the one that started it."""

    def __init__(self, *modules: str, variables: Mapping[str, str] | None = None) -> None:
        """`variables`: what the process begins with, besides this one's."""
        self._modules, self._server, self._folder = modules, None, Path()
        self._variables = dict(variables or {})

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """That of a command, for which the shims stand first in its PATH."""
        if self._server is None:
            self._start()
        path = f"{self._folder}{os.pathsep}{environment['PATH']}"
        return {**environment, "PATH": path, SOCKET: str(self._folder / "socket")}

    def _start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="warm-"))
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        for name in ("python", *COMMANDS):
            (self._folder / name).write_text(_SHIM)
            (self._folder / name).chmod(0o755)
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        # No threads of the maths libraries' to fork beside; a job sets its own number.
        own |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        # As jobs have it before they import.
        own |= {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}
        own |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
        own |= self._variables
        self._server: Any = subprocess.Popen(
            [sys.executable, __file__, str(self._folder / "socket"), *self._modules],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=own,
        )  # fmt: skip
        assert self._server.stdout.readline() == b"ready\n", "the process that has imported everything ended"


def serve(path: str, modules: Sequence[str]) -> None:
    """Fork for each connection, until the process that started this one ends."""
    # The first takes for Python what `sys.executable` is now, and not a shim.
    for name in ("multiprocessing.spawn", *modules):
        importlib.import_module(name)
    mine = [name for name in sys.modules if name.startswith(("darkroom", "snakemake_logger_plugin_darkroom"))]
    assert not mine, f"imported of a project before the fork: {mine}"
    threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    # A fork has one thread. pyarrow's allocator knows that.
    assert threads <= {"python", "jemalloc_bg_thd"}, threads
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who watch over commands are nobody's to wait for
    os.write(1, b"ready\n")
    while listener in select.select([listener, 0], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            watch(connection)
        connection.close()


def watch(connection: socket.socket) -> None:
    """Fork the command, hand signals on to it, and answer with its exit code; it dies with who asked."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    size = int.from_bytes(_receive(connection, 8), "big")
    asked = json.loads(_receive(connection, size))
    child = os.fork()
    if child == 0:
        connection.close()
        become(asked, streams)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(child)
    while True:
        ready, _, _ = select.select([connection, ended], [], [])
        if ended in ready:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            with contextlib.suppress(OSError):
                connection.sendall(code.to_bytes(2, "big", signed=True))
            os._exit(0)
        numbers = connection.recv(16)
        for number in numbers or [signal.SIGKILL]:
            os.kill(child, number)
        if not numbers:
            os._exit(0)


def _receive(connection: socket.socket, size: int) -> bytes:
    body = b""
    while len(body) < size and (more := connection.recv(size - len(body))):
        body += more
    return body


def become(asked: dict[str, Any], streams: Sequence[int]) -> None:
    """In the fork: be the command, and end with it."""
    code = 1
    # What the process registered is its own; what the command does, is done as at its end.
    atexit._clear()
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(asked["folder"])
        os.umask(asked["umask"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        if os.environ.get("PYTHONUNBUFFERED"):
            for stream in (sys.stdout, sys.stderr):
                stream.reconfigure(write_through=True)
        code = _run(asked["name"], asked["arguments"])
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            file.flush()
    os._exit(code & 0xFF)


def _run(name: str, arguments: list[str]) -> int:
    searched = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    programs = Path(sys.executable).parent
    # What commands start others with.
    sys.executable = str(Path(os.environ[SOCKET]).parent / "python")
    try:
        for path in (Path(folder, "sitecustomize.py") for folder in searched):
            if path.exists():
                runpy.run_path(str(path))
        if name in COMMANDS:
            sys.path[:1], sys.argv = searched, [str(programs / name), *arguments]
            module, _, function = COMMANDS[name].partition(":")
            end = getattr(importlib.import_module(module), function)()
        else:
            _run_code(arguments, searched)
            end = 0
    except SystemExit as exit_:
        end = exit_.code
        if isinstance(end, str):
            print(end, file=sys.stderr)
    return end if isinstance(end, int) else int(end is not None)


def _run_code(arguments: list[str], searched: list[str]) -> None:
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    if arguments[0] == "-c":
        sys.path[:1], sys.argv = ["", *searched], ["-c", *arguments[2:]]
        code, where = arguments[1].encode(), "<string>"
    else:
        script = Path(arguments[0])
        sys.path[:1], sys.argv = [str(script.resolve().parent), *searched], list(arguments)
        code, where = script.read_bytes(), str(script)
        main.__file__ = where
    exec(compile(code, where, "exec"), main.__dict__)


# Of this process of tests; each starts when it is first used.
plans, jobs = Warm(*PLANS), Warm(*PLANS, *JOBS)
_begun_with: dict[tuple[tuple[str, str], ...], Warm] = {}


def jobs_of(environment: Mapping[str, str]) -> Warm:
    """`jobs`, or where libraries are to read something else when they start, those of a process that did."""
    read = tuple((name, environment[name]) for name in READ_ONCE if name in environment)
    if read == tuple((name, os.environ[name]) for name in READ_ONCE if name in os.environ):
        return jobs
    return _begun_with.setdefault(read, Warm(*PLANS, *JOBS, variables=dict(read)))


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
