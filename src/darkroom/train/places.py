"""Where in the shards of a run the numbers of a picture lie, and what of them a batch needs."""

from collections.abc import Sequence
from math import prod

import numpy as np

from darkroom.store.latents import LatentShard, ShardHeader, latents_name, of_encoder
from darkroom.store.reads import Reads
from darkroom.train.index import ROW, SHARD, BucketPlaces
from darkroom.train.plan import Ints, Shape

# The last in the lists of what there is to show of a picture, whatever its captions are.
NULL_CAPTION = -1


class ShownText:
    """The captions (B,) that one encoder sees of pictures `places` (B,).

    Args:
        names: what places in the list of captions are called. null_length: tokens of the empty caption.
    """

    def __init__(
        self,
        found: BucketPlaces,
        places: Ints,
        names: Sequence[str],
        captions: Ints,
        encoder: int,
        null_length: int,
    ) -> None:
        def chosen(what: str) -> Ints:
            columns = [found.at(of_encoder(f"{name}_{what}", encoder), places) for name in names]
            return np.stack(columns)[self.captions, np.arange(len(places))]

        self.is_null = captions == NULL_CAPTION
        self.captions = np.where(self.is_null, 0, captions)
        self.lengths: Ints = np.where(self.is_null, null_length, chosen("length"))
        self.shards, self.rows = found.at(SHARD, places), found.at(ROW, places)
        self.offsets = chosen("offset")
        # (B, L) to the longest of the batch.
        self.mask = np.arange(max(1, int(self.lengths.max()))) < self.lengths[:, None]


class ShardPlaces:
    """Where the tensors of S shards begin.

    Args:
        shards: in order; empty: that of the empty caption.
        captions: the K captions that are shown.

    Raises:
        ValueError: a tensor's rows are not shaped as those of the other shards; names the file.
    """

    def __init__(self, shards: Sequence[ShardHeader], empty: LatentShard, captions: Sequence[str]) -> None:
        self.latent_shapes: dict[Shape, tuple[int, ...]] = {}
        self._itemsize = empty.text("null").element_size()
        self._text_widths, self._pooled_widths = (
            [of(e).shape[-1] for e in range(empty.num_encoders)]
            for of in (lambda e: empty.text("null", e), lambda e: empty.pooled("null", e))
        )
        self._latents: dict[Shape, Ints] = {}
        for number, shard in enumerate(shards):
            for bucket in shard.buckets():
                begins = self._latents.setdefault(bucket, np.full(len(shards), -1))
                begins[number] = shard.layout[latents_name(*bucket)].begin
                shape = shard.layout[latents_name(*bucket)].shape[1:]
                if self.latent_shapes.setdefault(bucket, shape) != shape:
                    raise ValueError(
                        f"{shard.path}: {latents_name(*bucket)} is not shaped as in other shards"
                    )
            for name, tensor in shard.layout.items():
                if tensor.dtype != empty.layout["text/null"].dtype:
                    raise ValueError(f"{shard.path}: {name} is {tensor.dtype}, unlike the empty caption")
        # (S, E, K); -1 where an encoder has no pooled embedding.
        self._text = self._begins(shards, captions, "text", self._text_widths)
        self._pooled = self._begins(shards, captions, "pooled", self._pooled_widths)

    def _begins(
        self, shards: Sequence[ShardHeader], captions: Sequence[str], what: str, widths: Sequence[int]
    ) -> Ints:
        begins = np.full((len(shards), len(widths), len(captions)), -1)
        for number, shard in enumerate(shards):
            for encoder, width in enumerate(widths):
                names = [of_encoder(f"{what}/{caption}", encoder) for caption in captions]
                for place, name in enumerate(names if width else ()):
                    if name not in shard.layout or shard.layout[name].shape[1:] != (width,):
                        raise ValueError(
                            f"{shard.path}: {name} has not {width} channels, as the empty caption"
                        )
                    begins[number, encoder, place] = shard.layout[name].begin
        return begins

    def latents(self, bucket: Shape, found: BucketPlaces, places: Ints, target: int) -> Reads:
        """The latents of pictures `places` (B,), one after another from byte `target`."""
        size = prod(self.latent_shapes[bucket]) * self._itemsize
        shards = found.at(SHARD, places)
        offsets = self._latents[bucket][shards] + found.at("index", places) * size
        return Reads(shards, offsets, np.full(len(places), size), target + np.arange(len(places)) * size)

    def text(self, shown: ShownText, encoder: int, target: int) -> Reads:
        """The text of one encoder, (B, L, D) from byte `target`; nothing for the empty caption, and no padding."""
        size = self._text_widths[encoder] * self._itemsize
        samples = np.flatnonzero(~shown.is_null)
        shards, captions = shown.shards[samples], shown.captions[samples]
        offsets = self._text[shards, encoder, captions] + shown.offsets[samples] * size
        targets = target + samples * (shown.mask.shape[1] * size)
        return Reads(shards, offsets, shown.lengths[samples] * size, targets)

    def pooled(self, shown: ShownText, encoder: int, target: int) -> Reads:
        """The pooled embeddings of one encoder, whose part of the first row (sum of all widths) is at `target`."""
        size, stride = (n * self._itemsize for n in (self._pooled_widths[encoder], sum(self._pooled_widths)))
        samples = np.flatnonzero(~shown.is_null) if size else np.zeros(0, np.int64)
        shards, captions = shown.shards[samples], shown.captions[samples]
        offsets = self._pooled[shards, encoder, captions] + shown.rows[samples] * size
        return Reads(shards, offsets, np.full(len(samples), size), target + samples * stride)
