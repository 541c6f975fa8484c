"""Published numbers of the noise schedules, and the configurations that are refused."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from pydantic import ValidationError
from test_objectives_algebra import settings

from darkroom import objectives
from darkroom.config.objective import Objective
from darkroom.objectives import TrainingObjective

BASE = objectives.beta_table("scaled_linear", 1000, 0.00085, 0.012)
RESCALED = objectives.zero_terminal_snr(BASE)
V = {"prediction": "v", "schedule": "scaled_linear"}
BUCKET = (1024, 1024)


def test_stable_diffusions_schedule_runs_from_0_0292_to_14_6146():
    sigma = objectives.sigma_table(BASE)
    assert float(sigma[0]) == pytest.approx(0.02917, abs=1e-4)
    assert float(sigma[-1]) == pytest.approx(14.6146, abs=1e-3)


def test_the_rescaled_schedule_ends_in_2254_2_and_pure_noise():
    sigma = objectives.sigma_table(RESCALED)
    assert math.isinf(sigma[-1]) and RESCALED[-1] == 0
    assert sigma[-6:-1].tolist() == pytest.approx([446.8, 559.7, 748.0, 1124.6, 2254.2], rel=2e-4)
    assert float(RESCALED[0]) == pytest.approx(float(BASE[0]))


def test_28_steps_have_novelais_sigmas():
    table = objectives.sigma_table(RESCALED, infinity=objectives.INFERENCE_INFINITY)
    sigma = table[objectives.inference_timesteps(1000, 28, "linspace")].tolist()
    assert sigma[:6] == pytest.approx([20_000, 56.18, 25.9, 16.0, 11.1, 8.25], rel=5e-3)
    assert sigma[1] == pytest.approx(56.1782, abs=1e-3)
    assert len(sigma) == 28 and all(a > b for a, b in pairwise(sigma))
    ten = table[objectives.inference_timesteps(1000, 10, "linspace")].tolist()
    assert ten == pytest.approx([2e4, 15.96, 6.40, 3.50, 2.18, 1.45, 0.987, 0.654, 0.383, 0.0292], rel=3e-3)


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_timesteps_of_a_sampler_are_those_of_diffusers(spacing):
    scheduler = DDIMScheduler(timestep_spacing=spacing)
    for num in (1, 7, 28, 50):
        scheduler.set_timesteps(num)
        ours = objectives.inference_timesteps(1000, num, spacing)
        assert ours[0] == 999
        if num > 1 or spacing == "trailing":
            assert ours.tolist() == scheduler.timesteps.tolist()


def test_the_greatest_sigma_doubles_with_the_side_as_novelai_has_it():
    for side, greatest in ((512, 14.6146), (1024, 29.2292), (2048, 58.4584)):
        wanted = settings(**V, shift_base_px=512)
        sigma = objectives.sigma_table(objectives.noise_table(wanted, side * side))
        assert float(sigma[-1]) == pytest.approx(greatest, abs=1e-3)


@pytest.mark.parametrize(
    "kind, options",
    [
        ("scaled_linear", {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
        ("linear", {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}),
        ("cosine", {"beta_schedule": "squaredcos_cap_v2"}),
    ],
)
@pytest.mark.parametrize("rescaled", [False, True])
def test_the_tables_are_diffusers_own(kind, options, rescaled):
    ours = objectives.beta_table(kind, 1000, options.get("beta_start", 0.1), options.get("beta_end", 0.2))
    ours = objectives.zero_terminal_snr(ours) if rescaled else ours
    theirs = DDIMScheduler(**options, rescale_betas_zero_snr=rescaled).alphas_cumprod
    torch.testing.assert_close(ours.float(), theirs, atol=2e-6, rtol=2e-4)


def test_betas_are_the_tables_inverse():
    for table in (BASE, RESCALED):
        torch.testing.assert_close(torch.cumprod(1 - objectives.betas_of(table), 0), table)


def test_v_target_and_c_in_have_karras_form():
    """v = (e - sigma x0) / sqrt(sigma^2 + 1) on c_in (x0 + sigma e), for the VE numbers of a VP level."""
    torch.manual_seed(0)
    latents, noise = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    index = torch.tensor([0, 200, 400, 600, 800, 900, 950, 999])
    level = objectives.NoiseLevel(BASE.sqrt()[index], (1 - BASE).sqrt()[index], index / 1000)
    sigma = level.sigma[:, None, None]
    c_in = objectives.input_scale(sigma)
    torch.testing.assert_close(objectives.noisy(latents, noise, level), c_in * (latents + sigma * noise))
    v = objectives.target("v", latents, noise, level)
    torch.testing.assert_close(v, (noise - sigma * latents) * c_in)
    # D(x, sigma) = c_skip x + c_out F with c_skip = 1 / (sigma^2 + 1): no square root.
    denoised = (latents + sigma * noise) / (sigma**2 + 1) - sigma * c_in * v
    torch.testing.assert_close(denoised, latents)


# Weights


def share_above_29(**options):
    objective = TrainingObjective(settings(**V, zero_terminal_snr=True, **options))
    return float(objective.band_shares(BUCKET)[-1])


def v_weights(weighting, floor=0.0):
    level = objectives.NoiseLevel(RESCALED.sqrt(), (1 - RESCALED).sqrt(), torch.arange(1000) / 1000)
    return objectives.prediction_weight(weighting, "v", level, 5.0, floor)


def test_min_snr_alone_would_leave_sigmas_above_29_a_ten_thousandth_of_the_weight():
    sigma = objectives.sigma_table(RESCALED)
    assert int((sigma > 29).sum()) == 68
    weight = v_weights("min_snr")
    assert float(weight[sigma > 29].sum() / weight.sum()) == pytest.approx(0.00009, abs=5e-6)
    assert float(weight[990]) == pytest.approx(1.7e-5, rel=0.03)
    assert float(weight[-1]) == 0


def test_a_floor_or_the_other_form_gives_the_terminal_steps_real_weight():
    assert share_above_29(weighting="min_snr", weight_floor=1.0) == pytest.approx(0.0896, abs=1e-3)
    assert share_above_29(weighting="min_snr_plus_one") == pytest.approx(0.074, abs=1e-3)
    assert share_above_29(weighting="none") == pytest.approx(0.068, abs=1e-3)
    floored = v_weights("min_snr", 1.0)
    assert float(floored[-1]) == pytest.approx(1.0)
    below = objectives.sigma_table(RESCALED) < 0.4
    torch.testing.assert_close(floored[below], v_weights("min_snr")[below])


def test_a_uniform_density_draws_every_timestep_alike():
    places = torch.special.ndtri((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
    level = TrainingObjective(settings(**V)).levels(places.float(), BUCKET)
    counts = np.bincount((level.timestep * 1000).round().long(), minlength=1000)
    assert counts.min() >= 98 and counts.max() <= 102


def test_the_timestep_told_is_a_schedulers_timestep_divided_by_their_number():
    level = TrainingObjective(settings(**V)).levels(torch.tensor([-6.0, 6.0]), BUCKET)
    assert level.timestep.tolist() == pytest.approx([0.0, 0.999])
    assert level.sigma.tolist() == pytest.approx([0.02917, 14.6146], rel=1e-3)


# What is refused


@pytest.mark.parametrize(
    "options, message",
    [
        ({**V, "zero_terminal_snr": True, "weighting": "min_snr"}, "write weight_floor: 1.0"),
        ({**V, "zero_terminal_snr": True, "weighting": "soft_min_snr"}, "write weight_floor: 1.0"),
        (
            {**V, "prediction": "x0", "zero_terminal_snr": True, "weighting": "min_snr"},
            "or weighting: min_snr_plus_one",
        ),
        ({**V, "prediction": "epsilon", "zero_terminal_snr": True}, "write prediction: v"),
        ({"zero_terminal_snr": True}, "flow ends in pure noise; leave it out"),
        ({"prediction": "v"}, "write schedule: scaled_linear, or prediction: flow"),
        ({"schedule": "cosine"}, "write schedule: flow, or prediction: v"),
        ({**V, "weight_floor": 1.0}, "write weighting: min_snr"),
        ({**V, "weighting": "min_snr", "weight_floor": 6.0}, "above min_snr_gamma 5"),
        ({**V, "prediction": "epsilon", "weighting": "min_snr", "weight_floor": 1.0}, "write prediction: v"),
        (
            {**V, "zero_terminal_snr": True, "timestep_density": "log_normal"},
            "write timestep_density: uniform",
        ),
        ({**V, "beta_start": 0.02}, "beta_start 0.02 is not below beta_end 0.012"),
    ],
)
def test_an_objective_that_cannot_work_is_refused_with_what_to_write(options, message):
    with pytest.raises(ValidationError, match=message):
        Objective(**options)


def test_zero_terminal_snr_is_accepted_with_what_the_refusal_says():
    for options in ({"weight_floor": 1.0, "weighting": "min_snr"}, {"weighting": "min_snr_plus_one"}, {}):
        assert share_above_29(**options) > 0.05


def test_the_density_left_open_follows_the_schedule():
    assert Objective().density == "logit_normal" and Objective(**V).density == "uniform"
    assert Objective(**V, timestep_density="mode").density == "mode"


# Learning rates and averages


def test_learning_rates_can_stay_constant_or_fall_on_a_line():
    constant = [objectives.learning_rate(step, 110, 2.0, 10, decay="constant") for step in range(111)]
    assert constant[:10] == pytest.approx([(k + 1) / 5 for k in range(10)]) and set(constant[10:]) == {2.0}
    line = [objectives.learning_rate(step, 110, 1.0, 10, 0.2, decay="linear") for step in range(111)]
    assert line[10] == 1.0 and line[60] == pytest.approx(0.6) and line[110] == pytest.approx(0.2)


def test_a_warm_up_can_be_half_a_cosine():
    rates = [objectives.learning_rate(step, 100, 1.0, 20, warmup="cosine") for step in range(21)]
    assert rates[9] == pytest.approx(0.5) and rates[4] == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert rates[19] == rates[20] == 1.0


@pytest.mark.parametrize(
    "decay, every, half_life", [(0.99, 100, 6897), (0.9999, 1, 6931), (0.999, 10, 6928), (0.995, 1, 138)]
)
def test_half_lives_of_the_published_averages(decay, every, half_life):
    assert objectives.half_life_steps(decay, every) == pytest.approx(half_life, abs=0.5)
    assert decay ** (objectives.half_life_steps(decay, every) / every) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"learning_rate_decay": "constant", "min_learning_rate": 1e-6}, "leave min_learning_rate out"),
        ({"num_warmup_steps": 10}, "num_warmup_steps 10 must be below num_steps 10"),
        ({"min_learning_rate": 1.0}, "min_learning_rate 1 is above learning_rate 0.0001"),
    ],
)
def test_learning_rates_that_cannot_be_are_refused_before_any_job(options, message):
    from darkroom.config.run import Train

    with pytest.raises(ValidationError, match=message):
        Train(num_steps=10, global_batch_size=4, microbatch_size=4, **options)


def test_the_documented_log_line_is_the_one_that_is_written():
    page = (Path(__file__).parents[1] / "docs/objectives.md").read_text(encoding="utf-8")
    line = TrainingObjective(
        settings(**V, zero_terminal_snr=True, weighting="min_snr", weight_floor=1.0)
    ).describe([(64, 64)])
    assert f"train: {line}" in " ".join(page.split())
