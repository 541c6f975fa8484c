"""Draws many pictures with a pipeline: each from its own seed, whatever is drawn beside it."""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darkroom.config.families import SD3_MAX_TOKENS
from darkroom.config.run import Sampling
from darkroom.sample.pipeline import DarkroomPipeline

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def picture_seed(seed: int, prompt_index: int, picture_index: int) -> int:
    """The seed (63 bits) of picture k of prompt p, from a hash: no two pictures of a run share their noise."""
    digest = hashlib.sha256(f"{seed}/{prompt_index}/{picture_index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def initial_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise (1, *shape) of one picture, from a CPU generator of its own.

    The same as diffusers draws for `generator=torch.Generator().manual_seed(seed)`.
    """
    return torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def draw(
    pipeline: Any,
    prompts: list[str],
    seeds: list[int],
    sampling: Sampling,
    batch_size: int = 16,
    dtype: str = "bfloat16",
) -> np.ndarray:
    """One picture for each prompt and seed: uint8 (len(prompts), height, width, 3).

    Equal prompts are encoded once, in the text encoder's own precision, as the training cache does. All batches
    pad text to one length and the last batch is filled up, so that every forward pass has the same shape.

    Args:
        pipeline: DarkroomPipeline, or one of diffusers', which does all this in its own way.
        seeds: of each picture's initial noise, see `picture_seed`.
        batch_size: pictures a forward pass (twice as many with guidance).
        dtype: of the denoiser's and decoder's autocast: float32 (none), bfloat16 or float16.
    Raises:
        ValueError: when prompts and seeds differ in number, a size does not fit, or the dtype is unknown.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts; one for each is needed")
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
    if not isinstance(pipeline, DarkroomPipeline):
        return _draw_diffusers(pipeline, prompts, seeds, sampling, batch_size, dtype)
    shape = pipeline.latent_shape(sampling.width_px, sampling.height_px)
    pictures = np.empty((len(prompts), sampling.height_px, sampling.width_px, 3), dtype=np.uint8)
    if not prompts:
        return pictures
    *encoded, null = pipeline.encode([*prompts, ""])
    num_text_tokens = [
        max(len(caption.hidden) for caption in of_encoder) for of_encoder in zip(*encoded, null, strict=True)
    ]
    device = pipeline.device
    bar = getattr(pipeline, "_progress_bar_config", {})
    pipeline.set_progress_bar_config(disable=True)
    for start in range(0, len(prompts), batch_size):
        num = min(batch_size, len(prompts) - start)
        # The last batch repeats its last picture: cheap, and no picture sees another batch size.
        chosen = [start + min(k, num - 1) for k in range(min(batch_size, len(prompts)))]
        noise = torch.cat([initial_noise(seeds[i], shape) for i in chosen]).to(device)
        without = None if sampling.guidance_scale == 1 else [null] * len(chosen)
        with torch.autocast(device.type, DTYPES[dtype], enabled=dtype != "float32"):
            latents = pipeline.denoise(
                noise,
                [encoded[i] for i in chosen],
                without,
                sampling.num_inference_steps,
                sampling.guidance_scale,
                num_text_tokens,
            )
            images = pipeline.decode(latents[:num])
        images = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        pictures[start : start + num] = images.cpu().numpy()
    pipeline.set_progress_bar_config(**bar)
    return pictures


def text_length(pipeline: Any) -> dict[str, int]:
    """What tells diffusers' SD3 pipeline to read as many T5 tokens as were trained with; empty for others."""
    t5 = getattr(pipeline, "tokenizer_3", None)
    if isinstance(pipeline, DarkroomPipeline) or t5 is None:
        return {}
    return {"max_sequence_length": min(t5.model_max_length, SD3_MAX_TOKENS)}


def _draw_diffusers(
    pipeline: Any, prompts: list[str], seeds: list[int], sampling: Sampling, batch_size: int, dtype: str
) -> np.ndarray:
    """`draw` with a pipeline of diffusers: the same noise for each seed, in batches of one size."""
    pictures = np.empty((len(prompts), sampling.height_px, sampling.width_px, 3), dtype=np.uint8)
    bar = getattr(pipeline, "_progress_bar_config", {})
    pipeline.set_progress_bar_config(disable=True)
    size = min(batch_size, len(prompts))
    for start in range(0, len(prompts), batch_size):
        num = min(batch_size, len(prompts) - start)
        chosen = [start + min(k, num - 1) for k in range(size)]
        with torch.autocast(pipeline.device.type, DTYPES[dtype], enabled=dtype != "float32"):
            images = pipeline(
                [prompts[i] for i in chosen],
                width=sampling.width_px,
                height=sampling.height_px,
                num_inference_steps=sampling.num_inference_steps,
                guidance_scale=sampling.guidance_scale,
                generator=[torch.Generator().manual_seed(seeds[i]) for i in chosen],
                output_type="np",
                **text_length(pipeline),
            ).images
        pictures[start : start + num] = (images[:num] * 255).round().astype(np.uint8)
    pipeline.set_progress_bar_config(**bar)
    return pictures
