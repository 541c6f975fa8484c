"""A model to draw from: the one way for pictures during training, for the draw stage and for `darkroom sample`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darkroom.config.run import Sampling
from darkroom.families.table import FAMILIES, family_of
from darkroom.formats.diffusers import load_pipeline
from darkroom.precision import resolve
from darkroom.sample.options import DrawOptions
from darkroom.sample.rescale import knows_rescale, rescaling
from darkroom.sample.samplers import make_sampler
from darkroom.sample.upcast import decoding_upcast

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Called with the number of a batch's first picture, the model's calls so far and the latents (B, C, H, W).
OnStep = Callable[[int, int, Tensor], None]


class SampleModel:
    """A pipeline in memory, of one of the families; it draws where its parts lie.

    Of our own pipelines prompts are encoded once, in the text encoder's own precision, as the training cache does;
    those of diffusers do all in one call. Either way all batches have one shape (the last is filled up, text is
    padded to one length), so that a picture does not depend on what is drawn beside it, up to rounding.
    """

    def __init__(self, pipeline: Any) -> None:
        self.pipeline, self.family = pipeline, family_of(pipeline)
        self._scheduler = pipeline.scheduler
        pipeline.set_progress_bar_config(disable=True)

    @property
    def device(self) -> torch.device:
        """Where it draws."""
        return torch.device(self.pipeline.device)

    @property
    def size_step(self) -> int:
        """Pixels that width and height are multiples of: the VAE's factor times the patch size."""
        return int(self._vae_factor * self.family.patch_size(getattr(self.pipeline, self.family.part).config))

    @property
    def _vae_factor(self) -> int:
        """Pixels a latent pixel, per side."""
        return int(getattr(self.pipeline, "vae_scale_factor", None) or self.pipeline.vae_factor)

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

    @torch.no_grad()
    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        options: DrawOptions,
        on_step: OnStep | None = None,
    ) -> np.ndarray:
        """One picture for each prompt and seed: uint8 (len(prompts), height, width, 3).

        Args:
            seeds: of each picture's noise, see `seeds.picture_seed`.
        Raises:
            ValueError: a size, sampler, dtype or option that does not fit the model, or not one seed a prompt.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts; one for each is needed")
        sampling, dtype = options.sampling, resolve(options.dtype, self.device)
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r} is none of auto, {', '.join(DTYPES)}")
        self.check_size(sampling.width_px, sampling.height_px)
        self.pipeline.scheduler = self._scheduler
        if options.sampler is not None:
            self.pipeline.scheduler = make_sampler(options.sampler, self._scheduler.config)
        pictures = np.empty((len(prompts), sampling.height_px, sampling.width_px, 3), np.uint8)
        if not len(prompts):
            return pictures
        batch = self._encoded_once(prompts, options) if self._is_ours else self._in_one_call(prompts, options)
        size = min(options.batch_size, len(prompts))
        for start in range(0, len(prompts), size):
            num = min(size, len(prompts) - start)
            # The last batch repeats its last picture: cheap, and no picture sees another batch size.
            chosen = [start + min(k, num - 1) for k in range(size)]
            generators = [torch.Generator().manual_seed(seeds[i]) for i in chosen]
            if hasattr(self.pipeline.scheduler, "generators"):
                self.pipeline.scheduler.generators = generators
            watch = None if on_step is None else self._watcher(on_step, start, num, sampling)
            lower = torch.autocast(self.device.type, DTYPES[dtype], enabled=dtype != "float32")
            with lower, decoding_upcast(self.pipeline.vae, dtype):
                images = batch(chosen, generators, watch)[:num]
            pictures[start : start + num] = images
        return pictures

    @property
    def _is_ours(self) -> bool:
        return hasattr(self.pipeline, "denoise")

    def _encoded_once(self, prompts: Sequence[str], options: DrawOptions) -> Any:
        """What draws a batch of these prompts with a `exported.pipeline.DarkroomPipeline`."""
        pipeline, sampling = self.pipeline, options.sampling
        shape = pipeline.latent_shape(sampling.width_px, sampling.height_px)
        *encoded, null = pipeline.encode([*prompts, options.negative_prompt])
        num_text_tokens = [
            max(len(caption.hidden) for caption in of_encoder)
            for of_encoder in zip(*encoded, null, strict=True)
        ]

        def batch(chosen: list[int], generators: list[torch.Generator], watch: Any) -> np.ndarray:
            noise = torch.cat([torch.randn((1, *shape), generator=g) for g in generators]).to(self.device)
            latents = pipeline.denoise(
                noise,
                [encoded[i] for i in chosen],
                None if sampling.guidance_scale == 1 else [null] * len(chosen),
                sampling.num_inference_steps,
                sampling.guidance_scale,
                num_text_tokens,
                options.guidance_rescale,
                None if watch is None else lambda step, _, z: watch(pipeline, step, None, {"latents": z}),
            )
            images = pipeline.decode(latents)
            return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

        return batch

    def _in_one_call(self, prompts: Sequence[str], options: DrawOptions) -> Any:
        """What draws a batch of these prompts with a pipeline of diffusers."""
        pipeline, sampling = self.pipeline, options.sampling
        by_pipeline = knows_rescale(pipeline) and options.guidance_rescale != 0

        def batch(chosen: list[int], generators: list[torch.Generator], watch: Any) -> np.ndarray:
            named = self.family.options(
                pipeline, len(chosen), sampling.guidance_scale, options.negative_prompt
            )
            if by_pipeline:
                named["guidance_rescale"] = options.guidance_rescale
            with rescaling(pipeline, 0.0 if by_pipeline else options.guidance_rescale):
                images = pipeline(
                    [prompts[i] for i in chosen],
                    width=sampling.width_px,
                    height=sampling.height_px,
                    num_inference_steps=sampling.num_inference_steps,
                    generator=generators,
                    output_type="np",
                    callback_on_step_end=watch,
                    **named,
                ).images
            return (np.asarray(images) * 255).round().clip(0, 255).astype(np.uint8)

        return batch

    def _watcher(self, on_step: OnStep, start: int, num: int, sampling: Sampling) -> Any:
        factor = self._vae_factor
        size = sampling.width_px // factor, sampling.height_px // factor

        def watch(_: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            on_step(start, step, self.family.latents(kwargs["latents"], *size)[:num])
            return {}

        return watch

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Latents (B, C, H, W) as pictures: uint8 (B, height, width, 3)."""
        vae = self.pipeline.vae
        plain = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
        images = vae.decode(plain + (vae.config.shift_factor or 0.0), return_dict=False)[0]
        images = (images.float() / 2 + 0.5).clamp(0, 1)
        return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def load_model(
    folder: str | Path, borrow_from: str | Path | None = None, device: str | None = None
) -> SampleModel:
    """An exported model, or a diffusers folder that the pipeline of one of `FAMILIES` loads.

    Args:
        folder: with model_index.json; or a network's (or what holds one in `transformer` or `unet`), which then
            takes the rest from `borrow_from`.
        device: "cuda" where there is one, else "cpu", by default.
    Raises:
        ValueError: the folder is neither.
    """
    folder = Path(folder)
    if (folder / "model_index.json").is_file():
        pipeline = load_pipeline(folder)
    else:
        places = [folder, *(folder / family.part for family in FAMILIES.values())]
        if borrow_from is None or not any((place / "config.json").is_file() for place in places):
            raise ValueError(f"{folder} is no model to draw from: it has no model_index.json")
        pipeline = load_pipeline(borrow_from, transformer=folder)
    return SampleModel(pipeline.to(device or ("cuda" if torch.cuda.is_available() else "cpu")))
