"""Attention operators, adapters and the VAE's shift: parts that every family shares."""

import copy

import pytest
import torch
import torch.nn.functional as F
from test_components import write_vae
from test_families import CASES, SD3, UNET
from test_models_mmdit import awake, inputs
from tiny_encoders import component

from darkroom.config.model import LORA_TARGETS, LoRA, read_model
from darkroom.models.attention import Packed, use_attention
from darkroom.models.components import decode_latents, encode_latents, load_vae
from darkroom.models.families import build_denoiser, check_size
from darkroom.models.lora import add_lora, merged
from darkroom.sample.families import without_shift

SIZES = {"latent_channels": 4, "text_dim": (16, 12, 32), "pooled_dim": 20}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="flash and xformers run on a GPU")


def build(family, **section):
    sizes = dict(SIZES)
    if family == "unet-sd":
        sizes["text_dim"] = 16
    return build_denoiser(read_model({"family": family, **section}), sizes, seed=0).network


NETWORKS = {
    "mmdit": {"num_blocks": 2, "num_heads": 1, "head_dim": 8, "mlp": "swiglu"},
    "unet-sd": {"params": UNET},
    "unet-sdxl": {"params": {**UNET, "addition_time_embed_dim": 4}},
    "sd3": {"params": SD3},
}


@pytest.mark.parametrize("family", NETWORKS)
def test_every_named_lora_target_is_a_layer_of_the_family(family):
    for target in LORA_TARGETS[family]:
        network = build(family, **NETWORKS[family])
        add_lora(network, LoRA(rank=1, alpha=1, targets=(target,)), seed=0)
        adapted = {name for name, p in network.named_parameters() if p.requires_grad}
        assert adapted and all("lora" in name and f"{target}." in name for name in adapted)


def test_a_target_that_this_very_model_lacks_is_refused_with_the_nearest():
    network = build("sd3", params={**SD3, "num_layers": 1})  # its only block has no text output
    with pytest.raises(ValueError, match=r"model\.lora\.targets: the model has no layer 'to_add_out'"):
        add_lora(network, LoRA(targets=("to_add_out",)), seed=0)
    with pytest.raises(ValueError, match="no layer 'ad_q_proj'; did you mean 'add_q_proj'"):
        add_lora(network, LoRA(targets=("ad_q_proj",)), seed=0)


def test_fresh_adapters_change_nothing_and_merged_ones_compute_the_same():
    network = awake()
    plain = copy.deepcopy(network)
    add_lora(network, LoRA(rank=2, alpha=3.5, targets=("qkv", "mlp_in")), seed=0)
    assert torch.equal(network(*inputs()), plain(*inputs()))
    for name, weight in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    folded = merged(network)
    assert folded.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(folded(*inputs()), network(*inputs()), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(folded(*inputs()), plain(*inputs()), atol=1e-3)


@pytest.mark.parametrize("backend", ["flash", "xformers"])
def test_a_gpus_operators_are_refused_on_a_cpu(backend):
    with pytest.raises(ValueError, match=f"model.attention {backend} needs a GPU.*write sdpa"):
        use_attention(awake(), backend, torch.device("cpu"), "bfloat16")


def test_flash_is_refused_in_float32():
    with pytest.raises(ValueError, match=r"flash computes in bfloat16: write train\.dtype"):
        use_attention(awake(), "flash", torch.device("cuda"), "float32")


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


@needs_gpu
@pytest.mark.parametrize("backend", ["flash", "xformers"])
@pytest.mark.parametrize("family", NETWORKS)
def test_a_gpus_operators_compute_what_sdpa_does(family, backend):
    from darkroom.models.conditioning import Conditioning

    device = torch.device("cuda")
    dims = {"unet-sd": (16,), "unet-sdxl": (16, 12), "sd3": (16, 12, 32), "mmdit": (16, 12, 32)}[family]
    sizes = {"latent_channels": 4, "text_dim": dims if len(dims) > 1 else dims[0], "pooled_dim": 20}
    section = {"family": family, **NETWORKS[family]}
    denoiser = build_denoiser(read_model(section), sizes, seed=0).to(device)
    for weight in denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    mask = torch.ones(2, 6, dtype=torch.bool, device=device)
    mask[0, 3:] = False
    masks = tuple(mask if family == "mmdit" else None for _ in dims)
    text = tuple(torch.randn(2, 6, dim, device=device) for dim in dims)
    given = Conditioning(text, masks, torch.randn(2, 20, device=device), torch.ones(2, 6, device=device))
    noisy, timestep = torch.randn(2, 4, 8, 8, device=device), torch.tensor([0.2, 0.7], device=device)
    outputs = []
    for name in ("sdpa", backend):
        use_attention(denoiser.network, name, device, "bfloat16")
        with torch.autocast("cuda", torch.bfloat16):
            outputs.append(denoiser(noisy, timestep, given).float())
    torch.testing.assert_close(outputs[1], outputs[0], atol=0.05, rtol=0.05)


def test_a_vae_without_its_shift_encodes_and_decodes_as_the_shifted_one(tmp_path):
    vae = load_vae(component(write_vae(tmp_path / "vae", shift=0.3), "vae"))
    plain = without_shift(vae)
    assert plain.config.shift_factor is None and vae.config.shift_factor == 0.3
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = encode_latents(vae, images)
    torch.testing.assert_close(encode_latents(plain, images), latents, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        decode_latents(plain, latents), decode_latents(vae, latents), atol=1e-4, rtol=1e-3
    )


def test_parameters_that_contradict_the_cache_are_refused_by_key():
    with pytest.raises(ValueError, match=r"model\.params\.cross_attention_dim is 9, but the cache needs 16"):
        build("unet-sd", params={**UNET, "cross_attention_dim": 9})
    with pytest.raises(ValueError, match=r"model\.params: UNet2DConditionModel refuses them"):
        build("unet-sd", params={**UNET, "block_out_channels": [8]})


def test_latents_beyond_sd3s_table_of_positions_are_refused_by_bucket():
    network = build("sd3", params={**SD3, "pos_embed_max_size": 4})
    check_size(network, (4, 8, 8), "bucket 64x64")
    with pytest.raises(ValueError, match=r"pos_embed_max_size 4 is too small for the 10x8 latents of bucket"):
        check_size(network, (4, 10, 8), "bucket 64x80")
    assert CASES["sd3"][1]["params"] == SD3
