"""The side of a rank that only encodes: it answers requests until no rank that trains has more."""

import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from darkroom.config.run import Tags
from darkroom.train.data import SampleSource
from darkroom.train.determinism import deterministic
from darkroom.train.distributed import Ranks, find_device
from darkroom.train.encoder_link import INDEX_IS_MADE, EncoderLink, ready
from darkroom.train.encoders import samples_message
from darkroom.train.index import INDEX_FILE
from darkroom.train.inputs import TrainInputs
from darkroom.train.messages import Message
from darkroom.train.record import Log
from darkroom.train.rendezvous import COLLECTIVE_TIMEOUT_S, process_group, timeout_seconds
from darkroom.train.signals import Stopped, StopSignal, stop_signals
from darkroom.train.tags import ShownTags


def encode_for_others(
    inputs: TrainInputs, run_dir: str | Path, everyone: Ranks, device: str | None, log: Log
) -> None:
    """Encode for the ranks of a training, until it ends; called as `stage.train` is by those.

    Raises:
        ValueError: a picture or caption cannot be encoded; names the uid.
        RuntimeError: another rank is missing or failed.
        Stopped: as the ranks that train.
    """
    settings, on = inputs.settings, find_device(everyone, device)
    num = settings.encoder_ranks
    with (
        deterministic(on, settings.num_threads),
        process_group(everyone, on, inputs.key, log, num) as store,
        stop_signals() as stop,
    ):
        assert store is not None, "with encoders there are several ranks"
        link = EncoderLink(store, everyone, num, on, timeout_seconds(COLLECTIVE_TIMEOUT_S))
        link.wait(INDEX_IS_MADE)
        samples = inputs.files.encoder(inputs.components, on, Path(run_dir) / INDEX_FILE)
        serve(link, samples, settings.tags, stop)


def serve(link: EncoderLink, samples: SampleSource, tags: Tags | None, stop: StopSignal) -> None:
    """Answer requests until every rank that trains has said that it has no more.

    Raises:
        Stopped: a signal has stopped the training.
    """
    ended: Future[int | None] = Future()
    server = _Server(link, samples, tags, stop)
    # On a thread, so that a signal is seen while this rank waits for a request.
    threading.Thread(target=server.run, args=(ended,), name="darkroom-encode", daemon=True).start()
    link.tell(ready(link.rank - link.num_training))
    step = ended.result()
    if step is not None:
        raise Stopped(step)


class _Server:
    """Answers one request after another, in the order in which they come."""

    def __init__(self, link: EncoderLink, samples: SampleSource, tags: Tags | None, stop: StopSignal) -> None:
        self._link, self._samples, self._tags, self._stop = link, samples, tags, stop
        self._idle = self._busy = 0.0

    def run(self, ended: "Future[int | None]") -> None:
        try:
            ended.set_result(self._answer_all())
        except BaseException as error:
            ended.set_exception(error)

    def _answer_all(self) -> int | None:
        """Returns the step after which the training was stopped by a signal; None where it was not."""
        ends: list[Any] = []
        at = None
        while len(ends) < self._link.num_training:
            rank, request = self._link.next_request()
            began = time.perf_counter()
            if "end" in request.words:
                ends.append(request.words["end"])
                continue
            if at is not None:
                self._idle += began - at
            self._link.answer(rank, self._encoded(request))
            at = time.perf_counter()
            self._busy += at - began
        waited = [end["waited"] for end in ends if end["waited"] is not None]
        self._link.answer(0, Message(self._words(max(waited, default=None))))
        return next((end["stopped"] for end in ends if end["stopped"] is not None), None)

    def _encoded(self, request: Message) -> Message:
        places, captions, *keys = (tensor.numpy() for tensor in request.tensors)
        shown = None
        if keys:
            assert self._tags is not None, "all ranks have the same settings"
            shown = ShownTags(self._tags, keys[0].view(np.uint64))
        width, height = request.words["bucket"]
        samples = self._samples.gather((width, height), places, captions, shown)
        return samples_message(samples, self._words())

    def _words(self, waited: float | None = None) -> dict[str, Any]:
        """What every answer tells besides: seconds of this rank, and whether it was told to stop."""
        balance = {"idle": self._idle, "busy": self._busy, "waited": waited}
        return {"balance": balance, "is_stopping": self._stop.received}
