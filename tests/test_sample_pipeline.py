"""What the pipeline, its export and drawing promise."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from test_components import CONTEXT, write_clip, write_vae

from darkroom.components.base import Component
from darkroom.components.text_encoders import load_text_encoder
from darkroom.components.vae import encode_latents, load_vae
from darkroom.config.run import Sampling
from darkroom.exported.pipeline import DarkroomPipeline
from darkroom.families.mmdit import MMDiTModel, make_pipeline
from darkroom.formats.diffusers import export_pipeline, load_pipeline, save_part
from darkroom.models.families import build_denoiser
from darkroom.sample.model import SampleModel
from darkroom.sample.options import DrawOptions
from darkroom.sample.seeds import picture_seed
from darkroom.store import sha256_folder

SETTINGS = Sampling(num_inference_steps=3, guidance_scale=3.0, width_px=32, height_px=24)


def draw(pipeline, prompts, seeds, sampling=SETTINGS, **options):
    return SampleModel(pipeline).draw(prompts, seeds, DrawOptions(sampling, **{"batch_size": 16, **options}))


def build(folder: Path, scheduler: Any = None, seed: int = 0) -> DarkroomPipeline:
    """A random pipeline of components that lie in `folder`."""
    clip, vae = (
        write_clip(folder / "clip"),
        load_vae(Component(kind="vae", path=str(write_vae(folder / "vae")))),
    )
    text = load_text_encoder(Component(kind="text_encoder", path=str(clip)))
    model = MMDiTModel(num_blocks=2, num_heads=2, head_dim=16, mlp_ratio=2.0)
    sizes = {"latent_channels": 4, "text_dim": text.text_dim, "pooled_dim": text.pooled_dim}
    transformer = build_denoiser(model, sizes, seed).network
    torch.manual_seed(seed)
    for name, parameter in transformer.named_parameters():
        if "modulation" in name or name.startswith("image_out"):
            torch.nn.init.normal_(parameter, std=0.3)
    return make_pipeline(transformer, vae, [text], None, CONTEXT, scheduler)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> DarkroomPipeline:
    pipeline = build(tmp_path_factory.mktemp("components"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def call(pipeline, prompt, **changes):
    settings = {
        "width": 32,
        "height": 24,
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "output_type": "np",
    }
    return pipeline(prompt, **{**settings, **changes}).images


def test_pictures_come_as_asked(pipeline):
    assert call(pipeline, "red", generator=generator(0)).shape == (1, 24, 32, 3)
    assert call(pipeline, ["red", "a"], output_type="latent").shape == (2, 4, 6, 8)
    picture = call(pipeline, "red", output_type="pil")[0]
    assert isinstance(picture, Image.Image) and picture.size == (32, 24)
    with pytest.raises(ValueError, match="'jpg' is none of"):
        call(pipeline, "red", output_type="jpg")


@pytest.mark.parametrize(
    "width, height, message", [(36, 24, "width 36 .* 8 pixels; 32"), (32, 3, "height 3 .*; 8 ")]
)
def test_a_size_that_does_not_fit_names_the_nearest_that_does(pipeline, width, height, message):
    with pytest.raises(ValueError, match=message):
        call(pipeline, "red", width=width, height=height)


def test_generators_must_match_the_pictures(pipeline):
    with pytest.raises(ValueError, match="2 generators for 1 pictures"):
        call(pipeline, "red", generator=[generator(0), generator(1)])


def test_prompts_have_negatives_of_their_own_several_pictures_and_noise_that_is_given(pipeline):
    noise = torch.randn(4, 4, 6, 8, generator=generator(3))
    whole = call(
        pipeline, ["red", "a"], negative_prompt=["circle", ""], num_images_per_prompt=2, latents=noise
    )
    assert whole.shape == (4, 24, 32, 3)
    for place, (prompt, negative) in enumerate([("red", "circle")] * 2 + [("a", "")] * 2):
        one = call(pipeline, prompt, negative_prompt=negative, latents=noise[place : place + 1])
        np.testing.assert_allclose(whole[place], one[0], atol=1e-3)
    assert np.abs(whole[0] - whole[1]).max() > 1e-2
    with pytest.raises(ValueError, match="1 negative prompts for 2 prompts"):
        call(pipeline, ["red", "a"], negative_prompt=["circle"])
    with pytest.raises(
        ValueError, match=r"latents are \(4, 4, 6, 8\); these pictures begin from \(2, 4, 6, 8\)"
    ):
        call(pipeline, ["red", "a"], latents=noise)


def test_what_diffusers_saves_again_loads_with_its_code_and_draws_the_same(pipeline, tmp_path):
    load_pipeline(export_pipeline(pipeline, tmp_path / "model")).save_pretrained(tmp_path / "again")
    names = {path.name for path in (tmp_path / "again").rglob("*.py")}
    assert names == {"pipeline.py", "mmdit.py"}
    loaded = load_pipeline(tmp_path / "again")
    assert np.array_equal(draw(loaded, ["red"], [1]), draw(pipeline, ["red"], [1]))


def test_guidance_is_the_difference_of_two_plain_velocities(pipeline):
    """One Euler step from t = 1 to 0: latents = noise - (v_un + g (v_con - v_un))."""
    settings = {"num_inference_steps": 1, "output_type": "latent"}
    conditional = call(pipeline, "red circle", guidance_scale=1.0, generator=generator(0), **settings)
    unconditional = call(pipeline, "", guidance_scale=1.0, generator=generator(0), **settings)
    guided = call(pipeline, "red circle", guidance_scale=3.5, generator=generator(0), **settings)
    assert (conditional - unconditional).abs().max() > 1e-3
    torch.testing.assert_close(
        guided, unconditional + 3.5 * (conditional - unconditional), atol=1e-4, rtol=1e-4
    )
    negative = call(
        pipeline, "red", negative_prompt="red", guidance_scale=3.5, generator=generator(0), **settings
    )
    plain = call(pipeline, "red", guidance_scale=1.0, generator=generator(0), **settings)
    torch.testing.assert_close(negative, plain, atol=1e-4, rtol=1e-4)


def test_steps_follow_the_exact_velocity_to_the_latents(pipeline, monkeypatch):
    """A model that knows x0 must arrive there, at uniform timesteps 1, 2/3, 1/3."""
    target, seen = torch.full((1, 4, 6, 8), 0.7), []

    def velocity(latents, timestep, *conditioning):
        seen.append(float(timestep[0]))
        return (latents - target) / timestep.view(-1, 1, 1, 1)

    monkeypatch.setattr(pipeline.transformer, "forward", velocity)
    latents = call(pipeline, "red", guidance_scale=1.0, output_type="latent")
    torch.testing.assert_close(latents, target, atol=1e-5, rtol=0)
    assert seen == pytest.approx([1, 2 / 3, 1 / 3])


def test_the_schedulers_shift_is_applied_once(tmp_path, monkeypatch):
    shifted, seen = build(tmp_path, FlowMatchEulerDiscreteScheduler(shift=3.0)), []

    def velocity(latents, timestep, *conditioning):
        seen.append(float(timestep[0]))
        return torch.zeros_like(latents)

    monkeypatch.setattr(shifted.transformer, "forward", velocity)
    call(shifted, "red", num_inference_steps=2, guidance_scale=1.0)
    assert seen == pytest.approx([1, 0.75])


def test_decoding_inverts_the_encoding_that_training_uses(pipeline):
    images = torch.rand(2, 3, 24, 32, generator=generator(0)) * 2 - 1
    latents = encode_latents(pipeline.vae, images)
    plain = pipeline.vae.decode(pipeline.vae.encode(images).latent_dist.mean).sample
    torch.testing.assert_close(pipeline.decode(latents), (plain / 2 + 0.5).clamp(0, 1))


def test_a_drawn_picture_is_the_one_that_diffusers_draws_with_the_same_seed(pipeline):
    drawn = draw(pipeline, ["red circle", "a"], [7, 8], dtype="float32")
    called = call(pipeline, ["red circle", "a"], generator=[generator(7), generator(8)])
    assert drawn.shape == (2, 24, 32, 3) and drawn.dtype == np.uint8
    assert np.abs(drawn - called * 255).max() <= 0.51
    assert np.abs(drawn[0].astype(int) - drawn[1]).max() > 3


def test_a_picture_does_not_depend_on_its_batch(pipeline):
    prompts, seeds = ["red circle", "a", "red circle", "circle circle", ""], [3, 4, 5, 6, 7]
    together = draw(pipeline, prompts, seeds, batch_size=5, dtype="float32").astype(int)
    pairs = draw(pipeline, prompts, seeds, batch_size=2, dtype="float32").astype(int)
    order = [4, 2, 0, 1, 3]
    mixed = draw(
        pipeline, [prompts[i] for i in order], [seeds[i] for i in order], batch_size=2, dtype="float32"
    ).astype(int)
    assert np.abs(together - pairs).max() <= 1
    assert np.abs(pairs[order] - mixed).max() <= 1
    assert np.abs(together[0] - together[2]).max() > 3  # same prompt, other seed


def test_drawing_in_bfloat16_repeats_and_stays_close_to_float32(pipeline):
    first, second = (draw(pipeline, ["red", "a"], [1, 2]) for _ in range(2))
    assert np.array_equal(first, second)
    exact = draw(pipeline, ["red", "a"], [1, 2], dtype="float32")
    assert np.abs(first.astype(int) - exact).mean() < 4


def test_drawing_refuses_what_does_not_fit(pipeline):
    assert draw(pipeline, [], []).shape == (0, 24, 32, 3)
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        draw(pipeline, ["a", "b"], [1])
    with pytest.raises(ValueError, match="'int8' is none of"):
        draw(pipeline, ["a"], [1], dtype="int8")


def test_picture_seeds_are_fixed_and_distinct():
    seeds = {picture_seed(s, p, k) for s in range(3) for p in range(12) for k in range(12)}
    assert len(seeds) == 3 * 12 * 12 and all(0 <= seed < 2**63 for seed in seeds)
    assert picture_seed(0, 0, 0) == 3051931488724851722


def test_exported_bytes_depend_on_the_pipeline_alone(pipeline, tmp_path):
    """Not on where it is written, where its components were loaded from, or how often it was saved."""
    first = export_pipeline(pipeline, tmp_path / "a" / "model")
    elsewhere = build(tmp_path / "elsewhere")
    second = export_pipeline(elsewhere, tmp_path / "another" / "deep" / "folder")
    assert sha256_folder(first) == sha256_folder(second)
    third = export_pipeline(load_pipeline(first), tmp_path / "c")
    assert sha256_folder(first) == sha256_folder(third)
    export_pipeline(pipeline, first)
    assert sha256_folder(first) == sha256_folder(second)
    for path in first.rglob("*.json"):
        assert str(tmp_path.parent) not in path.read_text(), path


def test_a_loaded_pipeline_draws_the_same_picture(pipeline, tmp_path):
    loaded = load_pipeline(export_pipeline(pipeline, tmp_path / "model"))
    pictures = [draw(p, ["red"], [1]) for p in (pipeline, loaded)]
    assert np.array_equal(*pictures)
    other = build(tmp_path / "other", seed=1)
    save_part(other.transformer, tmp_path / "untrained")
    swapped = load_pipeline(tmp_path / "model", transformer=tmp_path / "untrained")
    assert np.array_equal(draw(swapped, ["red"], [1]), draw(other, ["red"], [1]))
    with pytest.raises(ValueError, match=r"no model_index\.json"):
        load_pipeline(tmp_path)


SCRIPT = """
import sys

