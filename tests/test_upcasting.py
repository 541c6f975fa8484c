"""What a folder's configuration asks to be computed in float32 is, where the rest computes in fewer bits."""

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import Attention
from sample_folders import FEW, stable_diffusion  # noqa: F401 (a fixture)

from darkroom.families.unet_sd import use_attention
from darkroom.sample.model import load_model
from darkroom.sample.options import DrawOptions

HALF = DrawOptions(FEW, dtype="float16")


def decoder_dtypes(model):
    """Of what the decoder gives while a picture is drawn in float16, and the picture."""
    seen = set()
    hook = model.pipeline.vae.decoder.conv_in.register_forward_hook(lambda *given: seen.add(given[-1].dtype))
    picture = model.draw(["red"], [1], HALF)
    hook.remove()
    return seen, picture


def test_a_vae_that_says_force_upcast_decodes_in_float32_and_its_pictures_are_not_black(
    stable_diffusion, tmp_path  # noqa: F811
):  # fmt: skip
    pipeline = StableDiffusionPipeline.from_pretrained(str(stable_diffusion))
    with torch.no_grad():  # as of SDXL's VAE, numbers on the way are beyond float16
        pipeline.vae.decoder.conv_in.weight.mul_(1e6)
    pictures = {}
    for upcast in (True, False):
        pipeline.vae.register_to_config(force_upcast=upcast)
        pipeline.save_pretrained(tmp_path / str(upcast))
        model = load_model(tmp_path / str(upcast))
        dtypes, pictures[upcast] = decoder_dtypes(model)
        assert dtypes == {torch.float32 if upcast else torch.float16}
        assert "decode" not in vars(model.pipeline.vae)
    assert pictures[True].std() > 1 and np.ptp(pictures[False]) == 0, "and without it they would be"


def test_sliced_attention_of_layers_that_say_upcast_attention_is_worked_out_in_float32(stable_diffusion):  # noqa: F811
    unet = StableDiffusionPipeline.from_pretrained(str(stable_diffusion)).unet
    layers = [module for module in unet.modules() if isinstance(module, Attention)]
    use_attention(unet, "sliced")
    plain = [layer.get_attention_scores for layer in layers]
    for layer in layers:
        layer.upcast_attention = True
    use_attention(unet, "sliced")
    generator = torch.Generator().manual_seed(0)
    query, key = (4 * torch.randn(2, 1, 4, 8, generator=generator)).bfloat16()
    exact = layers[0].scale * query.double() @ key.double().transpose(-1, -2)
    expected = exact.softmax(dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        upcast = layers[0].get_attention_scores(query, key)
        layers[0].upcast_attention = False
        lower = plain[0](query, key)
    rounding = {"rtol": 2**-8, "atol": 1e-9}
    assert torch.allclose(upcast.double(), expected, **rounding)
    assert not torch.allclose(lower.double(), expected, **rounding)
    assert all(layer.get_attention_scores not in plain for layer in layers)
