"""The diffusers pipeline of a trained MMDiT: prompts in, pictures out.

This file imports torch, diffusers and transformers alone: it is copied into exported model folders as it is, so
that a script with diffusers and without darkroom draws the same pictures. What training needs of the same
mathematics (`encode_captions`, `pad_text`) is therefore here, and imported from here.
"""

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

# diffusers 0.33, which checks what it loads by a pipeline's signature, knows no other form of what may be None.
_Encoder = Optional[PreTrainedModel]  # noqa: UP045
_Tokenizer = Optional[PreTrainedTokenizerBase]  # noqa: UP045


class EncodedCaption(NamedTuple):
    """What conditions the model on one caption."""

    hidden: Tensor
    """(n, text_dim): penultimate hidden states of the n real tokens, beginning and end of text included."""
    pooled: Tensor
    """(pooled_dim,): the projected final state of the end-of-text token."""
    num_tokens_cut: int
    """Tokens of the caption beyond max_tokens, which are not seen."""


EncodedPrompt = tuple[EncodedCaption, ...]  # of each text encoder


@torch.no_grad()
def encode_captions(
    text_encoder: Any,
    tokenizer: Any,
    captions: list[str],
    max_tokens: int = 77,
    batch_size: int = 32,
    hidden_layer: int = -2,
    padded: bool = False,
    pooled: bool = True,
) -> list[EncodedCaption]:
    """Hidden states and pooled embedding of each caption, on the encoder's device; "" is the null caption.

    hidden_layer: -1 is the encoder's output, -2 the states before its last layer, as SD3 and SDXL read CLIPs.
    padded: read the padding as if it were text and keep its states, as SD, SDXL and SD3 do; otherwise no real
    token sees it and it is left out. Every forward pass has the same shape (batch_size, max_tokens), so that a
    caption's numbers do not depend on its neighbours.

    Raises:
        ValueError: when max_tokens is below 2 or above the encoder's positions, or it has no pooled embedding.
    """
    config = text_encoder.config
    num_positions = getattr(config, "max_position_embeddings", max_tokens)
    if not 2 <= max_tokens <= num_positions:
        raise ValueError(f"max_text_tokens {max_tokens}: the text encoder takes 2 to {num_positions} tokens")
    ids = tokenizer(captions, truncation=False, verbose=False)["input_ids"] if captions else []
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    special = set(tokenizer.all_special_ids)
    rows = [row if len(row) <= max_tokens else _cut(row, max_tokens, special) for row in ids]
    rows = [row or [pad] for row in rows]
    # CLIP is causal, and its end-of-text token finds the pooled state: it gets no mask, as in diffusers.
    is_masked = not padded and not config.model_type.startswith("clip")
    device = text_encoder.device
    encoded = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        batch = [*batch, *[batch[-1]] * (batch_size - len(batch))]
        tokens = torch.full((batch_size, max_tokens), pad, dtype=torch.long)
        mask = torch.zeros(batch_size, max_tokens, dtype=torch.long)
        for k, row in enumerate(batch):
            tokens[k, : len(row)] = torch.tensor(row)
            mask[k, : len(row)] = 1
        masks = {"attention_mask": mask.to(device)} if is_masked else {}
        output = text_encoder(tokens.to(device), output_hidden_states=True, **masks)
        states = output.last_hidden_state if hidden_layer == -1 else output.hidden_states[hidden_layer]
        vectors = _pooled(output, config) if pooled else states.new_zeros(batch_size, 0)
        for k, row in enumerate(batch[: len(rows) - start]):
            cut = len(ids[start + k]) - len(row)
            # Copies: a view would keep the whole batch's padding alive.
            hidden = states[k, : max_tokens if padded else len(row)].clone()
            encoded.append(EncodedCaption(hidden, vectors[k].clone(), cut))
    return encoded


def _cut(row: list[int], max_tokens: int, special: set[int]) -> list[int]:
    """The first tokens of a row that is too long; one that ends with an end-of-text token still does."""
    return [*row[: max_tokens - 1], row[-1]] if row[-1] in special else row[:max_tokens]


def _pooled(output: Any, config: Any) -> Tensor:
    found = getattr(output, "text_embeds", None)
    found = getattr(output, "pooler_output", None) if found is None else found
    if found is None:
        raise ValueError(f"a {config.model_type} has no pooled embedding: write pooled: false for it")
    return found


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


