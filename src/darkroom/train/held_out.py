"""The pictures that a training holds out: a function of their identities, copies together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from darkroom.train import random
from darkroom.train.data import Ints, Samples, ShardedSource
from darkroom.train.index import Array
from darkroom.train.plan import Shape, UInts, parse_uids
from darkroom.train.tags import ShownTags

# Runs that differ in their seed hold out the same pictures, so that their losses compare.
SEED = 0
# A uid, and the uid of the picture that it is a copy of.
Copies = Sequence[tuple[str, str]]


class Subset:
    """Some pictures of a source, as a source; see `train.data.SampleSource`.

    chosen: by bucket, the places of the pictures among the source's, ascending. Buckets without any are none here.
    """

    def __init__(self, source: ShardedSource, chosen: Mapping[Shape, Ints]) -> None:
        self._source = source
        self._chosen = {shape: places for shape, places in chosen.items() if len(places)}

    @property
    def captions(self) -> tuple[str, ...]:
        return self._source.captions

    @property
    def uids(self) -> dict[Shape, UInts]:
        found = self._source.uids
        return {shape: found[shape][places] for shape, places in self._chosen.items()}

    @property
    def shards(self) -> dict[Shape, Array]:
        found = self._source.shards
        return {shape: found[shape][places] for shape, places in self._chosen.items()}

    @property
    def sizes(self) -> dict[str, Any]:
        return self._source.sizes

    def latent_shape(self, bucket: Shape) -> tuple[int, ...]:
        return self._source.latent_shape(bucket)

    def gather(self, bucket: Shape, places: Ints, captions: Ints, tags: ShownTags | None = None) -> Samples:
        return self._source.gather(bucket, self._chosen[bucket][places], captions, tags)


def hold_out(source: ShardedSource, share: float, copies: Copies = ()) -> tuple[Subset, Subset]:
    """Two sources: of the pictures to train on, and of those that are held out.

    A picture's uid decides, and for one of several copies that of the first, so that all are on one side. What a
    dataset gains later changes no picture's side, unless it is a copy of two that were none of each other.

    Args:
        share: about how many of the pictures are held out, from 0 to 1.
        copies: the first of each pair is a copy of the second.

    Raises:
        ValueError: no picture is held out, or none is left.
    """
    first_of = first_of_copies(copies)
    held = {shape: is_held_out(uids, share, first_of) for shape, uids in source.uids.items()}
    num_all, num_held = sum(map(len, held.values())), sum(int(mask.sum()) for mask in held.values())
    if not 0 < num_held < num_all:
        what = "all" if num_held else "none"
        raise ValueError(
            f"train.validation.share {share:g} holds out {what} of the {num_all} pictures; write"
            f" {'a smaller' if num_held else 'a larger'} share, or leave train.validation out"
        )
    shown, out = (
        Subset(source, {shape: np.flatnonzero(mask == is_held) for shape, mask in held.items()})
        for is_held in (False, True)
    )
    return shown, out


def is_held_out(uids: UInts, share: float, first_of: pl.DataFrame) -> npt.NDArray[np.bool_]:
    """(n,) whether each of the pictures (n, 2) is held out; `first_of` is that of `first_of_copies`."""
    table = pl.DataFrame({"a": uids[:, 0], "b": uids[:, 1]})
    found = table.join(first_of, on=["a", "b"], how="left", maintain_order="left")
    decides = found.select(pl.coalesce("first_a", "a"), b=pl.coalesce("first_b", "b")).to_numpy()
    keys = random.sample_keys(SEED, random.HELD_OUT, decides, np.zeros(len(decides), np.int64))
    return random.uniform(keys) < share


def first_of_copies(copies: Copies) -> pl.DataFrame:
    """Of each picture that is a copy or has one: its uid (a, b), and that of the first of its cluster."""
    names = list(dict.fromkeys(uid for pair in copies for uid in reversed(pair)))
    place = {uid: number for number, uid in enumerate(names)}
    ends = np.array([[place[uid] for uid in pair] for pair in copies], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(names), len(names)))
    cluster = connected_components(graph, directed=False)[1] if names else np.zeros(0, np.int64)
    # Clusters are numbered as their first members come.
    first = np.unique(cluster, return_index=True)[1][cluster] if names else cluster
    uids = parse_uids(names)
    of = uids[first]
    columns = {"a": uids[:, 0], "b": uids[:, 1], "first_a": of[:, 0], "first_b": of[:, 1]}
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.UInt64))
