"""What every job does first: a log that the terminal sees too, and a fixed number of threads."""

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from darkroom.machine import LINE, machine_kind, used_line
from darkroom.pinned import check_code

# Where the driver's lines go, as `device:inode` (what systemd's JOURNAL_STREAM is for the journal): a job whose
# stderr is the same need not say what the driver says of it.
STREAM_VARIABLE = "DARKROOM_DRIVER_STREAM"


def stream_id(stream: TextIO) -> str:
    """`device:inode` of what a stream writes to; empty, if that is no file, pipe or terminal."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return ""
    return f"{status.st_dev}:{status.st_ino}"


def _driver_speaks() -> bool:
    return os.environ.get(STREAM_VARIABLE, "") == stream_id(sys.__stderr__ or sys.stderr) != ""


class _Tee:
    """A text stream that writes to the terminal and to the job's log."""

    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self._terminal, self._log = terminal, log

    def write(self, text: str) -> int:
        # On a full disk the terminal still hears it; no job ends for its log alone.
        with contextlib.suppress(OSError):
            self._log.write(text)
            self._log.flush()
        # Nor for a terminal that was closed: a training still saves.
        with contextlib.suppress(OSError):
            self._terminal.write(text)
        return len(text)

    def write_to_log(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._log.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._terminal.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._terminal, name)


@contextlib.contextmanager
def job(log_path: str | Path, num_threads: int = 1) -> Iterator[None]:
    """Run a job's body with its output in `log_path` and on the terminal.

    The traceback of an error goes to the log; torch and the maths libraries use `num_threads`,
    whatever the machine has, so that sums are taken in the same order everywhere.

    Raises:
        PinError: the code is no longer that of the snakemake that sent this job.
    """
    Path(log_path).parent.mkdir(parents=True, exist_ok=True)
    limit_threads(num_threads)
    out, err = sys.stdout, sys.stderr
    # Appended to: the ranks of one training share a log, and none may truncate what another wrote.
    with open(log_path, "a", encoding="utf-8") as log:
        sys.stdout, sys.stderr = _Tee(out, log), _Tee(err, log)  # type: ignore[assignment]
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
        _quieten()
        try:
            # To the log alone: what the job takes is a rate of this kind of machine.
            _note(log, f"{LINE}{machine_kind()}")
            check_code()
            yield
            _note(log, used_line())
        except BaseException as error:
            is_logged = _log_traceback(log)
            # The driver shows the end of the log; the traceback on the terminal would be its second.
            if is_logged and isinstance(error, Exception | KeyboardInterrupt) and _driver_speaks():
                raise SystemExit(1) from None
            raise
        finally:
            sys.stdout, sys.stderr = out, err
            logging.basicConfig(level=logging.INFO, stream=err, force=True)


def _note(log: TextIO, line: str) -> None:
    """Write a line to the log; no job ends for its log alone."""
    with contextlib.suppress(OSError):
        log.write(f"{line}\n")
        log.flush()


def _log_traceback(log: TextIO) -> bool:
    """Write the current exception to the log; False where that failed, as on a full disk."""
    try:
        traceback.print_exc(file=log)
        log.flush()
    except OSError:
        return False
    return True


def limit_threads(num_threads: int) -> None:
    """Fix the number of CPU threads of the maths libraries; 0 leaves it to them."""
    if num_threads < 1:
        return
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ[name] = str(num_threads)
    # Threads that spin while they wait starve the other jobs of a machine with few cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(num_threads)


def _quieten() -> None:
    """Libraries report what matters through us; their own chatter would bury it."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("httpx", "PIL", "matplotlib", "fsspec"):
        logging.getLogger(name).setLevel(logging.WARNING)


def tell(line: str) -> None:
    """Print the line that ends a stage; to the log alone, where the driver says it."""
    if isinstance(sys.stdout, _Tee) and _driver_speaks():
        sys.stdout.write_to_log(f"{line}\n")
    else:
        print(line)


def summary_line(stage: str, counts: Mapping[str, Any]) -> str:
    """One line of what went in and came out of a stage, e.g. `filter      5,400 in, 5,012 kept`."""
    return f"{stage:<10} {', '.join(_phrases(counts))}"


def _phrases(counts: Mapping[str, Any]) -> list[str]:
    phrases = []
    # Plain numbers first, then what they are made of.
    for name, value in sorted(counts.items(), key=lambda item: isinstance(item[1], Mapping)):
        words = name.replace("_", " ")
        if isinstance(value, Mapping):
            inner = ", ".join(f"{n:,} {k}" for k, n in value.items() if isinstance(n, int) and n)
            if inner:
                phrases.append(f"{words}: {inner}")
        elif isinstance(value, int):
            phrases.append(f"{value:,} {words}")
        else:
            phrases.append(f"{value:.4g} {words}")
    return phrases
