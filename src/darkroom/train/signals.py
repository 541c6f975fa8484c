"""How a training is asked to stop: by a signal, and it saves before it ends."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# EX_TEMPFAIL of sysexits.h: stopped by a signal, saved; the same command goes on from there.
STOPPED_EXIT_CODE = 75


class Stopped(SystemExit):
    """A signal asked the training to stop; a checkpoint is written. Ends the process with code 75."""

    def __init__(self, step: int) -> None:
        super().__init__(STOPPED_EXIT_CODE)
        self.step = step


STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
# A launcher may hand a Ctrl-C on to a rank that the terminal has told already, and an impatient person presses
# twice, which is seen when the step lets it be: no second one yet.
_SAME_CTRL_C_S = 5.0


class StopSignal:
    """Whether one of STOP_SIGNALS has come. A second Ctrl-C kills the process, which saves nothing more."""

    def __init__(self) -> None:
        self.received = False
        self._interrupted: float | None = None

    def __call__(self, number: int, _: object) -> None:
        self.received = True
        if number == signal.SIGINT:
            now = time.monotonic()
            if self._interrupted is not None and now - self._interrupted > _SAME_CTRL_C_S:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                signal.raise_signal(signal.SIGINT)
            self._interrupted = self._interrupted or now


@contextmanager
def ends_when_stopped() -> Iterator[None]:
    """Lets a process whose training has stopped end: all is saved, and a Ctrl-C would meet torch tidying up.

    A launcher sends SIGTERM to the others as soon as one has ended; they keep their own exit code.
    """
    try:
        yield
    except Stopped:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise


@contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Catch STOP_SIGNALS inside the block (only the main thread can); `nohup` keeps its meaning."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    is_detached = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    caught = [number for number in STOP_SIGNALS if not (is_detached and number == signal.SIGHUP)]
    old = {number: signal.signal(number, stop) for number in caught}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
