"""Decoding in float32 where a VAE's own configuration asks for it and drawing computes in float16."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def decoding_upcast(vae: Any, dtype: str) -> Iterator[None]:
    """In the block a VAE with `force_upcast` decodes in float32, as diffusers' pipelines let it.

    SDXL's overflows in float16, and its pictures are black. bfloat16 has float32's range, and diffusers leaves it.
    """
    if dtype != "float16" or not vae.config.get("force_upcast"):
        yield
        return
    decode = vae.decode

    def upcast(latents: Tensor, *arguments: Any, **options: Any) -> Any:
        with torch.autocast(latents.device.type, enabled=False):
            return decode(latents.float(), *arguments, **options)

    vae.decode = upcast
    try:
        yield
    finally:
        del vae.decode
