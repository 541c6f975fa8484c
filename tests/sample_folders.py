"""Model folders that tests draw from: of our own family, of Stable Diffusion and of SD3, with random weights."""

from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from test_components import CONTEXT, write_clip, write_vae
from test_sample_pipeline import build
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from darkroom.config.run import Sampling
from darkroom.formats.diffusers import export_pipeline
from darkroom.sample.options import DrawOptions

FEW = Sampling(num_inference_steps=3, guidance_scale=3.0, width_px=32, height_px=16)
PLAIN = DrawOptions(FEW, dtype="float32")


def text_tower(folder: Path, kind, positions: int = CONTEXT):
    write_clip(folder)
    tokenizer = CLIPTokenizer.from_pretrained(str(folder), model_max_length=positions)
    torch.manual_seed(3)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, projection_dim=16,
        num_attention_heads=2, max_position_embeddings=positions, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return kind(config).eval(), tokenizer


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    return export_pipeline(build(folder / "parts"), folder / "model")


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sd")
    # As many as the published one has, which a run may ask for.
    text, tokenizer = text_tower(folder / "text", CLIPTextModel, 77)
    torch.manual_seed(4)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL.from_pretrained(write_vae(folder / "vae", shift=None))
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
        rescale_betas_zero_snr=True, clip_sample=False, steps_offset=1,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def stable_diffusion_3(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sd3")
    text, tokenizer = text_tower(folder / "text", CLIPTextModelWithProjection)
    torch.manual_seed(5)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=32, out_channels=4,
    )  # fmt: skip
    vae = AutoencoderKL.from_pretrained(write_vae(folder / "vae"))
    pipeline = StableDiffusion3Pipeline(
        transformer,
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae,
        text,
        tokenizer,
        text,
        tokenizer,
        None,
        None,
    )
    pipeline.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(params=["ours", "stable_diffusion", "stable_diffusion_3"])
def any_model(request) -> Path:
    return request.getfixturevalue(request.param)


def fitting(folder: Path) -> list[str | None]:
    flow = "FlowMatch" in (folder / "scheduler/scheduler_config.json").read_text()
    return [None, "euler", "heun", "dpm++", "euler-stochastic" if flow else "ddim"]
