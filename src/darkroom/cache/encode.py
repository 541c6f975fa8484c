"""Pictures and captions to numbers in the stored precision: the same for a shard and during training."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from darkroom.components.text import EncodedCaption, TextEncoder
from darkroom.components.vae import encode_latents
from darkroom.config.run import Cache, TextEncoderUse

ComputeDtype = Literal["float32", "bfloat16"]


def autocast(device: torch.device, compute_dtype: ComputeDtype) -> AbstractContextManager[Any]:
    """What the encoders run under: nothing for float32."""
    return torch.autocast(device.type, torch.bfloat16) if compute_dtype == "bfloat16" else nullcontext()


def stored(tensor: torch.Tensor, settings: Cache) -> torch.Tensor:
    """A tensor on the CPU, in the cache's dtype."""
    return tensor.to("cpu", getattr(torch, settings.dtype))


def picture_latents(
    vae: Any, pixels: npt.NDArray[np.uint8], uids: Sequence[str], settings: Cache
) -> torch.Tensor:
    """Cropped pictures (B, H, W, 3) of one bucket -> latents (B, C, h, w) as they are stored.

    Raises:
        ValueError: some are not finite; names the uid.
    """
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    latents = stored(encode_latents(vae, images.float() / 127.5 - 1), settings)
    _refuse_not_finite(latents, lambda row: f"the latents of picture {uids[row]}")
    return latents


def caption_embeddings(
    encoder: TextEncoder,
    captions: list[str],
    use: TextEncoderUse,
    settings: Cache,
    uid_of: Callable[[str], str],
) -> list[EncodedCaption]:
    """Captions as `TextEncoder.read` gives them, as they are stored; `uid_of` a caption is a picture with it.

    Raises:
        ValueError: some are not finite; names the uid and the caption.
    """

    def name(text: str, row: int) -> str:
        return f"the embedding of a caption of picture {uid_of(text)} ({text[:60]!r})"

    found = []
    for text, encoded in zip(captions, encoder.read(captions, use, settings.batch_size), strict=True):
        hidden, pooled = stored(encoded.hidden, settings), stored(encoded.pooled, settings)
        for numbers in (hidden, pooled):
            _refuse_not_finite(numbers.view(1, -1), partial(name, text))
        found.append(EncodedCaption(hidden, pooled, encoded.num_tokens_cut))
    return found


def _refuse_not_finite(numbers: torch.Tensor, name: Callable[[int], str]) -> None:
    wrong = np.flatnonzero(~torch.isfinite(numbers).flatten(1).all(dim=1).numpy())
    if len(wrong):
        raise ValueError(
            f"{name(int(wrong[0]))} are not finite as {numbers.dtype}; "
            "cache.dtype bfloat16 or float32 has the wider range, or leave the picture out"
        )
