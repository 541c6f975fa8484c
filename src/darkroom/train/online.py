"""Samples that are encoded while training: pictures decoded out of the dataset's tars, then VAE and text encoders.

The numbers are made by the functions of the cache stage and rounded to its dtype, so that a run sees what it
would see with stored ones.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from darkroom.cache.encode import caption_embeddings, picture_latents
from darkroom.components.files import moved
from darkroom.components.text import EncodedCaption, pad_text
from darkroom.components.text_encoders import load_text_encoder
from darkroom.components.vae import latent_shape, load_vae
from darkroom.families.conditioning import Conditioning
from darkroom.models.training_components import TrainingComponents
from darkroom.store import TarReader
from darkroom.store.latents import LatentShard
from darkroom.store.pictures import decode_picture
from darkroom.train.data import (
    NULL_CAPTION,
    Ints,
    Samples,
    caption_grid,
    common_captions,
    open_shards,
    time_ids_of,
)
from darkroom.train.index import SHARD, Array
from darkroom.train.plan import Shape, UInts
from darkroom.train.tags import ShownTags

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

MAX_DECODERS = 8
_SIDES = ("width", "height")


class OnlinePictures:
    """Which pictures and captions a run has that encodes while training, and the sizes of what comes of them.

    Args:
        shards: (safetensors file, table) of each part, in order, as `cache.cache_index` writes them.
        null: the shard of the empty caption.
        expected: fingerprint fields that every shard must have; or one mapping for each shard. The
            null shard is held to those fields of them that it has itself.
        index: as of `LatentCache`.

    Raises:
        ValueError: a shard is stale, or no picture is there.
    """

    # The one that encodes, or its layout.
    _vae: "AutoencoderKL"

    def __init__(
        self,
        shards: Sequence[tuple[str | Path, str | Path]],
        null: str | Path,
        expected: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        index: str | Path | None = None,
    ) -> None:
        self._shards, empty, self._buckets = open_shards(shards, null, expected, index)
        self.captions = common_captions(self._shards)
        self._null = [
            EncodedCaption(empty.text("null", e), empty.pooled("null", e).reshape(-1), 0)
            for e in range(empty.num_encoders)
        ]

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
        dims = tuple(null.hidden.shape[1] for null in self._null)
        return {
            "latent_channels": self._vae.config["latent_channels"],
            "text_dim": dims[0] if len(dims) == 1 else dims,
            "pooled_dim": sum(len(null.pooled) for null in self._null),
        }

    def latent_shape(self, bucket: Shape) -> tuple[int, ...]:
        """(C, H, W) of a bucket's latents."""
        return latent_shape(self._vae, *bucket)


class OnlineEncoder(OnlinePictures):
    """The pictures and captions of a run, encoded as they are asked for; the counterpart of `LatentCache`.

    Args:
        shards, null, expected, index: see `OnlinePictures`.
        tars: the tar of each part.
        components: whose VAE and text encoders encode, frozen, on `device`.

    Raises:
        ValueError: a shard is stale, or no picture is there.
    """

    def __init__(
        self,
        shards: Sequence[tuple[str | Path, str | Path]],
        tars: Sequence[str | Path],
        null: str | Path,
        expected: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        components: TrainingComponents,
        device: torch.device,
        index: str | Path | None = None,
    ) -> None:
        super().__init__(shards, null, expected, index)
        if len(tars) != len(self._shards):
            raise ValueError(
                f"{len(self._shards)} parts and {len(tars)} tars were given; each part needs its own"
            )
        self._tars = list(tars)
        mapped = [LatentShard(shard.path, None) for shard in self._shards]
        self._texts = [[s.tensors[f"caption/{name}"].numpy() for name in self.captions] for s in mapped]
        self._settings = components.cache
        self._vae = moved(load_vae(components.vae), device)
        self._encoders = [load_text_encoder(component) for component in components.text_encoders]
        for encoder in self._encoders:
            moved(encoder.model, device)
        self.num_encoders = len(self._encoders)
        num_decoders = min(MAX_DECODERS, len(os.sched_getaffinity(0)))
        self._decoders = ThreadPoolExecutor(num_decoders, thread_name_prefix="darkroom-decoder")

    def gather(self, bucket: Shape, places: Ints, captions: Ints, tags: ShownTags | None = None) -> Samples:
        """Encode pictures `places` (B,) of a bucket with captions as `LatentCache.gather` takes them.

        `tags` says how captions that are lists of tags are shown; None: as they are.

        Raises:
            ValueError: a picture is missing, damaged or encodes to something not finite; names the uid.
        """
        found = self._buckets[bucket]
        chosen = {name: found.at(name, places) for name in found.columns}
        chosen |= {
            f"bucket_{side}": np.full(len(places), of) for side, of in zip(_SIDES, bucket, strict=True)
        }
        names = [f"{first:016x}{second:016x}" for first, second in found.uids[places].tolist()]
        pixels = self._decode(chosen, names)
        step = self._settings.batch_size
        latents = [
            picture_latents(self._vae, pixels[k : k + step], names[k : k + step], self._settings)
            for k in range(0, len(pixels), step)
        ]
        grid = caption_grid(captions, len(places), self.num_encoders)
        read = [self._read(chosen, names, grid[:, e], e, tags) for e in range(self.num_encoders)]
        padded = [pad_text([found.hidden for found in encoded]) for encoded in read]
        conditioning = Conditioning(
            tuple(text for text, _ in padded),
            tuple(None if bool(mask.all()) else mask for _, mask in padded),
            torch.cat([torch.stack([found.pooled for found in encoded]) for encoded in read], dim=1),
            torch.from_numpy(time_ids_of(bucket, found, places))
            if self._settings.size_conditioning
            else None,
        )
        return Samples(torch.cat(latents), conditioning)

    def _decode(self, chosen: Mapping[str, Ints], names: list[str]) -> npt.NDArray[np.uint8]:
        """(B, H, W, 3) of the bucket's size."""

        def decode(place: int) -> npt.NDArray[np.uint8]:
            numbers = {name: int(column[place]) for name, column in chosen.items()}
            with TarReader(self._tars[numbers[SHARD]]) as reader:
                content = reader.read(numbers["offset"], numbers["size"])
            return decode_picture(content, {"uid": names[place], **numbers})

        return np.stack(list(self._decoders.map(decode, range(len(names)))))

    def _read(
        self,
        chosen: Mapping[str, Ints],
        names: list[str],
        captions: Ints,
        encoder: int,
        tags: ShownTags | None,
    ) -> list[EncodedCaption]:
        """What one encoder makes of captions (B,); equal ones are encoded once."""
        texts = [
            None if caption == NULL_CAPTION else self._caption(chosen, place, caption, tags)
            for place, caption in enumerate(captions.tolist())
        ]
        unique = sorted({text for text in texts if text is not None})
        found = caption_embeddings(
            *(self._encoders[encoder], unique, self._settings.encoders[encoder], self._settings),
            lambda text: names[texts.index(text)],
        )
        known = dict(zip(unique, found, strict=True))
        return [self._null[encoder] if text is None else known[text] for text in texts]

    def _caption(self, chosen: Mapping[str, Ints], place: int, caption: int, tags: ShownTags | None) -> str:
        name = self.captions[caption]
        first, size = (int(chosen[f"{name}_{what}"][place]) for what in ("offset", "length"))
        content = self._texts[chosen[SHARD][place]][caption][first : first + size]
        text = content.tobytes().decode()
        return text if tags is None else tags.show(place, name, text)
