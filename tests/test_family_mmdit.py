"""darkroom's own transformer."""

import copy

import torch
import torch.nn.functional as F
from family_world import CLIP_TOKENS, LORA, FamilyCases
from test_models_mmdit import awake, inputs
from test_sample_pipeline import build

from darkroom.families.attention import Packed
from darkroom.families.base import LoRA
from darkroom.families.table import FAMILIES
from darkroom.formats.lora import save_lora
from darkroom.models.denoiser import Denoiser
from darkroom.models.lora import add_lora, merged

MMDIT = {"num_blocks": 2, "num_heads": 2, "head_dim": 8, "mlp": "swiglu", "text_scale": 0.01,
         "learned_time_scale": True, "checkpoint_attention": True, "checkpoint_mlp": True}  # fmt: skip
TESTED = FamilyCases(
    encoders=[
        {"name": "gemma", "max_tokens": 20},
        {"name": "modernbert", "max_tokens": 20},
        {"name": "clip-g", "hidden_layer": -2, "max_tokens": CLIP_TOKENS, "pooled": True},
    ],
    cases={
        "mmdit": (MMDIT, "DiffusionPipeline"),
        "mmdit-lora": ({**MMDIT, "lora": {**LORA, "targets": ["qkv", "mlp_gate"]}}, "DiffusionPipeline"),
    },
    again=["checkpoint_attention", "checkpoint_mlp"],
)


class ByHand(Packed):
    """The operator replaced by one attention a sample: what is left is how tokens are packed."""

    def _packed(self, query, key, value, query_lengths):
        parts = zip(
            query.split(query_lengths), key.split(self._lengths), value.split(self._lengths), strict=True
        )
        out = [F.scaled_dot_product_attention(*(t.transpose(0, 1)[None] for t in part)) for part in parts]
        return torch.cat([o[0].transpose(0, 1) for o in out])


def test_packed_tokens_attend_as_padded_ones_do():
    model = awake()
    latents, timestep, text, mask, pooled = inputs()
    mask[0, 3:], mask[1, 2:] = False, False
    expected = model(latents, timestep, text, mask, pooled)
    expected.square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for block in model.blocks:
        block.attend = ByHand("flash")
    found = model(latents, timestep, text, mask, pooled)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    found.square().mean().backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], atol=1e-5, rtol=1e-3)


def test_load_lora_weights_adds_the_file_of_adapters_to_the_base_model_and_has_the_tuned_one(tmp_path):
    pipeline = build(tmp_path / "parts")
    tuned = copy.deepcopy(pipeline.transformer)
    add_lora(tuned, LoRA(rank=2, alpha=4.0, targets=("qkv", "mlp_in")), 0)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:  # as after steps that taught it something
                weight.normal_(generator=torch.Generator().manual_seed(1))
    save_lora(Denoiser(FAMILIES["mmdit"], tuned, None), tmp_path)
    before, expected = copy.deepcopy(pipeline.transformer).state_dict(), merged(tuned).state_dict()
    pipeline.load_lora_weights(tmp_path)
    pipeline.transformer.fuse_lora()
    found = {name.replace(".base_layer", ""): w for name, w in pipeline.transformer.state_dict().items()}
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-6, rtol=1e-4)
    assert any(not torch.equal(weight, before[name]) for name, weight in expected.items())
