"""The side of a rank that trains: samples that other ranks encode, and who of both waits for the other."""

import itertools
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from darkroom.components.base import Component
from darkroom.components.vae import load_vae_layout
from darkroom.families.conditioning import Conditioning
from darkroom.train.data import Ints, Samples
from darkroom.train.distributed import Ranks
from darkroom.train.encoder_link import INDEX_IS_MADE, EncoderLink, ready
from darkroom.train.messages import Message
from darkroom.train.online import OnlinePictures
from darkroom.train.plan import Shape
from darkroom.train.rendezvous import COLLECTIVE_TIMEOUT_S, timeout_seconds
from darkroom.train.signals import Stopped
from darkroom.train.tags import ShownTags


@dataclass(frozen=True)
class Balance:
    """Who waited: shares of the time.

    waited: of the rank that trains and waited longest for samples. idle: of the encoders, without a request.
    """

    waited: float
    idle: float
    num_training: int
    num_encoders: int

    @property
    def fed(self) -> float:
        """How many ranks that train an encoder keeps up with: the work of both sides, by rank and time."""
        encoding = self.num_encoders * (1 - self.idle)
        return self.num_training * (1 - self.waited) / max(encoding, 1e-9)

    @property
    def best(self) -> int:
        """How many of as many ranks would encode, so that neither side waits."""
        everyone = self.num_training + self.num_encoders
        return min(max(1, round(everyone / (1 + self.fed))), everyone - 1)

    @property
    def told(self) -> str:
        """It in words, for a log."""
        everyone = self.num_training + self.num_encoders
        is_kept = "which is what it is" if self.best == self.num_encoders else f"not {self.num_encoders}"
        return (
            f"training waited {self.waited:.1%} of the time for samples, encoders {self.idle:.1%} for requests:"
            f" one encodes as much as about {self.fed:.1f} ranks train on; of {everyone} ranks"
            f" train.encoder_ranks: {self.best} fits, {is_kept}"
        )


