"""Small random models of every family that single files hold, as pipelines and as folders; with adapters too."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from test_components import write_tokenizer
from tiny_encoders import write_t5
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5EncoderModel,
    T5Tokenizer,
)

from darkroom.families.base import LoRA
from darkroom.families.table import family_of
from darkroom.formats.diffusers import export_pipeline
from darkroom.formats.lora import save_lora
from darkroom.models.denoiser import Denoiser
from darkroom.models.lora import add_lora, merged

UNET = {
    "sample_size": 8,
    "norm_num_groups": 4,
    "block_out_channels": (8, 8, 16, 16),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "attention_head_dim": 4,
}
V_PREDICTION = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
# As the published one: diffusers mixes up adapters of a tenth block of it with those of the first.
XL = UNET | {
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
# Of each network: every kind of layer that adapters go on, some of what is one layer in the original.
TARGETS = {
    "unet": ("to_q", "to_v", "to_out.0", "proj_in", "ff.net.2", "conv1", "conv_shortcut", "time_emb_proj"),
    "sd3": ("to_q", "to_v", "add_k_proj", "to_out.0", "ff.net.0.proj", "norm1_context.linear"),
    "flux": ("to_q", "to_k", "to_v", "add_k_proj", "add_q_proj", "add_v_proj", "to_add_out"),
    "mmdit": ("qkv", "attention_out", "mlp_in", "modulation"),
}


def clip(folder: Path, width: int, activation: str, projection: int | None = None):
    torch.manual_seed(width)
    tokenizer = CLIPTokenizer.from_pretrained(str(folder))
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, projection_dim=projection or 8, hidden_act=activation,
    )  # fmt: skip
    return (CLIPTextModel(config) if projection is None else CLIPTextModelWithProjection(config)), tokenizer


def vae(scaling_factor: float, shift_factor: float | None = None):
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(4, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3, latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 3, norm_num_groups=4, layers_per_block=1,
        scaling_factor=scaling_factor, shift_factor=shift_factor,
    )  # fmt: skip


def ddim(**options):
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        steps_offset=1,
        **options,
    )


def stable_diffusion(folder: Path, activation: str = "quick_gelu", **scheduler):
    text, tokenizer = clip(folder, 16, activation)
    is_second = activation == "gelu"
    torch.manual_seed(4)
    unet = UNet2DConditionModel(**UNET, cross_attention_dim=16, use_linear_projection=is_second)
    parts = (vae(0.18215), text, tokenizer, unet, ddim(**scheduler), None, None)
    return StableDiffusionPipeline(*parts, requires_safety_checker=False)


def sd2(folder: Path):
    return stable_diffusion(folder, "gelu", **V_PREDICTION)


def sdxl(folder: Path):
    first, tokenizer = clip(folder, 16, "quick_gelu")
    second, _ = clip(folder, 12, "gelu", 12)
    torch.manual_seed(5)
    unet = UNet2DConditionModel(
        **XL, cross_attention_dim=28, use_linear_projection=True, transformer_layers_per_block=(1, 2, 1),
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=36,
    )  # fmt: skip
    parts = (vae(0.13025), first, second, tokenizer, tokenizer, unet, ddim(**V_PREDICTION))
    return StableDiffusionXLPipeline(*parts, add_watermarker=False)


def sd3(folder: Path):
    first, tokenizer = clip(folder, 16, "quick_gelu", 16)
    second, _ = clip(folder, 12, "gelu", 12)
    with torch.no_grad():
        first.text_projection.weight.copy_(torch.eye(16))
    t5_folder = write_t5(folder / "t5", 32)
    t5, t5_tokenizer = T5EncoderModel.from_pretrained(t5_folder), T5Tokenizer.from_pretrained(t5_folder)
    torch.manual_seed(6)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=28,
        pos_embed_max_size=8, qk_norm="rms_norm", dual_attention_layers=(0, 1),
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    parts = (vae(1.5305, 0.0609), first, tokenizer, second, tokenizer, t5, t5_tokenizer)
    return StableDiffusion3Pipeline(transformer, scheduler, *parts)


def flux(folder: Path):
    text, tokenizer = clip(folder, 16, "quick_gelu")
    t5_folder = write_t5(folder / "t5", 32)
    t5, t5_tokenizer = T5EncoderModel.from_pretrained(t5_folder), T5Tokenizer.from_pretrained(t5_folder)
    torch.manual_seed(7)
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=16, guidance_embeds=True, axes_dims_rope=(4, 2, 2),
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return FluxPipeline(scheduler, vae(0.3611, 0.1159), text, tokenizer, t5, t5_tokenizer, transformer)


PIPELINES = {"sd1": stable_diffusion, "sd2": sd2, "sdxl": sdxl, "sd3": sd3, "flux": flux}


def pipeline_of(kind: str, folder: Path):
    """A pipeline of the family, whose tokenizer lies in a folder and reads 16 tokens."""
    write_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 16}))
    return PIPELINES[kind](folder)


def with_adapters(pipeline, folder: Path, rank: int = 2, alpha: float = 4.0, **options) -> None:
    """Export a pipeline as training does: as it was to base, and to tuned with trained-looking adapters merged."""
    family = family_of(pipeline)
    export_pipeline(pipeline, folder / "base")
    network = getattr(pipeline, family.part)
    targets = TARGETS.get(family.name, TARGETS["unet"])
    add_lora(network, LoRA(rank=rank, alpha=alpha, targets=targets, **options), seed=0)
    torch.manual_seed(8)
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if "lora_B" in name or "lokr_w2" in name:
                weights.normal_(std=0.1)
            if "magnitude" in name:
                weights.mul_(torch.rand_like(weights) + 0.5)
    pipeline.register_modules(**{family.part: merged(network)})
    export_pipeline(pipeline, folder / "tuned", lambda new: save_lora(Denoiser(family, network, None), new))
