"""The cached samples of a run: which there are, and how a batch of them is read.

Everything here is numpy: batches are gathered on a background thread, where torch's operators would
start a second pool of threads that gets in the way of the training step's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from darkroom.families.conditioning import Conditioning
from darkroom.settings.captions import ORIGINAL
from darkroom.store.latents import LatentShard, of_encoder
from darkroom.train.plan import Shape, UInts, parse_uids
from darkroom.train.tags import ShownTags

# The last in the lists of what there is to show of a picture, whatever its captions are.
NULL_CAPTION = -1
Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Bucket:
    """Where n pictures of one bucket lie: all arrays have n rows, sorted by uid."""

    uids: UInts  # (n, 2)
    shard: Ints  # which shard
    index: Ints  # row of the shard's latents
    row: Ints  # row of the shard's table and pooled embeddings
    offset: Ints  # (n, E, K) first token of each of K captions, for each of E text encoders
    length: Ints  # (n, E, K) tokens of each caption
    time_ids: Array | None  # (n, 6) float32, see Conditioning


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


class LatentCache:
    """All shards of a run, memory-mapped, with the place of every picture.

    Args:
        shards: (safetensors file, table) of each part, in order.
        null: the shard of the empty caption.
        expected: fingerprint fields that every shard must have; or one mapping for each shard. The
            null shard is held to those fields of them that it has itself.

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
    ) -> None:
        opened, empty = open_shards(shards, null, expected)
        self.captions = common_captions(opened)
        self._latents = [{b: _bits(s.latents(*b)) for b in s.buckets()} for s in opened]
        self.num_encoders = empty.num_encoders
        places = range(self.num_encoders)
        # By shard, encoder and caption, the empty one last.
        self._text = [
            [[*(_bits(s.text(k, e)) for k in self.captions), _bits(empty.text("null", e))] for e in places]
            for s in opened
        ]
        self._pooled = [
            [
                [*(_bits(s.pooled(k, e)) for k in self.captions), _bits(empty.pooled("null", e))]
                for e in places
            ]
            for s in opened
        ]
        self._dtype = empty.text("null").dtype
        self._null_lengths = np.array([len(empty.text("null", e)) for e in places])
        self.max_text_tokens = int(empty.fingerprint.get("max_text_tokens", 77))
        self._buckets = _index(opened, self.captions)

    @property
    def uids(self) -> dict[Shape, UInts]:
        """The sorted uids (n, 2) of every bucket, by (width, height)."""
        return {shape: bucket.uids for shape, bucket in self._buckets.items()}

    @property
    def shards(self) -> dict[Shape, Ints]:
        """The place (n,) of each picture's shard among those given, in the order of `uids`."""
        return {shape: bucket.shard for shape, bucket in self._buckets.items()}

    @property
    def sizes(self) -> dict[str, Any]:
        """latent_channels, text_dim (of each encoder, where there are several) and pooled_dim (of all)."""
        latents = next(iter(next(found for found in self._latents if found).values()))
        dims = tuple(encoder[NULL_CAPTION].shape[1] for encoder in self._text[0])
        return {
            "latent_channels": latents.shape[1],
            "text_dim": dims[0] if len(dims) == 1 else dims,
            "pooled_dim": sum(encoder[NULL_CAPTION].shape[1] for encoder in self._pooled[0]),
        }

    def latent_shape(self, bucket: Shape) -> tuple[int, ...]:
        """(C, H, W) of a bucket's latents."""
        return next(found[bucket].shape[1:] for found in self._latents if bucket in found)

    def gather(self, bucket: Shape, places: Ints, captions: Ints, tags: ShownTags | None = None) -> Samples:
        """Read pictures `places` (B,) of a bucket, each with caption `captions` (B,) or, by encoder, (B, E).

        A caption is a place in `captions`, or NULL_CAPTION for the empty one. The text is padded
        to the longest of the batch.
        """
        found = self._buckets[bucket]
        shards = found.shard[places]
        assert tags is None, "the configuration asks for cache.online"
        captions = caption_grid(captions, len(places), self.num_encoders)
        latents = np.empty((len(places), *self.latent_shape(bucket)), self._text[0][0][NULL_CAPTION].dtype)
        for sample, (shard, index) in enumerate(zip(shards, found.index[places], strict=True)):
            latents[sample] = self._latents[shard][bucket][index]
        read = [self._read(found, places, captions[:, e], e) for e in range(self.num_encoders)]
        masks = tuple(None if bool(mask.all()) else torch.from_numpy(mask) for _, mask, _ in read)
        sizes = None if found.time_ids is None else torch.from_numpy(found.time_ids[places])
        conditioning = Conditioning(
            tuple(self._tensor(text) for text, _, _ in read),
            masks,
            self._tensor(np.concatenate([pooled for _, _, pooled in read], axis=1)),
            sizes,
        )
        return Samples(self._tensor(latents), conditioning)

    def _read(self, found: _Bucket, places: Ints, captions: Ints, encoder: int) -> tuple[Array, Array, Array]:
        """Text (B, L, D), mask (B, L) and pooled (B, P) of one encoder, for captions (B,)."""
        shards, num = found.shard[places], len(places)
        is_null = captions == NULL_CAPTION
        named = np.where(is_null, 0, captions)
        lengths = np.where(is_null, self._null_lengths[encoder], found.length[places, encoder, named])
        offsets = np.where(is_null, 0, found.offset[places, encoder, named])
        longest = max(1, int(lengths.max()))
        mask = np.arange(longest) < lengths[:, None]
        null_text = self._text[0][encoder][NULL_CAPTION]
        null_pooled = self._pooled[0][encoder][NULL_CAPTION]
        text = np.empty((num, longest, null_text.shape[1]), null_text.dtype)
        pooled = np.empty((num, null_pooled.shape[1]), null_pooled.dtype)
        rows = np.where(is_null, 0, found.row[places])
        # A copy of a slice a sample: each is one run of bytes.
        for sample, (shard, caption, offset, length, row) in enumerate(
            zip(*(column.tolist() for column in (shards, captions, offsets, lengths, rows)), strict=True)
        ):
            text[sample, :length] = self._text[shard][encoder][caption][offset : offset + length]
            text[sample, length:] = 0
            if pooled.shape[1]:
                pooled[sample] = self._pooled[shard][encoder][caption][row]
        return text, mask, pooled

    def _tensor(self, array: Array) -> torch.Tensor:
        return torch.from_numpy(array).view(self._dtype)


