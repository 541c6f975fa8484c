"""The cached samples of a run: which there are, and how a batch of them is read.

Everything here is numpy: batches are gathered on a background thread, where torch's operators would
start a second pool of threads that gets in the way of the training step's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from darkroom.families.conditioning import Conditioning
from darkroom.settings.captions import ORIGINAL
from darkroom.store.latents import LatentShard, ShardHeader, check_fingerprint
from darkroom.store.reads import RandomFiles, Reads
from darkroom.train.index import SHARD, Array, BucketPlaces, find_index
from darkroom.train.memory import BatchMemory
from darkroom.train.places import NULL_CAPTION, ShardPlaces, ShownText
from darkroom.train.plan import Ints, Shape, UInts
from darkroom.train.tags import ShownTags


@dataclass(frozen=True)
class Samples:
    """A batch as the cache stores it: latents (B, C, H, W), and text that is zero where it is padded."""

    latents: torch.Tensor
    conditioning: Conditioning


class SampleSource(Protocol):
    """Where the loader takes samples from: `LatentCache` reads them, `train.online.OnlineEncoder` makes them."""

    @property
    def captions(self) -> tuple[str, ...]: ...

    @property
    def uids(self) -> dict[Shape, UInts]: ...

    @property
    def sizes(self) -> dict[str, Any]: ...

    def latent_shape(self, bucket: Shape) -> tuple[int, ...]: ...

    def gather(
        self, bucket: Shape, places: Ints, captions: Ints, tags: ShownTags | None = None
    ) -> Samples: ...


class ShardedSource(SampleSource, Protocol):
    """One that tells of each picture which shard it lies in."""

    @property
    def shards(self) -> dict[Shape, Array]: ...


def num_pictures(source: SampleSource) -> int:
    """Of all buckets."""
    return sum(map(len, source.uids.values()))


class LatentCache:
    """All shards of a run, with the place of every picture; numbers are read as they are asked for.

    Args:
        shards: (safetensors file, table) of each part, in order.
        null: the shard of the empty caption.
        expected: fingerprint fields that every shard must have; or one mapping for each shard. The
            null shard is held to those fields of them that it has itself.
        index: the file that keeps where every picture is, see `train.index`; None keeps that in memory.

    `captions` are the names of the captions that every picture has, and `max_text_tokens` is how many tokens of a
    caption the cache keeps at most.

    Raises:
        ValueError: a shard is stale, or no picture is there.
    """

    def __init__(
        self,
        shards: Sequence[tuple[str | Path, str | Path]],
        null: str | Path,
        expected: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        index: str | Path | None = None,
    ) -> None:
        opened, empty, self._buckets = open_shards(shards, null, expected, index)
        self.captions = common_captions(opened)
        self.num_encoders = empty.num_encoders
        self.max_text_tokens = int(empty.fingerprint.get("max_text_tokens", 77))
        self._dtype, self._has_sizes = empty.text("null").dtype, opened[0].has_sizes
        encoders = range(self.num_encoders)
        # By encoder. Copies: they are shown often.
        self._null_text = [_bits(empty.text("null", e)).copy() for e in encoders]
        self._null_pooled = [_bits(empty.pooled("null", e)).reshape(-1).copy() for e in encoders]
        self._places = ShardPlaces(opened, empty, self.captions)
        self._files = RandomFiles([shard.state for shard in opened])
        self._memory = BatchMemory()

    @property
    def uids(self) -> dict[Shape, UInts]:
        """The sorted uids (n, 2) of every bucket, by (width, height)."""
        return {shape: bucket.uids for shape, bucket in self._buckets.items()}

    @property
    def shards(self) -> dict[Shape, Array]:
        """The place (n,) of each picture's shard among those given, in the order of `uids`."""
        return {shape: bucket.columns[SHARD] for shape, bucket in self._buckets.items()}

    @property
    def sizes(self) -> dict[str, Any]:
        """latent_channels, text_dim (of each encoder, where there are several) and pooled_dim (of all)."""
        dims = tuple(text.shape[1] for text in self._null_text)
        return {
            "latent_channels": next(iter(self._places.latent_shapes.values()))[0],
            "text_dim": dims[0] if len(dims) == 1 else dims,
            "pooled_dim": sum(len(pooled) for pooled in self._null_pooled),
        }

    def latent_shape(self, bucket: Shape) -> tuple[int, ...]:
        """(C, H, W) of a bucket's latents."""
        return self._places.latent_shapes[bucket]

    def gather(self, bucket: Shape, places: Ints, captions: Ints, tags: ShownTags | None = None) -> Samples:
        """Read pictures `places` (B,) of a bucket, each with caption `captions` (B,) or, by encoder, (B, E).

        A caption is a place in `captions`, or NULL_CAPTION for the empty one. The text is padded
        to the longest of the batch.

        Raises:
            ValueError: a shard was written again, or is cut short; names it.
        """
        assert tags is None, "the configuration asks for cache.online"
        found, num = self._buckets[bucket], len(places)
        grid = caption_grid(captions, num, self.num_encoders)
        shown = [
            ShownText(found, places, self.captions, grid[:, e], e, len(null))
            for e, null in enumerate(self._null_text)
        ]
        shapes = [
            (num, *self.latent_shape(bucket)),
            (num, sum(map(len, self._null_pooled))),
            *(
                (num, *of.mask.shape[1:], null.shape[1])
                for of, null in zip(shown, self._null_text, strict=True)
            ),
        ]
        # All that is read goes to its place in one piece of memory, without a copy between.
        laid = self._memory.lay_out(shapes, self._null_text[0].dtype)
        latents, pooled, *texts = laid.arrays
        reads, column = [self._places.latents(bucket, found, places, laid.starts[0])], 0
        for e, (of, text) in enumerate(zip(shown, texts, strict=True)):
            reads.append(self._places.text(of, e, laid.starts[2 + e]))
            reads.append(self._places.pooled(of, e, laid.starts[1] + column * pooled.itemsize))
            end = column + len(self._null_pooled[e])
            if of.is_null.any():
                text[of.is_null, : len(self._null_text[e])] = self._null_text[e]
                pooled[of.is_null, column:end] = self._null_pooled[e]
            if not of.mask.all():
                text[~of.mask] = 0
            column = end
        self._files.read(Reads.joined(reads), laid.memory)
        masks = tuple(None if bool(of.mask.all()) else torch.from_numpy(of.mask) for of in shown)
        sizes = torch.from_numpy(time_ids_of(bucket, found, places, "original_")) if self._has_sizes else None
        conditioning = Conditioning(tuple(map(self._tensor, texts)), masks, self._tensor(pooled), sizes)
        return Samples(self._tensor(latents), conditioning)

    def _tensor(self, array: Array) -> torch.Tensor:
        return torch.from_numpy(array).view(self._dtype)


