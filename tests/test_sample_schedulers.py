"""An exported model says what was trained: stock schedulers draw from it what its objective promises."""

import json

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from test_objectives_algebra import settings
from test_sample_pipeline import build, call, draw, generator
from test_train_stage import SETTINGS as TRAIN
from test_train_stage import cached  # noqa: F401 (a fixture)
from test_train_stage import run as train

from darkroom import objectives
from darkroom.exported.pipeline import rescale_guided
from darkroom.formats.diffusers import load_pipeline
from darkroom.objectives import NoiseLevel
from darkroom.sample.schedulers import make_scheduler

TERMINAL = {"schedule": "scaled_linear", "zero_terminal_snr": True}


def oracle(table, prediction, target):
    """A model that knows x0, told the timestep and shown the noisy latents of a variance-preserving scheduler."""

    def forward(latents, timestep, *conditioning):
        abar = table[(timestep * len(table)).round().long()].to(latents.dtype)
        level = NoiseLevel(abar.sqrt(), (1 - abar).sqrt(), timestep)
        noise = (latents - level.signal[0] * target) / level.noise[0]
        return objectives.target(prediction, target.expand_as(latents), noise, level)

    return forward


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize("options", [{"prediction": "v", **TERMINAL}, {"prediction": "v", "schedule": "cosine"},
                                     {"prediction": "epsilon", "schedule": "scaled_linear"}], ids=str)  # fmt: skip
def test_stock_schedulers_lead_the_true_prediction_to_the_picture(tmp_path, monkeypatch, scheduler, options):
    wanted, target = settings(**options), torch.full((1, 4, 6, 8), 0.7)
    pipeline = build(tmp_path, scheduler.from_config(make_scheduler(wanted, 24 * 32).config))
    table = objectives.noise_table(wanted, 24 * 32)
    monkeypatch.setattr(pipeline.transformer, "forward", oracle(table, options["prediction"], target))
    pipeline.set_progress_bar_config(disable=True)
    latents = call(
        pipeline,
        "red",
        guidance_scale=1.0,
        output_type="latent",
        num_inference_steps=8,
        generator=generator(0),
    )
    torch.testing.assert_close(latents, target, atol=0.02, rtol=0)


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_the_exported_table_is_the_one_trained_on_shifted_or_not(shift):
    wanted = settings(prediction="v", **TERMINAL, timestep_shift=shift)
    scheduler = make_scheduler(wanted, 64 * 64)
    table = objectives.noise_table(wanted, 64 * 64).float()
    torch.testing.assert_close(scheduler.alphas_cumprod, table, atol=1e-5, rtol=1e-3)
    assert scheduler.alphas_cumprod[-1] == 0
    scheduler.set_timesteps(28)
    assert scheduler.timesteps[0] == 999


def test_a_shift_by_resolution_is_exported_for_the_pictures_trained_on():
    wanted = settings(timestep_shift=1.5, shift_base_px=32)
    assert make_scheduler(wanted, 64 * 64).config.shift == 3.0
    assert make_scheduler(settings(timestep_shift=1.5), 64 * 64).config.shift == 1.5


def test_a_v_model_is_trained_exported_and_drawn_from_as_one(cached, tmp_path):
    lines = []
    objective = settings(prediction="v", **TERMINAL, weighting="min_snr", weight_floor=1.0).objective
    train(cached, tmp_path, TRAIN.model_copy(update={"objective": objective}), log=lines.append)
    assert any("objective v on scaled_linear, zero terminal SNR, timesteps uniform" in line for line in lines)
    assert any("half-life of 6931 of 6 steps" in line for line in lines)
    index = json.loads((tmp_path / "model/model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    config = json.loads((tmp_path / "model/scheduler/scheduler_config.json").read_text())
    assert config["prediction_type"] == "v_prediction" and config["rescale_betas_zero_snr"] is True
    assert config["timestep_spacing"] == "trailing"
    pictures = draw(load_pipeline(tmp_path / "model"), ["red"], [1], TRAIN.sampling.model_copy(
        update={"width_px": 32, "height_px": 32, "num_inference_steps": 3}))  # fmt: skip
    assert pictures.shape == (1, 32, 32, 3) and pictures.std() > 0


def test_rescaled_guidance_has_the_spread_of_the_conditional_prediction():
    conditional = torch.randn(3, 4, 8, 8, generator=generator(0))
    guided = 5 * conditional + torch.randn(3, 4, 8, 8, generator=generator(1))
    spread = conditional.flatten(1).std(dim=1)
    torch.testing.assert_close(rescale_guided(guided, conditional, 1.0).flatten(1).std(dim=1), spread)
    torch.testing.assert_close(rescale_guided(guided, conditional, 0.0), guided)
    half = rescale_guided(guided, conditional, 0.5)
    torch.testing.assert_close(half, (guided + rescale_guided(guided, conditional, 1.0)) / 2)
