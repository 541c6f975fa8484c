"""Attention operators, adapters and the VAE's shift: parts that every family shares."""

import pytest
import torch
from family_cases import ENCODERS, PLAIN
from family_world import TEXT_DIMS, build
from test_components import write_vae
from test_models_mmdit import awake
from tiny_encoders import component

from darkroom.components.vae import decode_latents, encode_latents, load_vae
from darkroom.families.base import LoRA
from darkroom.families.stock import without_shift
from darkroom.families.table import FAMILIES
from darkroom.models.denoiser import Denoiser
from darkroom.models.families import use_attention
from darkroom.models.lora import add_lora

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="flash and xformers run on a GPU")


@pytest.mark.parametrize("family", PLAIN)
def test_every_named_lora_target_is_a_layer_of_the_family(family):
    for target in FAMILIES[family].section.lora_targets:
        network = build(family, **PLAIN[family]).network
        add_lora(network, LoRA(rank=1, alpha=1, targets=(target,)), seed=0)
        adapted = {name for name, p in network.named_parameters() if p.requires_grad}
        assert adapted and all("lora" in name and f"{target}." in name for name in adapted)


@pytest.mark.parametrize("backend", ["flash", "xformers"])
def test_a_gpus_operators_are_refused_on_a_cpu(backend):
    with pytest.raises(ValueError, match=f"model.attention {backend} needs a GPU.*write sdpa"):
        use_attention(Denoiser(FAMILIES["mmdit"], awake()), backend, torch.device("cpu"), "bfloat16")


def test_flash_is_refused_in_float32():
    with pytest.raises(ValueError, match=r"flash computes in bfloat16: write train\.dtype"):
        use_attention(Denoiser(FAMILIES["mmdit"], awake()), "flash", torch.device("cuda"), "float32")


@needs_gpu
@pytest.mark.parametrize("backend", ["flash", "xformers"])
@pytest.mark.parametrize("family", PLAIN)
def test_a_gpus_operators_compute_what_sdpa_does(family, backend):
    from darkroom.families.conditioning import Conditioning

    device = torch.device("cuda")
    dims = [TEXT_DIMS[use["name"]] for use in ENCODERS[family]]
    denoiser = build(family, **PLAIN[family]).to(device)
    for weight in denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    mask = torch.ones(2, 6, dtype=torch.bool, device=device)
    mask[0, 3:] = False
    masks = tuple(None if FAMILIES[family].encoders else mask for _ in dims)
    text = tuple(torch.randn(2, 6, dim, device=device) for dim in dims)
    given = Conditioning(text, masks, torch.randn(2, 20, device=device), torch.ones(2, 6, device=device))
    noisy, timestep = torch.randn(2, 4, 8, 8, device=device), torch.tensor([0.2, 0.7], device=device)
    outputs = []
    for name in ("sdpa", backend):
        use_attention(denoiser, name, device, "bfloat16")
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
