"""Drawing from any exported model: every sampler, sizes, seeds, guidance, and what is refused."""

import shutil

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionPipeline,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from sample_folders import (  # noqa: F401 - fixtures
    FEW,
    PLAIN,
    any_model,
    fitting,
    ours,
    stable_diffusion,
    stable_diffusion_3,
)
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPVisionConfig,
)

from darkroom.sample.model import load_model
from darkroom.sample.options import DrawOptions, guidance_scale
from darkroom.sample.seeds import drawn_seeds


def test_every_sampler_draws_from_every_kind_of_model(any_model):
    model = load_model(any_model)
    drawn = {}
    for name in fitting(any_model):
        drawn[name] = model.draw(["red circle", "a"], [1, 2], DrawOptions(FEW, sampler=name, dtype="float32"))
        assert drawn[name].shape == (2, 16, 32, 3) and drawn[name].std() > 0
    assert len({pictures.tobytes() for pictures in drawn.values()}) >= 4  # euler is what flow models export
    assert np.array_equal(model.draw(["red circle", "a"], [1, 2], PLAIN), drawn[None])


def test_a_seed_gives_its_picture_whatever_is_drawn_beside_it(any_model):
    model = load_model(any_model)
    for name in fitting(any_model)[1::3]:
        drawing = DrawOptions(FEW, sampler=name, dtype="float32")
        together = model.draw(["red", "a", "red circle"], [1, 2, 3], drawing).astype(int)
        alone = model.draw(["red circle"], [3], drawing).astype(int)
        assert np.abs(together[2:] - alone).max() <= 1
        assert np.abs(together[0] - together[1]).max() > 1


def test_a_size_that_does_not_fit_is_refused_with_the_nearest(any_model):
    model = load_model(any_model)
    step = model.size_step
    wrong = FEW.model_copy(update={"width_px": 10 * step + 1, "height_px": 2 * step})
    nearest = f"multiples of {step} pixels; the nearest is {10 * step}x{2 * step}"
    with pytest.raises(ValueError, match=nearest):
        model.draw(["a"], [1], DrawOptions(wrong))


def test_sizes_are_multiples_of_16_for_transformers_and_of_8_for_unets():
    """A VAE of factor 8, as Stable Diffusion's are."""
    from types import SimpleNamespace

    from darkroom.families.table import FAMILIES
    from darkroom.sample.model import SampleModel

    for name, network, config, step in (
        ("mmdit", "transformer", {"patch_size": 2}, 16),
        ("unet-sd", "unet", {}, 8),
    ):
        model = SampleModel.__new__(SampleModel)
        model.family = FAMILIES[name]
        model.pipeline = SimpleNamespace(vae_scale_factor=8, **{network: SimpleNamespace(config=config)})
        assert model.size_step == step
        with pytest.raises(ValueError, match="nearest is 512x512"):
            model.check_size(516, 512)


def test_rescaled_guidance_changes_the_picture_of_every_kind_of_model(any_model):
    model = load_model(any_model)
    rescaled = DrawOptions(FEW, guidance_rescale=0.7, dtype="float32")
    assert not np.array_equal(model.draw(["red"], [1], rescaled), model.draw(["red"], [1], PLAIN))
    assert np.array_equal(model.draw(["red"], [1], PLAIN), load_model(any_model).draw(["red"], [1], PLAIN))


def test_rescaled_guidance_gives_sd3_the_spread_of_its_conditional_prediction(stable_diffusion_3):
    model = load_model(stable_diffusion_3)
    conditional, seen = [], []
    model.pipeline.transformer.register_forward_hook(
        lambda _, __, out: conditional.append(out[0].chunk(2)[-1])
    )
    scheduler, step = model.pipeline.scheduler, model.pipeline.scheduler.step

    def watched(predicted, *arguments, **options):
        seen.append(predicted)
        return step(predicted, *arguments, **options)

    for share, is_equal in ((1.0, True), (0.0, False)):
        conditional.clear()
        seen.clear()
        type(scheduler).step, before = (lambda _, *a, **o: watched(*a, **o)), type(scheduler).step
        try:
            model.draw(["red", "a"], [1, 2], DrawOptions(FEW, guidance_rescale=share, dtype="float32"))
        finally:
            type(scheduler).step = before
        assert len(seen) == len(conditional) == FEW.num_inference_steps
        for guided, alone in zip(seen, conditional, strict=True):
            spreads = [t.flatten(1).std(dim=1) for t in (guided, alone)]
            assert torch.allclose(*spreads, rtol=1e-4) == is_equal
    # Without guidance there is nothing to rescale.
    none = FEW.model_copy(update={"guidance_scale": 1.0})
    drawn = [
        model.draw(["red"], [1], DrawOptions(none, guidance_rescale=share, dtype="float32"))
        for share in (0.0, 1.0)
    ]
    assert np.array_equal(*drawn)


