"""The diffusers pipeline of a trained MMDiT: prompts in, pictures out.

This file imports torch, diffusers and transformers alone: it is copied into exported model folders as it is, so
that a script with diffusers and without darkroom draws the same pictures. What training needs of the same
mathematics (`encode_captions`, `pad_text`) is therefore here, and imported from here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer


class EncodedCaption(NamedTuple):
    """What conditions the model on one caption."""

    hidden: Tensor
    """(n, text_dim): penultimate hidden states of the n real tokens, beginning and end of text included."""
    pooled: Tensor
    """(pooled_dim,): the projected final state of the end-of-text token."""
    num_tokens_cut: int
    """Tokens of the caption beyond max_tokens, which are not seen."""


@torch.no_grad()
def encode_captions(
    text_encoder: CLIPTextModelWithProjection,
    tokenizer: CLIPTokenizer,
    captions: list[str],
    max_tokens: int = 77,
    batch_size: int = 32,
) -> list[EncodedCaption]:
    """Hidden states and pooled embedding of each caption, on the encoder's device; "" is the null caption.

    As in SD3 the hidden states are those before the last layer, and the encoder gets no attention mask: it is
    causal, so no real token sees the padding. Every forward pass has the same shape (batch_size, max_tokens), so
    that a caption's numbers do not depend on its neighbours.

    Raises:
        ValueError: when max_tokens is below 2 or above the encoder's positions.
    """
    num_positions = text_encoder.config.max_position_embeddings
    if not 2 <= max_tokens <= num_positions:
        raise ValueError(f"max_text_tokens {max_tokens}: the text encoder takes 2 to {num_positions} tokens")
    ids = tokenizer(captions, truncation=False, verbose=False)["input_ids"] if captions else []
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    rows = [row if len(row) <= max_tokens else [*row[: max_tokens - 1], row[-1]] for row in ids]
    device = text_encoder.device
    encoded = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        tokens = torch.full((batch_size, max_tokens), pad, dtype=torch.long)
        tokens[:, 0], tokens[:, 1] = tokenizer.bos_token_id, tokenizer.eos_token_id
        for k, row in enumerate(batch):
            tokens[k, : len(row)] = torch.tensor(row)
        output = text_encoder(tokens.to(device), output_hidden_states=True)
        for k, row in enumerate(batch):
            cut = len(ids[start + k]) - len(row)
            # Copies: a view would keep the whole batch's padding alive.
            hidden = output.hidden_states[-2][k, : len(row)].clone()
            encoded.append(EncodedCaption(hidden, output.text_embeds[k].clone(), cut))
    return encoded


def pad_text(hidden: list[Tensor], length: int | None = None) -> tuple[Tensor, Tensor]:
    """Ragged hidden states [(n_i, D)] -> (B, L, D) padded with zeros, and (B, L) True on real tokens.

    L is `length`, or the longest caption's tokens.
    """
    longest = max(len(h) for h in hidden)
    length = length or longest
    if longest > length:
        raise ValueError(f"a caption of {longest} tokens does not fit into {length}")
    text = hidden[0].new_zeros(len(hidden), length, hidden[0].shape[-1])
    for k, h in enumerate(hidden):
        text[k, : len(h)] = h
    num_tokens = torch.tensor([len(h) for h in hidden], device=text.device)
    return text, torch.arange(length, device=text.device) < num_tokens[:, None]


def rescale_guided(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Guided predictions (B, ...) with their spread drawn back to that of the conditional ones.

    share x (guided x std(conditional) / std(guided)) + (1 - share) x guided: Lin et al., arXiv 2305.08891, section
    3.4, which has 0.7. Without it strong guidance overexposes, above all with a zero terminal SNR.
    """
    axes = list(range(1, guided.ndim))
    factor = conditional.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return guided * (share * factor + 1 - share)


