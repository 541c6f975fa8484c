"""A model to draw from, loaded once: this package's exports, and Stable Diffusion's pipelines of diffusers."""

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from darkroom.config.run import Sampling
from darkroom.sample.draw import DTYPES, text_length
from darkroom.sample.rescale import knows_rescale, rescaling
from darkroom.sample.samplers import make_sampler

STOCK_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline")
RANDOM_SEED = -1
GuidanceConvention = Literal["diffusers", "paper"]


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn.

    sampler: of `samplers.SAMPLERS`; None is the exported scheduler as it is.
    guidance_rescale: share of guidance's overexposure that is taken back, 0 to 1 (Lin et al., arXiv 2305.08891).
    batch_size: pictures a forward pass; dtype: of the autocast.
    """

    sampling: Sampling = field(default_factory=Sampling)
    sampler: str | None = None
    guidance_rescale: float = 0.0
    negative_prompt: str = ""
    batch_size: int = 4
    dtype: str = "bfloat16"


def guidance_scale(value: float, convention: GuidanceConvention = "diffusers") -> float:
    """A guidance scale in diffusers' convention, p_un + g (p_con - p_un), where 1 is none.

    "paper" is Ho and Salimans' (arXiv 2207.12598), (1 + w) p_con - w p_un, where 0 is none: g = 1 + w. Stable
    Diffusion 3 From Scratch has it: its 5 to 7 are 6 to 8 here.

    Raises:
        ValueError: guidance below none.
    """
    none = 0.0 if convention == "paper" else 1.0
    if value < none:
        raise ValueError(
            f"guidance {value:g} is below {none:g}, which is none in the {convention} convention"
        )
    return value + 1 if convention == "paper" else value


def drawn_seeds(seeds: Sequence[int], num_prompts: int, num_pictures: int = 1) -> list[list[int]]:
    """The seeds of every prompt's pictures: those given, and for -1 a fresh one (32 bits) for each prompt.

    Args:
        num_pictures: so many for each seed that is given: it and those that follow, or as many fresh ones.
    Raises:
        ValueError: a seed is neither -1 nor a number of 0 to 2^63 - 1.
    """
    for seed in seeds:
        if not RANDOM_SEED <= seed <= 2**63 - num_pictures:
            raise ValueError(f"seed {seed} is neither -1 (random) nor from 0 to 2^63 - {num_pictures}")
    return [
        [
            secrets.randbits(32) if seed == RANDOM_SEED else seed + number
            for seed in seeds
            for number in range(num_pictures)
        ]
        for _ in range(num_prompts)
    ]


class SampleModel:
    """A pipeline in memory.

    Args:
        pipeline: this package's, or one of `STOCK_PIPELINES`.
        device: where it draws.
    """

    def __init__(self, pipeline: Any, device: str = "cpu") -> None:
        self.pipeline = pipeline.to(device)
        self.device = torch.device(device)
        self._scheduler = pipeline.scheduler
        pipeline.set_progress_bar_config(disable=True)

    @property
    def size_step(self) -> int:
        """Pixels that width and height are multiples of: the VAE's factor times the patch size."""
        factor = getattr(self.pipeline, "vae_scale_factor", None) or self.pipeline.vae_factor
        network = getattr(self.pipeline, "transformer", None) or self.pipeline.unet
        return int(factor * (network.config.get("patch_size") or 1))

    def check_size(self, width: int, height: int) -> None:
        """Refuse a size that the model cannot draw.

        Raises:
            ValueError: names the nearest size that it can.
        """
        step = self.size_step
        near = [max(step, round(value / step) * step) for value in (width, height)]
        if near != [width, height]:
            raise ValueError(
                f"{width}x{height}: this model draws multiples of {step} pixels; the nearest is "
                f"{near[0]}x{near[1]}"
            )

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        drawing: Drawing,
        on_step: Callable[[int, int, Tensor], None] | None = None,
    ) -> np.ndarray:
        """One picture for each prompt and seed: uint8 (len(prompts), height, width, 3).

        Args:
            seeds: of each picture's noise; a picture does not depend on what is drawn beside it, up to rounding.
            on_step: called with the number of the batch's first picture, the model's calls so far and the latents.
        Raises:
            ValueError: a size, sampler or option that does not fit the model.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts; one for each is needed")
        sampling = drawing.sampling
        self.check_size(sampling.width_px, sampling.height_px)
        self.pipeline.scheduler = self._scheduler
        if drawing.sampler is not None:
            self.pipeline.scheduler = make_sampler(drawing.sampler, self._scheduler.config)
        pictures = np.empty((len(prompts), sampling.height_px, sampling.width_px, 3), np.uint8)
        for start in range(0, len(prompts), drawing.batch_size):
            part = slice(start, min(start + drawing.batch_size, len(prompts)))
            watch = None if on_step is None else _watcher(on_step, start)
            images = self._call(list(prompts[part]), seeds[part], drawing, watch)
            pictures[part] = (np.asarray(images) * 255).round().clip(0, 255).astype(np.uint8)
        return pictures

    def _call(self, prompts: list[str], seeds: Sequence[int], drawing: Drawing, watch: Any) -> Any:
        sampling = drawing.sampling
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        if hasattr(self.pipeline.scheduler, "generators"):
            self.pipeline.scheduler.generators = generators
        options: dict[str, Any] = {}
        by_hand = drawing.guidance_rescale
        if by_hand and knows_rescale(self.pipeline):
            options["guidance_rescale"], by_hand = by_hand, 0.0
        # Left out, it is the null that training saw: SDXL's pipeline takes "" for a text.
        if drawing.negative_prompt:
            is_stock = type(self.pipeline).__name__ in STOCK_PIPELINES
            negative = drawing.negative_prompt
            options["negative_prompt"] = [negative] * len(prompts) if is_stock else negative
        options |= text_length(self.pipeline)
        dtype = DTYPES[drawing.dtype]
        autocast = torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)
        with autocast, rescaling(self.pipeline, by_hand):
            return self.pipeline(
                prompts,
                width=sampling.width_px,
                height=sampling.height_px,
                num_inference_steps=sampling.num_inference_steps,
                guidance_scale=sampling.guidance_scale,
                generator=generators,
                output_type="np",
                callback_on_step_end=watch,
                **options,
            ).images

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Latents (B, C, H, W) as pictures: uint8 (B, height, width, 3)."""
        vae = self.pipeline.vae
        plain = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
        images = vae.decode(plain + (vae.config.shift_factor or 0.0), return_dict=False)[0]
        images = (images.float() / 2 + 0.5).clamp(0, 1)
        return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _watcher(on_step: Callable[[int, int, Tensor], None], start: int) -> Callable[..., dict[str, Any]]:
    def watch(_: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        on_step(start, step, kwargs["latents"])
        return {}

    return watch


def load_model(
    folder: str | Path, borrow_from: str | Path | None = None, device: str | None = None
) -> SampleModel:
    """An exported model, or a diffusers folder of Stable Diffusion 1.x, 2.x, XL or 3.

    Args:
        folder: with model_index.json; or a network's (or what holds one in `transformer` or `unet`), which then
            takes the rest from `borrow_from`.
        device: "cuda" where there is one, else "cpu", by default.
    Raises:
        ValueError: the folder is neither.
    """
    from darkroom.sample.export import load_pipeline

    folder = Path(folder)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    index = folder / "model_index.json"
    if not index.is_file():
        places = [folder, folder / "transformer", folder / "unet"]
        if borrow_from is None or not any((place / "config.json").is_file() for place in places):
            raise ValueError(f"{folder} is no model to draw from: it has no model_index.json")
        return SampleModel(load_pipeline(borrow_from, transformer=folder), device)
    parts = json.loads(index.read_text(encoding="utf-8"))
    name = parts["_class_name"]
    if name in STOCK_PIPELINES:
        import diffusers

        pipeline_class: Any = getattr(diffusers, name)
        # diffusers wants to be told of what a folder leaves out, such as T5.
        absent = {part: None for part, kind in parts.items() if kind == [None, None]}
        return SampleModel(
            pipeline_class.from_pretrained(str(folder), local_files_only=True, **absent), device
        )
    return SampleModel(load_pipeline(folder), device)