def _one_each(
    prompt: str | list[str], negative_prompt: str | list[str], num_images_per_prompt: int
) -> tuple[list[str], list[str]]:
    """The prompt and the negative prompt of each picture."""
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    one = isinstance(negative_prompt, str)
    negatives = [str(negative_prompt)] * len(prompts) if one else list(negative_prompt)
    if len(negatives) != len(prompts):
        raise ValueError(f"{len(negatives)} negative prompts for {len(prompts)} prompts; give one for each")
    times = range(num_images_per_prompt)
    return [text for text in prompts for _ in times], [text for text in negatives for _ in times]


class DarkroomPipeline(DiffusionPipeline):
    """Text to image with an MMDiT.

    Args:
        transformer: the MMDiT: (latents, timestep in [0, 1], text, text_mask, pooled) -> prediction.
        vae: an AutoencoderKL; latents are (mean - shift_factor) * scaling_factor.
        text_encoder, tokenizer: a CLIP text tower with projection; or the first of up to four text encoders.
        scheduler: of diffusers, with what the model predicts; a flow scheduler's `shift` moves timesteps to noise.
        max_text_tokens: longer prompts are cut.
        encoder_options: how each of several encoders is read: hidden_layer, max_tokens, padded and pooled of
            `encode_captions`, and whether the empty prompt's states are zeros.
    """

    _optional_components = [f"{part}_{i}" for i in (2, 3, 4) for part in ("text_encoder", "tokenizer")]
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
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
        max_text_tokens: int = 77,
        text_encoder_2: _Encoder = None,
        tokenizer_2: _Tokenizer = None,
        text_encoder_3: _Encoder = None,
        tokenizer_3: _Tokenizer = None,
        text_encoder_4: _Encoder = None,
        tokenizer_4: _Tokenizer = None,
        encoder_options: Optional[list[list[Any]]] = None,  # noqa: UP045
    ):
        super().__init__()
        self.register_modules(
            transformer=transformer, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler,
            text_encoder_2=text_encoder_2, tokenizer_2=tokenizer_2, text_encoder_3=text_encoder_3,
            tokenizer_3=tokenizer_3, text_encoder_4=text_encoder_4, tokenizer_4=tokenizer_4,
        )  # fmt: skip
        self.register_to_config(max_text_tokens=max_text_tokens, encoder_options=encoder_options)

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

    def encode(self, prompts: list[str]) -> list[EncodedPrompt]:
        """Each prompt's conditioning, of every encoder; equal prompts are encoded once."""
        unique = list(dict.fromkeys(prompts))
        found = []
        single = [-2, self.config["max_text_tokens"], False, True, False]
        for i, (hidden_layer, max_tokens, padded, pooled, zero_null) in enumerate(
            self.config["encoder_options"] or [single]
        ):
            ending = f"_{i + 1}" if i else ""
            encoder, tokenizer = getattr(self, f"text_encoder{ending}"), getattr(self, f"tokenizer{ending}")
            encoded = encode_captions(
                encoder, tokenizer, unique, max_tokens, min(32, len(unique)), hidden_layer, padded, pooled
            )
            if zero_null:
                zeros = [EncodedCaption(e.hidden * 0, e.pooled * 0, 0) for e in encoded]
                encoded = [z if not text else e for text, e, z in zip(unique, encoded, zeros, strict=True)]
            found.append(encoded)
        known = dict(zip(unique, zip(*found, strict=True), strict=True))
        return [known[prompt] for prompt in prompts]

    def condition(
        self, captions: list[EncodedPrompt], num_text_tokens: list[int] | None, device: torch.device
    ) -> tuple[list[Tensor], list[Tensor | None], Tensor]:
        """Each encoder's text (B, L, D) and mask (B, L), and the pooled embeddings (B, P) of all."""
        texts: list[Tensor] = []
        masks: list[Tensor | None] = []
        for i, of_encoder in enumerate(zip(*captions, strict=True)):
            length = None if num_text_tokens is None else num_text_tokens[i]
            text, mask = pad_text([caption.hidden for caption in of_encoder], length)
            texts.append(text.to(device, self.transformer.dtype))
            masks.append(None if bool(mask.all()) else mask.to(device))
        pooled = torch.stack([torch.cat([encoded.pooled for encoded in caption]) for caption in captions])
        return texts, masks, pooled.to(device, self.transformer.dtype)

    @torch.no_grad()
    def denoise(
        self,
        latents: Tensor,
        conditional: list[EncodedPrompt],
        unconditional: list[EncodedPrompt] | None,
        num_inference_steps: int,
        guidance_scale: float,
        num_text_tokens: list[int] | None = None,
        guidance_rescale: float = 0.0,
        on_step: Callable[[int, Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        """The scheduler's steps from noise (B, C, H, W) to latents.

        With `unconditional` the prediction is p_un + guidance_scale (p_con - p_un), both halves in one batch.
        num_text_tokens: length that each encoder's text is padded to; None is the longest.
        guidance_rescale: see `rescale_guided`.
        on_step: called with the number of a step, its timestep and the latents after it.
        """
        captions = conditional if unconditional is None else [*unconditional, *conditional]
        device, dtype = latents.device, self.transformer.dtype
        text, mask, pooled = self.condition(captions, num_text_tokens, device)
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

    def _noise(self, shape: tuple[int, ...], generator: Any, given: Tensor | None) -> Tensor:
        """What pictures with latents of `shape` begin from."""
        if isinstance(generator, list) and len(generator) != shape[0]:
            raise ValueError(f"{len(generator)} generators for {shape[0]} pictures; one for each is needed")
        if given is not None and given.shape != shape:
            raise ValueError(f"latents are {tuple(given.shape)}; these pictures begin from {shape}")
        device = self._execution_device
        noise = randn_tensor(shape, generator, device, torch.float32) if given is None else given
        return noise.to(device, torch.float32)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, H, W) -> float32 pictures (B, 3, height, width) in [0, 1]."""
        config = self.vae.config
        latents = latents.float() / config.scaling_factor + (config.shift_factor or 0.0)
        pictures = self.vae.decode(latents.to(self.vae.dtype), return_dict=False)[0]
        return (pictures.float() / 2 + 0.5).clamp(0, 1)

    def load_lora_weights(self, folder: Any, **options: Any) -> None:
        """Add the file of adapters that an exported folder has; options are those of `load_lora_adapter`."""
        named = {"weight_name": "pytorch_lora_weights.safetensors", "prefix": "transformer", **options}
        self.transformer.load_lora_adapter(folder, **named)

    def save_pretrained(self, save_directory: Any, *arguments: Any, **options: Any) -> Any:
        """As diffusers does, and with the code that loads it again, which diffusers leaves out."""
        super().save_pretrained(save_directory, *arguments, **options)
        folder = Path(save_directory)
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        for name, part in {"": self, "transformer": self.transformer}.items():
            code = Path(inspect.getfile(type(part)))
            file = f"{name}/{code.name}" if name else "pipeline.py"
            shutil.copyfile(code, folder / file)
            index[name or "_class_name"] = [Path(file).stem, type(part).__name__]
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] = "",
        width: int = 512,
        height: int = 512,
        num_inference_steps: int = 28,
        guidance_scale: float = 5.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        guidance_rescale: float = 0.0,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        num_images_per_prompt: int = 1,
        latents: Tensor | None = None,
    ):
        """Draw pictures of prompts, those of one prompt one after another.

        Args:
            negative_prompt: what guidance moves away from, one for all prompts or one for each; "" is the null
                caption that training saw.
            width, height: pixels; multiples of the VAE's factor x the patch size.
            guidance_scale: 1 is no guidance (and half the work).
            generator: of the initial noise; a list gives every picture its own, whatever the batch.
            latents: the initial noise (B, C, H, W) itself, N(0, 1), for all pictures.
            guidance_rescale: share of guidance's overexposure that is taken back, see `rescale_guided`.
            callback_on_step_end: called as diffusers does, (pipeline, step, timestep, {"latents": ...}), to watch.
            output_type: "pil", "np" (B, height, width, 3 in [0, 1]) or "latent" (B, C, H, W).
        Returns:
            ImagePipelineOutput with `images`; a tuple when return_dict is False.
        Raises:
            ValueError: for a size that does not fit, an unknown output_type, or numbers of negative prompts,
                generators or latents that are not those of the prompts or pictures.
        """
        if output_type not in ("pil", "np", "latent"):
            raise ValueError(f"output_type {output_type!r} is none of 'pil', 'np', 'latent'")
        prompts, negatives = _one_each(prompt, negative_prompt, num_images_per_prompt)
        noise = self._noise((len(prompts), *self.latent_shape(width, height)), generator, latents)
        encoded = self.encode([*prompts, *negatives])
        latents = self.denoise(
            noise,
            encoded[: len(prompts)],
            None if guidance_scale == 1 else encoded[len(prompts) :],
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
