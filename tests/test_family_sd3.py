"""Stable Diffusion 3, also with its trained extension for longer prompts."""

# ruff: noqa: F811 (tests take the fixtures that are imported)

import numpy as np
import pytest
import torch
from family_world import (  # noqa: F401 (fixtures)
    CLIP,
    LORA,
    FamilyCases,
    build,
    cached,
    settings_of,
    trained,
    world,
)
from test_sample_pipeline import draw

from darkroom.config.model import read_model
from darkroom.config.run import Sampling
from darkroom.families.base import LoRA
from darkroom.formats.diffusers import load_pipeline
from darkroom.models.families import build_denoiser, check_size
from darkroom.models.lora import add_lora
from darkroom.train.data import LatentCache
from darkroom.train.loader import BatchMaker
from darkroom.train.plan import BatchPlan

SD3 = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "pos_embed_max_size": 16,
    "sample_size": 8,
}
CONTEXT = {"num_base_tokens": 8, "hidden_dim": 12}
TESTED = FamilyCases(
    encoders=[
        {"name": "clip-l", "hidden_layer": -2, "pooled": True, **CLIP},
        {"name": "clip-g", "hidden_layer": -2, "pooled": True, **CLIP},
        {"name": "t5", "max_tokens": 24, "padded": True},
    ],
    cases={
        "sd3": ({"params": SD3}, "StableDiffusion3Pipeline"),
        "sd3-lora": (
            {"params": SD3, "lora": {**LORA, "targets": ["to_q", "add_k_proj"]}},
            "StableDiffusion3Pipeline",
        ),
        "sd3-context": ({"params": SD3, "context": CONTEXT}, "DiffusionPipeline"),
    },
    again=["gradient_checkpointing"],
    call={"sd3": {"max_sequence_length": 24}, "sd3-lora": {"max_sequence_length": 24}},
)


def test_step_0_with_the_residual_extension_equals_the_base_model_bit_for_bit(world):
    inputs, _ = cached(world, "sd3")
    cache = LatentCache(*inputs)
    base = read_model({"family": "sd3", "params": SD3})
    longer = read_model({"family": "sd3", "params": SD3, "context": CONTEXT})
    published = read_model(
        {"family": "sd3", "params": SD3, "context": {"form": "mlp", "num_base_tokens": 8, "hidden_dim": 12}}
    )
    settings = settings_of("sd3", encoder_dropout=[])
    batch = BatchMaker(cache, BatchPlan(0, 4, cache.uids), settings, 0).make(0)
    timestep = torch.tensor([0.1, 0.4, 0.6, 0.9])
    outputs = [
        build_denoiser(model, cache.sizes, seed=0)(batch.noise, timestep, batch.conditioning)
        for model in (base, longer, published)
    ]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])  # the published form does not leave the base as it was


def test_the_extension_is_trained_kept_exported_and_used_in_drawing(trained):
    folder = trained("sd3-context").folder
    start, end = (
        load_pipeline(folder / "model", transformer=folder / "untrained"),
        load_pipeline(folder / "model"),
    )
    assert (start.context.mlp_out.weight == 0).all() and (end.context.mlp_out.weight != 0).any()
    sampling = Sampling(num_inference_steps=2, guidance_scale=2.0, width_px=32, height_px=32)
    short, long = "red circle", "a photo of a red circle and the green star and the blue square"
    with torch.no_grad():
        end.context.mlp_out.weight *= 1e3  # three steps move little
    bent = draw(end, [short, long], [1, 1], sampling, dtype="float32")
    with torch.no_grad():
        end.context.mlp_out.weight.zero_()
        end.context.mlp_out.bias.zero_()
    plain = draw(end, [short, long], [1, 1], sampling, dtype="float32")
    assert not np.array_equal(bent[1], plain[1])


def test_with_the_extension_what_diffusers_saves_again_loads_and_draws_the_same(trained, tmp_path):
    pipeline = load_pipeline(trained("sd3-context").folder / "model")
    pipeline.save_pretrained(tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").rglob("*.py")} == {"pipeline.py", "context.py"}
    sampling = Sampling(num_inference_steps=2, guidance_scale=2.0, width_px=32, height_px=32)
    drawn = [draw(p, ["red"], [1], sampling) for p in (pipeline, load_pipeline(tmp_path / "again"))]
    assert np.array_equal(*drawn)


def test_a_target_that_this_very_model_lacks_is_refused_with_the_nearest():
    network = build("sd3", params={**SD3, "num_layers": 1}).network  # its only block has no text output
    with pytest.raises(ValueError, match=r"model\.lora\.targets: the model has no layer 'to_add_out'"):
        add_lora(network, LoRA(targets=("to_add_out",)), seed=0)
    with pytest.raises(ValueError, match="no layer 'ad_q_proj'; did you mean 'add_q_proj'"):
        add_lora(network, LoRA(targets=("ad_q_proj",)), seed=0)


def test_latents_beyond_sd3s_table_of_positions_are_refused_by_bucket():
    denoiser = build("sd3", params={**SD3, "pos_embed_max_size": 4})
    check_size(denoiser, (4, 8, 8), "bucket 64x64")
    with pytest.raises(ValueError, match=r"pos_embed_max_size 4 is too small for the 10x8 latents of bucket"):
        check_size(denoiser, (4, 10, 8), "bucket 64x80")
