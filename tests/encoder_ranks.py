"""One rank of a training with encoders, as `test_train_encoders.py` starts it."""

import itertools
import json
import os
import pickle
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from bounds import assert_same_sums

from darkroom.train.data import LatentCache
from darkroom.train.distributed import find_ranks, training_ranks
from darkroom.train.encoders import EncodedElsewhere
from darkroom.train.online import OnlineEncoder
from darkroom.train.signals import ends_when_stopped
from darkroom.train.stage import TrainOutputs, train

# Of the longest sum in these encoders; see `test_train_online.py`.
NUM_SUMMANDS = 3 * 3 * 16


def tensors(samples):
    given = samples.conditioning
    return [samples.latents, given.pooled, *given.text, *given.text_mask, given.time_ids]


def assert_equal(found, expected):
    for one, other in zip(tensors(found), tensors(expected), strict=True):
        assert (one is None and other is None) or (one.dtype == other.dtype and torch.equal(one, other))


def comparing(inputs, stored):
    """What a rank that trains asks for must be what it would encode itself, and what a cache has."""
    files, cache = inputs.files, LatentCache(*stored)
    device, places = torch.device("cpu"), (files.tars, files.null, files.expected)
    own, ask = OnlineEncoder(files.shards, *places, inputs.components, device), EncodedElsewhere.gather

    def gather(self, *asked):
        found, plain = ask(self, *asked), ask(self, *asked[:3])
        assert_equal(found, own.gather(*asked))
        assert_equal(plain, own.gather(*asked[:3]))
        for one, other in zip(tensors(plain), tensors(cache.gather(*asked[:3])), strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                # The cache encoded other pictures and captions beside these.
                assert_same_sums(one.float(), other.float(), NUM_SUMMANDS)
        return found

    return mock.patch.object(EncodedElsewhere, "gather", gather)


def ending(how, after):
    """What an encoder does with its request `after`: it gets a signal."""
    encode, served = OnlineEncoder.gather, itertools.count(1)

    def gather(self, *asked):
        if next(served) == after:
            number = getattr(signal, how)
            os.kill(os.getpid(), number)
            while not signal.getsignal(number).received:  # on the main thread
                time.sleep(0.001)
        return encode(self, *asked)

    return mock.patch.object(OnlineEncoder, "gather", gather)


def main(path, out, encoder_ranks, options):
    """One rank of a training."""
    inputs, stored = pickle.loads(Path(path).read_bytes())
    options, rank = json.loads(options), find_ranks()
    settings = inputs.settings.model_copy(update={"encoder_ranks": int(encoder_ranks)})
    change = nullcontext()
    if "compare" in options and training_ranks(rank, settings.encoder_ranks):
        change = comparing(inputs, stored)
    if "signal" in options and rank.rank == rank.world_size - 1:
        change = ending(options["signal"], options["after"])
    outputs = TrainOutputs(*(Path(out) / name for name in ("run", "model", "untrained", "history.parquet")))
    with ends_when_stopped(), change:
        counts = train(replace(inputs, settings=settings), outputs, device="cpu")
    print("nothing is counted" if counts == {} else f"{counts['steps']} steps", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
