"""Original layouts at the published sizes, on torch's meta device: names as in the published files."""

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import infer_diffusers_model_type
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from darkroom.formats.original.places import rearranged
from darkroom.formats.original.text import open_clip_places
from darkroom.formats.original.transformers import flux_places, sd3_places
from darkroom.formats.original.unet import unet_places
from darkroom.formats.original.vae import vae_places

XL = {
    "cross_attention_dim": 2048,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "transformer_layers_per_block": (1, 2, 10),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
V2 = {"cross_attention_dim": 1024, "use_linear_projection": True, "attention_head_dim": (5, 10, 20, 20)}
SD3 = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192}


@pytest.mark.parametrize(
    ("cls", "config", "places", "num", "known_as"),
    [
        (UNet2DConditionModel, {"cross_attention_dim": 768}, unet_places, 686, "v1"),
        (UNet2DConditionModel, V2, unet_places, 686, "v2"),
        (UNet2DConditionModel, XL, unet_places, 1680, "xl_base"),
        (SD3Transformer2DModel, SD3, sd3_places, 491, "sd3"),
        (FluxTransformer2DModel, {"guidance_embeds": True}, flux_places, 780, "flux-dev"),
    ],
)
def test_a_network_has_the_published_files_number_of_tensors_and_is_known_by_them(
    cls, config, places, num, known_as
):
    with torch.device("meta"):
        network = cls(**config)
    state = rearranged(network.state_dict(), places(network.config))
    assert len(state) == num
    state = {f"model.diffusion_model.{name}": tensor for name, tensor in state.items()}
    if known_as == "xl_base":
        state |= {f"conditioner.embedders.1.model.{name}": t for name, t in open_clip_g().items()}
    assert infer_diffusers_model_type(state) == known_as


def open_clip_g() -> dict[str, torch.Tensor]:
    config = CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
        projection_dim=1280, hidden_act="gelu",
    )  # fmt: skip
    with torch.device("meta"):
        model = CLIPTextModelWithProjection(config)
    return rearranged(model.state_dict(), open_clip_places({}))


def test_openclips_text_tower_has_twelve_tensors_a_layer_and_five_others():
    assert len(open_clip_g()) == 32 * 12 + 5


def test_the_autoencoder_has_the_published_files_number_of_tensors():
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2,
        )  # fmt: skip
    assert len(rearranged(vae.state_dict(), vae_places(vae.config))) == 248


def test_a_tensor_that_a_layout_has_no_name_for_is_named():
    config = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    unet = unet_places(config | {"mid_block_type": "UNetMidBlock2DCrossAttn"})
    networks = [
        unet,
        vae_places(config),
        sd3_places({"num_layers": 1}),
        flux_places({}),
        open_clip_places({}),
    ]
    for place_of in networks:
        for name in (
            "encoder_hid_proj.weight",
            "transformer_blocks.0.attn.magic.weight",
            "up_blocks.0.x.0.y",
        ):
            with pytest.raises(ValueError, match=f"the original layout of .* has no name for {name}"):
                place_of(name)