def test_guidance_of_the_paper_is_one_less_than_diffusers():
    assert guidance_scale(5.0) == 5.0 and guidance_scale(5.0, "paper") == 6.0
    with pytest.raises(ValueError, match=r"0\.5 is below 1, which is none in the diffusers convention"):
        guidance_scale(0.5)
    with pytest.raises(ValueError, match="-1 is below 0"):
        guidance_scale(-1.0, "paper")


def test_random_seeds_are_drawn_for_each_picture_and_given_ones_kept():
    seeds = drawn_seeds([7, -1], 50)
    assert all(row[0] == 7 for row in seeds)
    assert len({row[1] for row in seeds}) == 50 and all(row[1] >= 0 for row in seeds)
    with pytest.raises(ValueError, match="seed -2 is neither"):
        drawn_seeds([-2], 1)


def test_several_pictures_of_a_seed_have_it_and_those_that_follow():
    assert drawn_seeds([7, 20], 2, 3) == [[7, 8, 9, 20, 21, 22]] * 2
    assert len(set(drawn_seeds([-1], 1, 50)[0])) == 50
    assert drawn_seeds([2**63 - 2], 1, 2) == [[2**63 - 2, 2**63 - 1]]
    with pytest.raises(ValueError, match=r"nor from 0 to 2\^63 - 3"):
        drawn_seeds([2**63 - 2], 1, 3)


def test_a_safety_checker_is_left_out_and_told_of(stable_diffusion, tmp_path, caplog):
    pipeline = StableDiffusionPipeline.from_pretrained(str(stable_diffusion))
    torch.manual_seed(0)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision = CLIPVisionConfig(image_size=8, patch_size=4, **small)
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=small, vision_config=vision.to_dict()))
    pipeline.register_modules(
        safety_checker=checker, feature_extractor=CLIPImageProcessor(size=8, crop_size=8)
    )
    pipeline.register_to_config(requires_safety_checker=True)
    pipeline.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model/safety_checker/config.json").is_file()
    model = load_model(tmp_path / "model")
    assert model.pipeline.safety_checker is None and "without its safety checker" in caplog.text
    assert np.array_equal(
        model.draw(["red"], [1], PLAIN), load_model(stable_diffusion).draw(["red"], [1], PLAIN)
    )


def test_weights_of_half_precision_are_drawn_with_in_float32_and_pickles_are_not_read(
    stable_diffusion, tmp_path
):
    pipeline = StableDiffusionPipeline.from_pretrained(str(stable_diffusion)).to(torch.float16)
    pipeline.save_pretrained(tmp_path / "half")
    parts = load_model(tmp_path / "half").pipeline.components.values()
    assert {p.dtype for p in parts if isinstance(p, torch.nn.Module)} == {torch.float32}
    pipeline.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    with pytest.raises(ValueError, match=r"has no weights in safetensors; pickles are not read"):
        load_model(tmp_path / "pickled")


def test_weights_that_lie_there_as_one_variant_are_drawn_with_and_of_several_none_is_guessed(
    stable_diffusion, tmp_path
):
    pipeline = StableDiffusionPipeline.from_pretrained(str(stable_diffusion))
    pipeline.save_pretrained(tmp_path / "model", variant="fp16")
    assert list((tmp_path / "model").rglob("*.fp16.safetensors"))
    whole = load_model(stable_diffusion).draw(["red"], [1], PLAIN)
    assert np.array_equal(load_model(tmp_path / "model").draw(["red"], [1], PLAIN), whole)
    unet = tmp_path / "model/unet/diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(unet, unet.with_name("diffusion_pytorch_model.non_ema.safetensors"))
    with pytest.raises(ValueError, match=r"unet has its weights as fp16 and non_ema alone; leave one"):
        load_model(tmp_path / "model")
    shutil.copy(unet, unet.with_name("diffusion_pytorch_model.safetensors"))
    assert np.array_equal(load_model(tmp_path / "model").draw(["red"], [1], PLAIN), whole)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no model to draw from: it has no model_index\.json"):
        load_model(tmp_path)


# The command
