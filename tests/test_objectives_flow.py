"""The closed forms of rectified flow and of the learning rate."""

import math
from itertools import pairwise

import pytest
import torch
from test_objectives_algebra import settings

from darkroom import objectives

FLOW = objectives.TrainingObjective(settings())


def loss_of(velocity, latents, noise):
    """The default objective's losses, at timesteps of which they must not depend."""
    level = objectives.flow_level(torch.linspace(0.1, 0.9, len(latents)))
    return FLOW.losses(velocity, latents, noise, level)


def test_gradient_is_that_of_the_plain_squared_velocity_error():
    torch.manual_seed(0)
    latents, noise = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    velocity = torch.randn(4, 3, 5, 5, requires_grad=True)
    loss_of(velocity, latents, noise).sum().backward()
    expected = 2 * (velocity.detach() - (noise - latents)) / latents[0].numel()
    torch.testing.assert_close(velocity.grad, expected)


def test_loss_does_not_depend_on_the_timestep_of_the_noise():
    torch.manual_seed(0)
    latents, noise = torch.randn(8, 4, 4), torch.randn(8, 4, 4)
    loss = loss_of(noise - latents + 0.5, latents, noise)
    torch.testing.assert_close(loss, torch.full((8,), 0.25))


def test_loss_is_taken_in_float32_and_per_sample():
    latents = torch.zeros(2, 3, 4, 4)
    velocity = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 2.0)]).bfloat16()
    loss = loss_of(velocity, latents, latents)
    assert loss.dtype == torch.float32
    assert loss.tolist() == [0.0, 4.0]


def test_path_runs_from_the_latents_to_the_noise_at_the_velocity():
    torch.manual_seed(0)
    latents, noise = torch.randn(3, 2, 2, 2), torch.randn(3, 2, 2, 2)
    timestep = torch.tensor([0.0, 0.3, 1.0])
    level = objectives.flow_level(timestep)
    noisy = objectives.noisy(latents, noise, level)
    torch.testing.assert_close(noisy[0], latents[0])
    torch.testing.assert_close(noisy[2], noise[2])
    later = objectives.noisy(latents, noise, objectives.flow_level(timestep + 0.1))
    torch.testing.assert_close(
        (later - noisy) / 0.1, objectives.target("flow", latents, noise, level), atol=1e-5, rtol=0
    )
    back, _ = objectives.latents_and_noise(
        "flow", objectives.target("flow", latents, noise, level), noisy, level
    )
    torch.testing.assert_close(back, latents)


@pytest.mark.parametrize("logit_mean, logit_std", [(0.0, 1.0), (1.0, 1.0), (-0.5, 0.6)])
def test_logit_normal_density_integrates_to_one_and_matches_its_samples(logit_mean, logit_std):
    edges = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    density = objectives.logit_normal_density(middle, logit_mean, logit_std)
    width = edges[1] - edges[0]
    assert float(density.sum() * width) == pytest.approx(1, abs=1e-6)
    normals = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampled = objectives.logit_normal_timestep(normals, logit_mean, logit_std)
    assert float((density * middle).sum() * width) == pytest.approx(float(sampled.mean()), abs=3e-3)
    below = float((sampled < 0.3).double().mean())
    assert float(density[middle < 0.3].sum() * width) == pytest.approx(below, abs=5e-3)


def test_positive_logit_mean_means_more_noise():
    normals = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    middle = objectives.logit_normal_timestep(normals, 0.0, 1.0).mean()
    assert abs(float(middle) - 0.5) < 0.01
    assert objectives.logit_normal_timestep(normals, 1.0, 1.0).mean() > middle + 0.15
    assert objectives.logit_normal_timestep(normals, -1.0, 1.0).mean() < middle - 0.15


def test_shift_moves_timesteps_towards_noise_and_keeps_the_ends():
    timestep = torch.tensor([0.0, 0.25, 0.5, 1.0])
    shifted = objectives.shift_timestep(timestep, 3.0)
    torch.testing.assert_close(shifted, torch.tensor([0.0, 0.5, 0.75, 1.0]))
    assert objectives.shift_timestep(timestep, 1.0) is timestep
    torch.testing.assert_close(objectives.shift_timestep(shifted, 1 / 3), timestep)


def test_shifting_is_a_shift_of_the_logit():
    normals = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = settings(logit_mean=0.2, logit_std=1.1, timestep_shift=3.0)
    shifted = objectives.TrainingObjective(wanted).levels(normals, (64, 64)).timestep
    torch.testing.assert_close(shifted, objectives.logit_normal_timestep(normals, 0.2 + math.log(3), 1.1))


def test_learning_rate_warms_up_linearly_and_ends_at_the_minimum():
    rates = [objectives.learning_rate(step, 110, 1.0, 10, 0.1) for step in range(111)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[35] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[110] == pytest.approx(0.1)
    assert objectives.learning_rate(10_000, 110, 1.0, 10, 0.1) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"step": -1, "num_steps": 10, "peak": 1.0}, "step -1"),
        ({"step": 0, "num_steps": 10, "peak": 1.0, "num_warmup_steps": 10}, "num_warmup_steps 10"),
        ({"step": 0, "num_steps": 10, "peak": 1.0, "minimum": 2.0}, "min_learning_rate 2"),
    ],
)
def test_learning_rate_names_what_is_wrong(kwargs, message):
    with pytest.raises(ValueError, match=message):
        objectives.learning_rate(**kwargs)