class DarkroomPipeline(DiffusionPipeline):
    """Text to image with an MMDiT.

    Args:
        transformer: the MMDiT: (latents, timestep in [0, 1], text, text_mask, pooled) -> prediction.
        vae: an AutoencoderKL; latents are (mean - shift_factor) * scaling_factor.
        text_encoder, tokenizer: a CLIP text tower with projection.
        scheduler: of diffusers, with what the model predicts; a flow scheduler's `shift` moves timesteps to noise.
        max_text_tokens: longer prompts are cut.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"  # type: ignore[assignment]
    transformer: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any

    def __init__(
        self,
        transformer: ModelMixin,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        scheduler: SchedulerMixin,
        max_text_tokens: int = 77,
    ):
        super().__init__()
        self.register_modules(
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
        )
        self.register_to_config(max_text_tokens=max_text_tokens)

    @property
    def vae_factor(self) -> int:
        """Pixels a latent pixel, per side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(C, H, W) of the latents of a width x height picture.

        Raises:
            ValueError: when a side is no multiple of vae_factor x patch_size; it names the nearest that is.
        """
        step = self.vae_factor * self.transformer.config.patch_size
        for name, value in (("width", width), ("height", height)):
            if value < step or value % step:
                near = max(step, round(value / step) * step)
                raise ValueError(
                    f"{name} {value} is no multiple of {step} pixels; {near} is the nearest that is"
                )
        return self.transformer.config.in_channels, height // self.vae_factor, width // self.vae_factor

    def encode(self, prompts: list[str]) -> list[EncodedCaption]:
        """Each prompt's conditioning; equal prompts are encoded once."""
        unique = list(dict.fromkeys(prompts))
        encoded = encode_captions(
            self.text_encoder, self.tokenizer, unique, self.config["max_text_tokens"], min(32, len(unique))
        )
        known = dict(zip(unique, encoded, strict=True))
        return [known[prompt] for prompt in prompts]

    @torch.no_grad()
    def denoise(
        self,
        latents: Tensor,
        conditional: list[EncodedCaption],
        unconditional: list[EncodedCaption] | None,
        num_inference_steps: int,
        guidance_scale: float,
        num_text_tokens: int | None = None,
        guidance_rescale: float = 0.0,
        on_step: Callable[[int, Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        """The scheduler's steps from noise (B, C, H, W) to latents.

        With `unconditional` the prediction is p_un + guidance_scale (p_con - p_un), both halves in one batch.
        num_text_tokens: length that the text is padded to; None is the longest.
        guidance_rescale: see `rescale_guided`.
        on_step: called with the number of a step, its timestep and the latents after it.
        """
        captions = conditional if unconditional is None else [*unconditional, *conditional]
        text, text_mask = pad_text([c.hidden for c in captions], num_text_tokens)
        pooled = torch.stack([c.pooled for c in captions])
        device, dtype = latents.device, self.transformer.dtype
        text, pooled = text.to(device, dtype), pooled.to(device, dtype)
        mask = None if bool(text_mask.all()) else text_mask.to(device)
        self._set_timesteps(num_inference_steps, device)
        latents = latents * getattr(self.scheduler, "init_noise_sigma", 1.0)
        for number, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            noisy = self._scaled(latents, timestep).to(dtype)
            noisy = noisy if unconditional is None else torch.cat([noisy, noisy])
            t = (timestep / self.scheduler.config.num_train_timesteps).expand(len(noisy))
            predicted = self.transformer(noisy, t, text, mask, pooled).float()
            if unconditional is not None:
                without, with_text = predicted.chunk(2)
                predicted = without + guidance_scale * (with_text - without)
                if guidance_rescale:
                    predicted = rescale_guided(predicted, with_text, guidance_rescale)
            latents = self.scheduler.step(predicted, timestep, latents, return_dict=False)[0]
            if on_step is not None:
                on_step(number, timestep, latents)
        return latents

    def _watched_by(self, callback: Callable[..., dict[str, Any]]) -> Callable[[int, Tensor, Tensor], None]:
        def on_step(number: int, timestep: Tensor, latents: Tensor) -> None:
            callback(self, number, timestep, {"latents": latents})

        return on_step

    def _set_timesteps(self, num_inference_steps: int, device: torch.device) -> None:
        if hasattr(self.scheduler, "init_noise_sigma"):  # a diffusion scheduler knows its own spacing
            self.scheduler.set_timesteps(num_inference_steps, device=device)
        else:
            # Uniform in t before the shift; without sigmas= the last step would stop short of t = 0.
            sigmas = np.linspace(1, 1 / num_inference_steps, num_inference_steps)
            self.scheduler.set_timesteps(sigmas=sigmas, device=device)

    def _scaled(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """What the model is shown: some schedulers keep x0 + sigma e and scale it for each step."""
        scale = getattr(self.scheduler, "scale_model_input", None)
        return latents if scale is None else scale(latents, timestep)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, H, W) -> float32 pictures (B, 3, height, width) in [0, 1]."""
        config = self.vae.config
        latents = latents.float() / config.scaling_factor + (config.shift_factor or 0.0)
        pictures = self.vae.decode(latents.to(self.vae.dtype), return_dict=False)[0]
        return (pictures.float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        negative_prompt: str = "",
        width: int = 512,
        height: int = 512,
        num_inference_steps: int = 28,
        guidance_scale: float = 5.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        guidance_rescale: float = 0.0,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
    ):
        """Draw one picture a prompt.

        Args:
            negative_prompt: what guidance moves away from; "" is the null caption that training saw.
            width, height: pixels; multiples of the VAE's factor x the patch size.
            guidance_scale: 1 is no guidance (and half the work).
            generator: of the initial noise; a list gives every picture its own, whatever the batch.
            guidance_rescale: share of guidance's overexposure that is taken back, see `rescale_guided`.
            callback_on_step_end: called as diffusers does, (pipeline, step, timestep, {"latents": ...}), to watch.
            output_type: "pil", "np" (B, height, width, 3 in [0, 1]) or "latent" (B, C, H, W).
        Returns:
            ImagePipelineOutput with `images`; a tuple when return_dict is False.
        Raises:
            ValueError: for a size that does not fit, or an unknown output_type.
        """
        if output_type not in ("pil", "np", "latent"):
            raise ValueError(f"output_type {output_type!r} is none of 'pil', 'np', 'latent'")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        shape = self.latent_shape(width, height)
        if isinstance(generator, list) and len(generator) != len(prompts):
            raise ValueError(
                f"{len(generator)} generators for {len(prompts)} prompts; one for each is needed"
            )
        encoded = self.encode([*prompts, negative_prompt])
        unconditional = None if guidance_scale == 1 else encoded[-1:] * len(prompts)
        device = self._execution_device
        latents = randn_tensor((len(prompts), *shape), generator, device, torch.float32)
        latents = self.denoise(
            latents,
            encoded[:-1],
            unconditional,
            num_inference_steps,
            guidance_scale,
            guidance_rescale=guidance_rescale,
            on_step=callback_on_step_end and self._watched_by(callback_on_step_end),
        )
        images: Any = latents
        if output_type != "latent":
            images = self.decode(latents).permute(0, 2, 3, 1).cpu().numpy()
        if output_type == "pil":
            images = [Image.fromarray(picture) for picture in (images * 255).round().astype("uint8")]
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)
