"""Messages between the ranks that train and the last ones, which may only encode.

The ranks that train are a process group of their own, as if there were no others. Beside it all ranks are one
group for messages between two: over gloo, and the numbers of samples over NCCL where ranks have GPUs.
"""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from darkroom.train.distributed import Ranks
from darkroom.train.memory import BatchMemory
from darkroom.train.messages import Message, packed, unpacked

# An encoder may wait for its next request as long as rank 0 draws, and for its first one as long as it takes.
_WAIT = timedelta(days=20)
# What ranks tell each other through the store.
INDEX_IS_MADE = "the index is made"
# Of messages to an encoder, and from one; each has a second one for what follows the sizes.
_REQUEST, _ANSWER = 0, 2


def ready(encoder: int) -> str:
    """What encoder 0, 1, ... tells when it has loaded all."""
    return f"encoder {encoder} is ready"


class EncoderLink:
    """Messages between ranks that train and ranks that encode. Every rank makes one at the same time.

    Args:
        store: where the ranks met. everyone: this rank among all. num_encoders: how many of the last ones encode.
        device: numbers of samples go over NCCL where it is a GPU; they come to the CPU in any case.
        timeout_s: how long a message that is on its way may take.
    """

    def __init__(
        self,
        store: dist.Store,
        everyone: Ranks,
        num_encoders: int,
        device: torch.device,
        timeout_s: float,
    ) -> None:
        self.rank, self.num_encoders = everyone.rank, num_encoders
        self.num_training = everyone.world_size - num_encoders
        self._device, self._memory = device, BatchMemory()
        # A connection of its own: a wait holds it.
        self._store = dist.PrefixStore("encoders", store.clone())  # type: ignore[attr-defined]
        place, timeout = (everyone.rank, everyone.world_size), timedelta(seconds=timeout_s)
        self._words: Any = dist.ProcessGroupGloo(dist.PrefixStore("words", self._store), *place, timeout)
        self._numbers: Any = self._words
        if device.type == "cuda":
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = timeout
            options.global_ranks_in_group = list(range(everyone.world_size))
            self._numbers = dist.ProcessGroupNCCL(dist.PrefixStore("numbers", self._store), *place, options)

    def tell(self, what: str) -> None:
        """Say to all that something is done."""
        self._store.set(what, "")

    def wait(self, what: str) -> None:
        """Return when somebody has told it; who fails meanwhile ends the others (`rendezvous`)."""
        self._store.wait([what], _WAIT)

    def ask(self, encoder: int, request: Message) -> None:
        """Send a request to encoder 0, 1, ...; one thread at a time does."""
        self._send(request, self.num_training + encoder, _REQUEST, self._words)

    def next_request(self) -> tuple[int, Message]:
        """The next one of any rank that trains, and of which."""
        sizes = torch.zeros(2, dtype=torch.int64)
        work = self._words.recv_anysource([sizes], _REQUEST)
        work.wait(_WAIT)
        rank: int = work._source_rank()
        return rank, self._receive(sizes, rank, _REQUEST, self._words)

    def answer(self, rank: int, answer: Message) -> None:
        """Send an answer to a rank that trains. Answers go to it in the order of its requests."""
        self._send(answer, rank, _ANSWER, self._numbers)

    def next_answer(self, encoder: int) -> Message:
        """The next one of an encoder; one thread at a time waits for it."""
        sizes, rank = torch.zeros(2, dtype=torch.int64), self.num_training + encoder
        self._words.recv([sizes], rank, _ANSWER).wait()
        return self._receive(sizes, rank, _ANSWER, self._numbers)

    def _send(self, message: Message, rank: int, tag: int, group: Any) -> None:
        memory, num_head = packed(message)
        self._words.send([torch.tensor([len(memory), num_head])], rank, tag).wait()
        group.send([memory.to(self._device_of(group))], rank, tag + 1).wait()
        self._finish(group)

    def _receive(self, sizes: torch.Tensor, rank: int, tag: int, group: Any) -> Message:
        size, num_head = sizes.tolist()
        memory = torch.from_numpy(self._memory.take(size))
        device = self._device_of(group)
        there = memory if device.type == "cpu" else torch.empty(size, dtype=torch.uint8, device=device)
        group.recv([there], rank, tag + 1).wait()
        if there is not memory:
            memory.copy_(there)
        return unpacked(memory, num_head)

    def _device_of(self, group: Any) -> torch.device:
        return torch.device("cpu") if group is self._words else self._device

    def _finish(self, group: Any) -> None:
        """NCCL's waits are those of a stream: what was sent must stay until it is gone."""
        if group is not self._words:
            torch.cuda.current_stream(self._device).synchronize()
