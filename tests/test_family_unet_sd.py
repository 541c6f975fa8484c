"""Stable Diffusion 1.x and 2.x."""

# ruff: noqa: F811 (tests take the fixtures that are imported)

import pytest
import torch
from family_world import CLIP, LORA, FamilyCases, build, trained, world  # noqa: F401 (fixtures)

UNET = {
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "sample_size": 8,
}
TESTED = FamilyCases(
    encoders=[{"name": "plain", **CLIP}],
    cases={
        "unet-sd": ({"params": UNET}, "StableDiffusionPipeline"),
        "unet-sd-lora": (
            {"params": UNET, "lora": {**LORA, "targets": ["to_q", "to_v", "conv1"]}},
            "StableDiffusionPipeline",
        ),
        "unet-sd-lora-dora": (
            {
                "params": UNET,
                "lora": {
                    **LORA,
                    "method": "dora",
                    "targets": ["to_q", "conv1"],
                    "rank_pattern": {"attn1.to_q": 3},
                },
            },
            "StableDiffusionPipeline",
        ),
    },
    again=["gradient_checkpointing"],
)


@pytest.mark.parametrize("case", [case for case in TESTED.cases if "lora" in case])
def test_adapters_alone_are_trained_and_their_file_turns_the_base_model_into_the_trained_one(trained, case):
    import diffusers

    folder = trained(case).folder
    whole = diffusers.StableDiffusionPipeline.from_pretrained(folder / "model")
    base = diffusers.UNet2DConditionModel.from_pretrained(folder / "untrained" / "unet")
    state, merged = base.state_dict(), whole.unet.state_dict()
    changed = {name for name in state if not torch.equal(state[name], merged[name])}
    assert changed and all(name.endswith(("to_q.weight", "to_v.weight", "conv1.weight")) for name in changed)
    whole.unet = base
    whole.load_lora_weights(folder / "model")
    whole.fuse_lora()
    for name in sorted(changed):
        module, _, _ = name.rpartition(".")
        fused = whole.unet.get_submodule(module)
        torch.testing.assert_close(fused.base_layer.weight, merged[name], atol=1e-6, rtol=1e-4)


def test_parameters_that_contradict_the_cache_are_refused_by_key():
    with pytest.raises(ValueError, match=r"model\.params\.cross_attention_dim is 9, but the cache needs 16"):
        build("unet-sd", params={**UNET, "cross_attention_dim": 9})
    with pytest.raises(ValueError, match=r"model\.params: UNet2DConditionModel refuses them"):
        build("unet-sd", params={**UNET, "block_out_channels": [8]})
