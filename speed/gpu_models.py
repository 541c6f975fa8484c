"""The networks and encoders that `speed/gpu.py` measures: real architectures, and small ones for a CPU."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
UP_CROSS, UP_PLAIN = "CrossAttnUpBlock2D", "UpBlock2D"
# As the published model folders' own config.json say; what follows from latents and texts is left out.
SD2 = {
    "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "attention_head_dim": [5, 10, 20, 20],
    "down_block_types": [CROSS, CROSS, CROSS, PLAIN], "up_block_types": [UP_PLAIN, UP_CROSS, UP_CROSS, UP_CROSS],
    "use_linear_projection": True, "sample_size": 64,
}  # fmt: skip
SDXL = {
    "block_out_channels": [320, 640, 1280], "layers_per_block": 2, "attention_head_dim": [5, 10, 20],
    "down_block_types": [PLAIN, CROSS, CROSS], "up_block_types": [UP_CROSS, UP_CROSS, UP_PLAIN],
    "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True, "addition_time_embed_dim": 256,
    "sample_size": 128,
}  # fmt: skip
SD3 = {
    "num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64, "sample_size": 128,
    "pos_embed_max_size": 192,
}  # fmt: skip
MMDIT = {
    "num_blocks": 19, "num_heads": 19, "head_dim": 64, "mlp": "swiglu", "positions": "rope", "text_scale": 0.01,
    "learned_time_scale": True,
}  # fmt: skip
FLUX = {"guidance_embeds": True}  # and all else as diffusers has it
TINY_UNET = {
    "block_out_channels": [8, 16], "layers_per_block": 1, "attention_head_dim": 4, "norm_num_groups": 4,
    "down_block_types": [CROSS, PLAIN], "up_block_types": [UP_PLAIN, UP_CROSS], "sample_size": 8,
}  # fmt: skip
TINY_SD3 = {
    "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8, "sample_size": 8, "pos_embed_max_size": 16,
}  # fmt: skip
TINY_FLUX = {
    "num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8,
    "axes_dims_rope": [2, 2, 4], "guidance_embeds": True,
}  # fmt: skip
DIFFUSION = {"prediction": "v", "schedule": "scaled_linear", "zero_terminal_snr": True}
AGAIN = {"gradient_checkpointing": True}
LORA = {"lora": {"rank": 16, "alpha": 16, "targets": ["to_q", "to_k", "to_v", "to_out.0"]}}


@dataclass(frozen=True)
class Network:
    """A training's network and what it is shown.

    section, tiny: its `model` section, and that of a small one.
    side: of a picture, in pixels. channels: of its latents, an eighth of that side.
    text: (tokens, channels) of each text encoder; pooled: channels of all their pooled embeddings.
    batch: pictures a step.
    """

    family: str
    section: Mapping[str, Any]
    tiny: Mapping[str, Any]
    side: int
    channels: int
    text: tuple[tuple[int, int], ...]
    pooled: int
    batch: int
    objective: Mapping[str, Any] = field(default_factory=dict)


_SD3_TEXT, _FLUX_TEXT = ((77, 768), (77, 1280), (256, 4096)), ((77, 768), (512, 4096))
_OURS = {**MMDIT, "checkpoint_mlp": True}
_TINY_OURS = {"num_blocks": 2, "num_heads": 2, "head_dim": 8, "positions": "rope"}
_SD2 = ("unet-sd", {"params": SD2}, {"params": TINY_UNET})
_SD3 = ("sd3", {"params": SD3, **AGAIN}, {"params": TINY_SD3})
NETWORKS = {
    "SD2 256": Network(*_SD2, 256, 4, ((77, 1024),), 0, 64, DIFFUSION),
    "SD2 512": Network(*_SD2, 512, 4, ((77, 1024),), 0, 16, DIFFUSION),
    "SDXL 1024": Network(
        "unet-sdxl",
        {"params": SDXL, **AGAIN},
        {"params": {**TINY_UNET, "addition_time_embed_dim": 4}},
        *(1024, 4, ((77, 768), (77, 1280)), 1280, 8, DIFFUSION),
    ),
    "SD3-M 512": Network(*_SD3, 512, 16, _SD3_TEXT, 2048, 32),
    "SD3-M 1024": Network(*_SD3, 1024, 16, _SD3_TEXT, 2048, 8),
    "MMDiT 1.2B 256": Network(
        "mmdit", _OURS, _TINY_OURS, 256, 16, ((77, 2304), (77, 1024), (77, 768)), 512, 64
    ),
    "Flux LoRA 1024": Network(
        "flux",
        {"params": FLUX, "guidance": 1.0, **AGAIN, **LORA},
        {"params": TINY_FLUX, **LORA},
        *(1024, 16, _FLUX_TEXT, 768, 4),
    ),
}

# Of diffusers' AutoencoderKL: as in SD and SDXL, and with the 16 channels of SD3 and Flux.
VAE = {
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "sample_size": 512,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
TINY_VAE = {**VAE, "block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4}
VAES = {
    "VAE, 4 channels": {"latent_channels": 4},
    "VAE, 16 channels": {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
}

# Class of configuration in transformers, its values, and tokens a caption.
TEXT_ENCODERS: Mapping[str, tuple[str, Mapping[str, Any], int]] = {
    "CLIP-L": (
        "CLIPTextConfig",
        {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
         "projection_dim": 768},
        77,
    ),
    "OpenCLIP-bigG": (
        "CLIPTextConfig",
        {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
         "projection_dim": 1280},
        77,
    ),
    "T5-XXL": (
        "T5Config",
        {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64,
         "feed_forward_proj": "gated-gelu"},
        256,
    ),
}  # fmt: skip
TINY_TEXT = {
    "CLIPTextConfig": {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    },
    "T5Config": {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 2},
}  # fmt: skip
