"""Predictions, densities and weights: closed forms, and conversions that lose nothing."""

import math
from itertools import pairwise

import pytest
import torch

from darkroom import objectives
from darkroom.config.run import Train
from darkroom.objectives import NoiseLevel, TrainingObjective

KINDS = ("flow", "v", "epsilon", "x0")
T = torch.tensor([0.05, 0.3, 0.7, 0.95], dtype=torch.float64)
FLOW = objectives.flow_level(T)
DIFFUSION = NoiseLevel(torch.cos(T * math.pi / 2), torch.sin(T * math.pi / 2), T)


def settings(**changes):
    plain = {"num_steps": 10, "global_batch_size": 4, "microbatch_size": 4}
    names = {"logit_mean", "logit_std", "timestep_shift"}
    outer = {name: value for name, value in changes.items() if name in names}
    inner = {name: value for name, value in changes.items() if name not in names}
    return Train(**plain, **outer, objective=inner)


def tensors(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, 5, 5, generator=generator, dtype=dtype) for _ in range(3)]


@pytest.mark.parametrize("level", [FLOW, DIFFUSION], ids=["flow", "diffusion"])
@pytest.mark.parametrize("wanted", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_every_prediction_converts_to_every_other_and_back(source, wanted, level):
    latents, noise, _ = tensors()
    z = objectives.noisy(latents, noise, level)
    value = objectives.target(source, latents, noise, level)
    converted = objectives.convert(source, wanted, value, z, level)
    torch.testing.assert_close(converted, objectives.target(wanted, latents, noise, level))
    torch.testing.assert_close(objectives.convert(wanted, source, converted, z, level), value)
    for found, true in zip(
        objectives.latents_and_noise(source, value, z, level), (latents, noise), strict=True
    ):
        torch.testing.assert_close(found, true)


def test_v_and_flow_are_solved_at_pure_noise_and_at_none():
    latents, noise, _ = tensors()
    ends = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    level = NoiseLevel(1 - ends, ends, ends)
    z = objectives.noisy(latents, noise, level)
    for kind in ("v", "flow"):
        value = objectives.target(kind, latents, noise, level)
        found, found_noise = objectives.latents_and_noise(kind, value, z, level)
        torch.testing.assert_close(found, latents)
        torch.testing.assert_close(found_noise, noise)


@pytest.mark.parametrize("weighting", ["min_snr", "min_snr_plus_one", "soft_min_snr"])
@pytest.mark.parametrize("level", [FLOW, DIFFUSION], ids=["flow", "diffusion"])
def test_a_weighting_is_one_loss_whatever_is_predicted(level, weighting):
    """The same wrong guess of x0 costs the same in every prediction's space."""
    latents, noise, guess = tensors()
    z = objectives.noisy(latents, noise, level)
    losses = []
    for kind in KINDS:
        output = objectives.convert("x0", kind, guess, z, level)
        error = (output - objectives.target(kind, latents, noise, level)).square().flatten(1).mean(1)
        losses.append(error * objectives.prediction_weight(weighting, kind, level, 5.0, 0.5))
    direct = (guess - latents).square().flatten(1).mean(1)
    expected = direct * objectives.x0_weight(weighting, level.snr, 5.0, 0.5)
    for loss in losses:
        torch.testing.assert_close(loss, expected)


def test_min_snr_has_the_published_form_for_each_prediction():
    snr = DIFFUSION.snr
    small = snr.clamp(max=5.0)
    for kind, expected in (("x0", small), ("epsilon", small / snr), ("v", small / (snr + 1))):
        torch.testing.assert_close(objectives.prediction_weight("min_snr", kind, DIFFUSION), expected)
    shifted = (snr + 1).clamp(max=5.0) / (snr + 1)
    torch.testing.assert_close(objectives.prediction_weight("min_snr_plus_one", "v", DIFFUSION), shifted)
    soft = 5 * snr / (snr + 5) / (snr + 1)
    torch.testing.assert_close(objectives.prediction_weight("soft_min_snr", "v", DIFFUSION), soft)
    torch.testing.assert_close(
        objectives.prediction_weight("min_snr", "flow", FLOW), FLOW.snr.clamp(max=5.0) * T.square()
    )


@pytest.mark.parametrize("weighting", ["min_snr", "min_snr_plus_one", "soft_min_snr"])
def test_weights_are_finite_at_both_ends(weighting):
    ends = torch.tensor([0.0, 1.0])
    level = NoiseLevel(1 - ends, ends, ends)
    weight = objectives.prediction_weight(weighting, "v", level, 5.0, 0.25)
    assert weight.isfinite().all() and weight[1] >= 0.25


def test_the_default_objective_is_the_rectified_flow_of_before_to_the_bit():
    latents, noise, output = tensors(dtype=torch.float32)
    normals = torch.randn(4, generator=torch.Generator().manual_seed(9))
    objective = TrainingObjective(settings(logit_mean=0.3, logit_std=0.9, timestep_shift=2.0))
    level = objective.levels(normals, (64, 48))
    timestep = torch.sigmoid(0.3 + 0.9 * normals)
    timestep = 2.0 * timestep / (1 + 1.0 * timestep)
    assert torch.equal(level.timestep, timestep)
    t = timestep.reshape(-1, 1, 1, 1)
    expected = (1 - t) * latents + t * noise
    assert torch.equal(objective.noisy(latents, noise, level), expected)
    losses = objective.losses(output, latents, noise, level)
    assert torch.equal(losses, (output - (noise - latents)).square().flatten(1).mean(dim=1))


@pytest.mark.parametrize("prediction", ["v", "epsilon", "x0"])
def test_a_diffusion_loss_is_zero_for_the_true_output_alone(prediction):
    latents, noise, _ = tensors(dtype=torch.float32)
    objective = TrainingObjective(settings(prediction=prediction, schedule="scaled_linear"))
    level = objective.levels(torch.tensor([-2.0, -0.5, 0.5, 2.0]), (64, 64))
    torch.testing.assert_close(level.signal.square() + level.noise.square(), torch.ones(4))
    true = objectives.target(prediction, latents, noise, level)
    torch.testing.assert_close(objective.losses(true, latents, noise, level), torch.zeros(4))
    loss = objective.losses(true + 0.5, latents, noise, level)
    torch.testing.assert_close(loss, torch.full((4,), 0.25))


@pytest.mark.parametrize("density", ["logit_normal", "uniform", "mode", "cosmap", "log_normal"])
@pytest.mark.parametrize(
    "options",
    [{}, {"prediction": "v", "schedule": "scaled_linear", "weighting": "min_snr"}],
    ids=["flow", "v"],
)
def test_an_objective_computes_where_the_samples_are(options, density):
    """Tensors without a place in memory refuse to meet those of the CPU, as a GPU's do."""
    objective = TrainingObjective(settings(timestep_density=density, **options))
    latents = torch.zeros(4, 3, 5, 5, device="meta")
    level = objective.levels(torch.zeros(4, device="meta"), (64, 64))
    noisy = objective.noisy(latents, latents, level)
    assert objective.losses(noisy, latents, latents, level).device.type == "meta"


# Densities


def normals(num=200_000):
    return torch.special.ndtri((torch.arange(num, dtype=torch.float64) + 0.5) / num)


@pytest.mark.parametrize("density", ["logit_normal", "uniform", "mode", "cosmap", "log_normal"])
def test_timesteps_lie_in_0_to_1_and_grow_with_their_normal_number(density):
    drawn = objectives.draw_timestep(density, normals(), 0.0, 1.0, 1.29)
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert (drawn.diff() >= 0).all() and drawn[-1] > drawn[0] + 0.9


def test_uniform_is_uniform_and_mode_with_scale_0_too():
    for drawn in (objectives.uniform(normals()), objectives.mode_timestep(normals(), 0.0)):
        counts = torch.histc(drawn.double(), 10, 0, 1)
        torch.testing.assert_close(counts, torch.full((10,), 20_000.0, dtype=torch.float64), atol=2, rtol=0)


def test_mode_prefers_the_middle_and_is_not_mirrored():
    """Density 1 / |f'| of f(u) = 1 - u - s (cos^2(pi u / 2) - 1 + u): the middle's is 1 / (1 + s - s pi / 2)."""
    drawn = objectives.mode_timestep(normals(), 1.29)
    middle = float(((drawn > 0.49) & (drawn < 0.51)).double().mean()) / 0.02
    assert middle == pytest.approx(1 / (1 + 1.29 - 1.29 * math.pi / 2), rel=0.02)
    ends = float((drawn < 0.05).double().mean()) / 0.05
    assert ends == pytest.approx(1 / (1 + 1.29), rel=0.1)
    assert float(drawn.mean()) == pytest.approx(0.5, abs=1e-4)
    high = objectives.mode_timestep(normals(), 1.29)[normals() > 1]
    assert high.min() > 0.5  # the same direction as logit_normal


def test_cosmap_has_its_density():
    drawn = objectives.cosmap_timestep(normals())
    edges = torch.linspace(0, 1, 11, dtype=torch.float64)
    places = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    density = objectives.cosmap_density(places)
    for low, high in pairwise(edges):
        inside = (places >= low) & (places <= high)
        mass = torch.trapezoid(density[inside], places[inside])
        assert float(((drawn >= low) & (drawn < high)).double().mean()) == pytest.approx(
            float(mass), abs=1e-3
        )


def test_edms_log_normal_sigma_is_the_logit_normal_timestep():
    level = TrainingObjective(settings(timestep_density="log_normal", logit_mean=-0.6, logit_std=1.2)).levels(
        normals(1000).float(), (64, 64)
    )
    torch.testing.assert_close(level.sigma.log(), (-0.6 + 1.2 * normals(1000)).float(), atol=1e-4, rtol=1e-4)


def test_edms_log_normal_sigma_takes_the_nearest_timestep_of_a_schedule():
    wanted = settings(
        prediction="v",
        schedule="scaled_linear",
        timestep_density="log_normal",
        logit_mean=-0.6,
        logit_std=1.2,
    )
    level = TrainingObjective(wanted).levels(normals(1000).float(), (64, 64))
    wanted = (-0.6 + 1.2 * normals(1000).float()).double()
    table = objectives.sigma_table(objectives.beta_table("scaled_linear", 1000, 0.00085, 0.012)).log()
    nearest = (table[None] - wanted[:, None]).abs().argmin(dim=1)
    assert len(nearest.unique()) > 400
    assert torch.equal((level.timestep * 1000).round().long(), nearest)


def test_a_shift_multiplies_sigma_in_flow_and_in_diffusion():
    flow = objectives.flow_level(objectives.shift_timestep(T, 3.0))
    torch.testing.assert_close(flow.sigma, 3 * FLOW.sigma)
    abar = objectives.beta_table("scaled_linear", 1000, 0.00085, 0.012)
    twice = objectives.scale_sigma(abar, 2.0)
    torch.testing.assert_close(objectives.sigma_table(twice), 2 * objectives.sigma_table(abar))


def test_sd3s_resolution_shift_is_the_square_root_of_the_ratio_of_areas():
    assert objectives.resolution_shift(1024 * 1024, 512) == 2.0
    assert objectives.resolution_shift(1024 * 1024, 256) == 4.0
    assert objectives.resolution_shift(2048 * 512, 1024, 3.0) == 3.0
    assert objectives.resolution_shift(123, 0, 3.0) == 3.0
    objective = TrainingObjective(settings(timestep_shift=1.5, shift_base_px=64))
    small, large = (objective.levels(normals(100).float(), (side, side)) for side in (64, 128))
    torch.testing.assert_close(large.sigma, 2 * small.sigma, rtol=1e-4, atol=1e-6)
    plain = torch.sigmoid(normals(100).float())
    torch.testing.assert_close(small.timestep, objectives.shift_timestep(plain, 1.5))


# The log


def test_the_log_tells_where_the_weight_lies():
    line = TrainingObjective(settings()).describe([(64, 64), (96, 64)])
    assert line.startswith(
        "objective flow on flow, timesteps logit_normal, weighting none; share of weight by"
    )
    assert line.endswith("above 29 0.04%")
    shares = TrainingObjective(settings()).band_shares((64, 64))
    assert float(shares.sum()) == pytest.approx(1)
    # ln sigma ~ N(0, 1): the share between sigma 1 and 3 is Phi(ln 3) - 1/2.
    assert float(shares[3]) == pytest.approx(
        torch.special.ndtr(torch.tensor(math.log(3))).item() - 0.5, abs=1e-3
    )


# Prior preservation


def test_prior_preservation_is_the_papers_sum_of_two_means_however_the_batch_is_cut():
    losses = torch.tensor([1.0, 2.0, 3.0, 10.0, 20.0, 30.0], dtype=torch.float64)
    is_prior = torch.tensor([False, True, False, True, False, False])
    weights = objectives.prior_weights(is_prior, 0.5).double()
    expected = losses[~is_prior].mean() + 0.5 * losses[is_prior].mean()
    assert float((weights * losses).mean()) == pytest.approx(float(expected))
    parts = [(weights * losses)[part].sum() for part in (slice(0, 4), slice(4, 6))]
    assert float(sum(parts) / 6) == pytest.approx(float(expected))


def test_prior_preservation_names_what_a_batch_lacks():
    with pytest.raises(ValueError, match="has no pictures of the class"):
        objectives.prior_weights(torch.zeros(4, dtype=torch.bool), 1.0)
    with pytest.raises(ValueError, match="has no pictures of the subject"):
        objectives.prior_weights(torch.ones(4, dtype=torch.bool), 1.0)
    with pytest.raises(ValueError, match="-1 is negative"):
        objectives.prior_weights(torch.tensor([True, False]), -1.0)