def open_shards(
    shards: Sequence[tuple[str | Path, str | Path]],
    null: str | Path,
    expected: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    index: str | Path | None = None,
) -> tuple[list[ShardHeader], LatentShard, dict[Shape, BucketPlaces]]:
    """The shards of a run, that of the empty caption, and where every picture is; see `LatentCache`."""
    wanted = [expected] * len(shards) if isinstance(expected, Mapping) else list(expected)
    if not shards or len(wanted) != len(shards):
        raise ValueError(f"{len(shards)} cache shards and {len(wanted)} expected fingerprints were given")
    opened = [ShardHeader(path, fields) for (path, _), fields in zip(shards, wanted, strict=True)]
    empty = LatentShard(null, None)
    shared = {name: value for name, value in wanted[0].items() if name in empty.fingerprint}
    check_fingerprint(null, empty.fingerprint, shared)
    buckets = find_index(index, opened, [table for _, table in shards])
    if not buckets:
        raise ValueError(
            f"{shards[0][0]}: the cache holds no picture; look at the filter's and bucket's counts"
        )
    return opened, empty, buckets


def common_captions(shards: Sequence[ShardHeader]) -> tuple[str, ...]:
    """The captions that all shards have, in the order of the first; those of several datasets may have others."""
    others = [set(shard.captions) for shard in shards[1:]]
    return tuple(name for name in shards[0].captions if all(name in held for held in others))


def caption_shares(choice: Mapping[str, float] | None, captions: Sequence[str]) -> Array:
    """How often each of `captions` is shown, (K,) with the sum 1: as `choice` says (`train.caption_choice`).

    None: the generated ones equally often, and the original where there is no other.

    Raises:
        ValueError: a caption that is to be shown is none of them.
    """
    if choice is None:
        generated = [name != ORIGINAL for name in captions]
        shown = generated if any(generated) else [True] * len(captions)
        return np.array(shown) / sum(shown)
    if missing := [name for name in choice if name not in captions]:
        raise ValueError(
            f"train.caption_choice.{missing[0]}: the cache has no caption of this name; there are"
            f" {', '.join(captions)}"
        )
    return np.array([choice.get(name, 0.0) for name in captions])


def choose_captions(shares: Array, dropout: float, chance: Array, drop: Array) -> Ints:
    """Which caption each sample shows, from two uniform numbers (B,) in [0, 1) a sample.

    `chance` chooses among captions by their `shares` (K,); `drop` below `dropout` gives NULL_CAPTION.
    """
    # The last that is ever shown takes what rounding leaves of the sum.
    edges = np.cumsum(shares)[: np.flatnonzero(shares)[-1]]
    return np.where(drop < dropout, NULL_CAPTION, np.searchsorted(edges, chance, side="right"))


def drop_by_encoder(captions: Ints, dropout: Sequence[float], drop: Array) -> Ints:
    """Captions (B,), and for each of E encoders whether it alone sees none: (B, E).

    `drop` (B, E) uniform in [0, 1); below `dropout` (E,) gives NULL_CAPTION. The pooled embedding goes with the
    text. So in Esser et al. 2024 (arXiv 2403.03206), with 0.464 for each of three.
    """
    return np.where(drop < np.asarray(dropout), NULL_CAPTION, captions[:, None])


def joint_null_rate(caption_dropout: float, encoder_dropout: Sequence[float]) -> float:
    """How often no encoder sees a caption, which is what guidance draws without."""
    alone = float(np.prod(encoder_dropout)) if len(encoder_dropout) else 0.0
    return caption_dropout + (1 - caption_dropout) * alone


def _bits(tensor: torch.Tensor) -> Array:
    """A numpy view of a tensor; bfloat16, which numpy lacks, is seen as 16-bit integers."""
    same_size = {2: torch.int16, 4: torch.int32}[tensor.element_size()]
    return tensor.view(same_size).numpy()


def caption_grid(captions: Ints, num: int, num_encoders: int) -> Ints:
    """Captions (B,), the same for every encoder, or (B, E) -> (B, E)."""
    return np.broadcast_to(captions.reshape(num, -1), (num, num_encoders))


def time_ids_of(bucket: Shape, found: BucketPlaces, places: Ints, prefix: str = "") -> Array:
    """(B, 6) float32: SDXL's original height and width, crop top and left, target height and width.

    `prefix` is what the columns of the original sides are called besides.
    """
    names = (f"{prefix}height", f"{prefix}width", "crop_top", "crop_left")
    sides = [np.full(len(places), side) for side in reversed(bucket)]
    return np.stack([*(found.at(name, places) for name in names), *sides], axis=1).astype(np.float32)