class Encoders:
    """The ranks that encode, as a rank that trains sees them. Threads may share it.

    A request goes to the next encoder in turn, from this rank's number on, so that each serves all alike.
    """

    def __init__(self, link: EncoderLink, log: Callable[[str], None]) -> None:
        self._link, self._log = link, log
        self._lines = [_Line(link, number) for number in range(link.num_encoders)]
        self._turns = itertools.count(link.rank)
        self._first: tuple[float, float] | None = None
        self._last = (0.0, 0.0)
        self._reported = [0.0, 0.0]

    @property
    def num_at_once(self) -> int:
        """How many requests of this rank are on their way at once: of all ranks two for each encoder, or more."""
        return -(-2 * self._link.num_encoders // self._link.num_training)

    def index_is_made(self) -> None:
        """Rank 0 tells encoders that they can open the index of pictures."""
        if self._link.rank == 0:
            self._link.tell(INDEX_IS_MADE)

    def ask(self, request: Message) -> Message:
        """The answer of an encoder, as soon as it is there.

        Raises:
            RuntimeError: the encoder is gone.
        """
        return self._lines[next(self._turns) % len(self._lines)].ask(request)

    def note(self, seconds_waited: float) -> None:
        """Note that a step is done, and how long this rank has waited for samples since its start."""
        self._last = (time.perf_counter(), seconds_waited)
        self._first = self._first or self._last

    def idle_share(self) -> float | None:
        """The share of time for which encoders had no request since this was last asked; None: not known."""
        told = [sum(numbers) for numbers in zip(*(line.seconds for line in self._lines), strict=True)]
        idle, busy = (now - before for now, before in zip(told, self._reported, strict=True))
        self._reported = told
        return idle / (idle + busy) if idle + busy > 0 else None

    def close(self, stopped: int | None = None) -> None:
        """Let the encoders end; rank 0 tells who has waited. `stopped`: the step after which a signal did it."""
        start = self._first or self._last
        seconds, waited = (end - begin for end, begin in zip(self._last, start, strict=True))
        end = Message({"end": {"stopped": stopped, "waited": waited / seconds if seconds > 0 else None}})
        answers = [line.close(end, self._link.rank == 0) for line in self._lines]
        told = [answer.words["balance"] for answer in answers if answer is not None]
        idle, busy = (sum(one[name] for one in told) for name in ("idle", "busy"))
        if told and told[0]["waited"] is not None and idle + busy > 0:
            ranks = (self._link.num_training, self._link.num_encoders)
            self._log(f"train: {Balance(told[0]['waited'], idle / (idle + busy), *ranks).told}")


@contextmanager
def meeting_encoders(
    store: dist.Store | None,
    everyone: Ranks,
    num_encoders: int,
    device: torch.device,
    log: Callable[[str], None],
) -> Iterator[Encoders | None]:
    """The encoders of a training, None where it has none; see `EncoderLink`.

    They end with the block, also where a signal ends it; of an error they hear by `rendezvous`.
    """
    if store is None or not num_encoders:
        yield None
        return
    seconds = timeout_seconds(COLLECTIVE_TIMEOUT_S)
    encoders = Encoders(EncoderLink(store, everyone, num_encoders, device, seconds), log)
    try:
        yield encoders
    except Stopped as stopped:
        encoders.close(stopped.step)
        raise
    encoders.close()


class _Line:
    """This rank's requests to one encoder. A thread takes answers as they come, so that it never waits for us."""

    def __init__(self, link: EncoderLink, encoder: int) -> None:
        self._link, self._encoder = link, encoder
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[Future[Message] | None] = queue.SimpleQueue()
        # Idle and busy, as the encoder last told.
        self.seconds = (0.0, 0.0)
        self._is_ready = self._has_handed_on = False
        self._thread = threading.Thread(target=self._work, name=f"darkroom-encoder-{encoder}", daemon=True)
        self._thread.start()

    def ask(self, request: Message) -> Message:
        answer: Future[Message] = Future()
        self._send(request, answer)
        return answer.result()

    def close(self, end: Message, is_answered: bool) -> Message | None:
        """Say that nothing follows; whoever is answered waits until all have said so."""
        answer = self.ask(end) if is_answered else None
        if not is_answered:
            self._send(end, None)
        self._waiting.put(None)
        self._thread.join()
        return answer

    def _send(self, request: Message, waiting: Future[Message] | None) -> None:
        with self._lock:  # answers come in the order of requests
            if not self._is_ready:
                self._link.wait(ready(self._encoder))
                self._is_ready = True
            with self._naming_the_encoder():
                self._link.ask(self._encoder, request)
            if waiting is not None:
                self._waiting.put(waiting)

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            try:
                with self._naming_the_encoder():
                    answer = self._link.next_answer(self._encoder)
            except Exception as error:
                waiting.set_exception(error)
                continue
            self._hear(answer.words)
            waiting.set_result(answer)

    @contextmanager
    def _naming_the_encoder(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            rank = self._link.num_training + self._encoder
            raise RuntimeError(f"rank {rank}, which encodes: {error}") from error

    def _hear(self, words: Any) -> None:
        self.seconds = words["balance"]["idle"], words["balance"]["busy"]
        if words["is_stopping"] and not self._has_handed_on:
            # The encoder was told to stop, and hands it on as a launcher would.
            self._has_handed_on = True
            os.kill(os.getpid(), signal.SIGTERM)


class EncodedElsewhere(OnlinePictures):
    """The pictures and captions of a run, encoded as they are asked for by ranks that do nothing else.

    It loads no encoder. What it gives is what `OnlineEncoder` gives for the same places.

    Args:
        shards, null, expected, index: see `OnlinePictures`.
        vae: the one that the encoders have.
        encoders: who they are.
    """

    def __init__(
        self,
        shards: Sequence[tuple[str | Path, str | Path]],
        null: str | Path,
        expected: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        vae: Component,
        encoders: Encoders,
        index: str | Path | None = None,
    ) -> None:
        super().__init__(shards, null, expected, index)
        self._vae, self._elsewhere = load_vae_layout(vae), encoders

    def gather(self, bucket: Shape, places: Ints, captions: Ints, tags: ShownTags | None = None) -> Samples:
        """As of `OnlineEncoder`.

        Raises:
            RuntimeError: the encoder is gone; why, it tells itself.
        """
        numbers = [np.ascontiguousarray(array).astype(np.int64) for array in (places, captions)]
        keys = [] if tags is None else [tags.keys.view(np.int64)]
        tensors = [torch.from_numpy(array.copy()) for array in (*numbers, *keys)]
        answer = self._elsewhere.ask(Message({"bucket": list(bucket)}, tensors))
        return _samples(answer)


def samples_message(samples: Samples, words: Any) -> Message:
    """Samples on their way."""
    given = samples.conditioning
    optional = (*given.text_mask, given.time_ids)
    tensors = [samples.latents, given.pooled, *given.text, *(t for t in optional if t is not None)]
    return Message({**words, "has": [t is not None for t in optional]}, tensors)


def _samples(message: Message) -> Samples:
    """What `samples_message` was given."""
    found, has = iter(message.tensors), message.words["has"]
    latents, pooled = next(found), next(found)
    text = tuple(next(found) for _ in has[:-1])
    *masks, sizes = (next(found) if is_there else None for is_there in has)
    return Samples(latents, Conditioning(text, tuple(masks), pooled, sizes))