def open_shards(
    shards: Sequence[tuple[str | Path, str | Path]],
    null: str | Path,
    expected: Mapping[str, Any] | Sequence[Mapping[str, Any]],
) -> tuple[list[LatentShard], LatentShard]:
    """The shards of a run and that of the empty caption, see `LatentCache`, which says what is refused."""
    wanted = [expected] * len(shards) if isinstance(expected, Mapping) else list(expected)
    if not shards or len(wanted) != len(shards):
        raise ValueError(f"{len(shards)} cache shards and {len(wanted)} expected fingerprints were given")
    opened = [LatentShard(p, t, e) for (p, t), e in zip(shards, wanted, strict=True)]
    empty = LatentShard(null, None)
    shared = {name: value for name, value in wanted[0].items() if name in empty.fingerprint}
    if not any(shard.table is not None and shard.table.height for shard in opened):
        raise ValueError(
            f"{shards[0][0]}: the cache holds no picture; look at the filter's and bucket's counts"
        )
    return opened, LatentShard(null, None, shared)


def common_captions(shards: Sequence[LatentShard]) -> tuple[str, ...]:
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


def by_bucket(shards: Sequence[LatentShard]) -> dict[Shape, tuple[UInts, dict[str, Ints]]]:
    """(width, height) -> sorted uids (n, 2), and the other columns of the shards' tables in that order.

    Added to the columns: `_shard`, which shard, and `_row`, which row of its table.
    """
    tables = []
    for number, shard in enumerate(shards):
        assert shard.table is not None
        tables.append(shard.table.with_row_index("_row").with_columns(pl.lit(number).alias("_shard")))
    # A picture of several datasets is in several shards, and these may have other captions.
    shared = [name for name in tables[0].columns if all(name in table.columns for table in tables)]
    merged = pl.concat(table.select(shared) for table in tables).sort("uid", "_shard")
    result: dict[Shape, tuple[UInts, dict[str, Ints]]] = {}
    for (width, height), part in merged.group_by("bucket_width", "bucket_height", maintain_order=True):
        numbers = {name: part[name].to_numpy().astype(np.int64) for name in part.columns if name != "uid"}
        result[int(str(width)), int(str(height))] = parse_uids(part["uid"].to_list()), numbers
    return dict(sorted(result.items()))


def _index(shards: Sequence[LatentShard], captions: Sequence[str]) -> dict[Shape, _Bucket]:
    return {
        shape: _Bucket(
            uids=uids,
            shard=numbers["_shard"],
            index=numbers["index"],
            row=numbers["_row"],
            offset=_spans(numbers, "offset", captions, shards[0].num_encoders),
            length=_spans(numbers, "length", captions, shards[0].num_encoders),
            time_ids=time_ids_of(numbers, "original_") if shards[0].has_sizes else None,
        )
        for shape, (uids, numbers) in by_bucket(shards).items()
    }


def _spans(columns: Mapping[str, Ints], what: str, captions: Sequence[str], num_encoders: int) -> Ints:
    """(n, E, K) of offsets or lengths."""
    return np.stack(
        [
            np.stack([columns[of_encoder(f"{name}_{what}", encoder)] for name in captions], axis=1)
            for encoder in range(num_encoders)
        ],
        axis=1,
    )


def time_ids_of(columns: Mapping[str, Ints], prefix: str = "") -> Array:
    """(n, 6) float32: SDXL's original height and width, crop top and left, target height and width.

    `prefix` is what the columns of the original sides are called besides.
    """
    names = (f"{prefix}height", f"{prefix}width", "crop_top", "crop_left", "bucket_height", "bucket_width")
    return np.stack([columns[name] for name in names], axis=1).astype(np.float32)