class Refuse:
    def find_spec(self, name, *rest):
        if name.split(".")[0] == "darkroom":
            raise ModuleNotFoundError("darkroom is not installed here")

sys.meta_path.insert(0, Refuse())
sys.path[:] = [path for path in sys.path if not path.endswith("/src")]
import diffusers
import torch

pipeline = diffusers.DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
pipeline.set_progress_bar_config(disable=True)
images = pipeline(
    ["red circle", "a"], width=32, height=24, num_inference_steps=3, guidance_scale=3.0,
    generator=[torch.Generator().manual_seed(seed) for seed in (7, 8)],
).images
for k, image in enumerate(images):
    image.save(f"{sys.argv[2]}/{k}.png")
pipeline.save_pretrained(f"{sys.argv[2]}/again")
again = diffusers.DiffusionPipeline.from_pretrained(f"{sys.argv[2]}/again", trust_remote_code=True)
(image,) = again("a", width=32, height=24, num_inference_steps=3, guidance_scale=3.0,
                 generator=torch.Generator().manual_seed(8)).images
image.save(f"{sys.argv[2]}/2.png")
assert not any(name.split(".")[0] == "darkroom" for name in sys.modules)
"""


def test_a_script_with_diffusers_alone_draws_the_same_pictures(pipeline, tmp_path):
    folder = export_pipeline(pipeline, tmp_path / "model")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    # Code of exported folders is copied to this cache before it runs.
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    drawn = draw(pipeline, ["red circle", "a"], [7, 8], dtype="float32").astype(int)
    for k in range(3):  # the last is the second, of the folder that diffusers saved again
        picture = np.asarray(Image.open(tmp_path / f"{k}.png")).astype(int)
        assert np.abs(picture - drawn[min(k, 1)]).max() <= 1


def test_the_exported_index_names_code_that_lies_in_the_folder(pipeline, tmp_path):
    folder = export_pipeline(pipeline, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline", "DarkroomPipeline"] and (folder / "pipeline.py").is_file()
    assert index["transformer"] == ["mmdit", "MMDiT"] and (folder / "transformer" / "mmdit.py").is_file()
    for path in (folder / "pipeline.py", folder / "transformer" / "mmdit.py"):
        assert "import darkroom" not in path.read_text() and "from darkroom" not in path.read_text()
