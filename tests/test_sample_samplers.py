"""Samplers on data whose true prediction is known: normal numbers of a chosen spread."""

import math

import pytest
import torch
from test_objectives_algebra import settings

from darkroom import objectives
from darkroom.objectives import NoiseLevel
from darkroom.sample.samplers import OURS, SAMPLERS, OwnSampler, make_sampler
from darkroom.sample.schedulers import make_scheduler

NUM = 50_000
TERMINAL = {"prediction": "v", "schedule": "scaled_linear", "zero_terminal_snr": True}


def config(**options):
    return make_scheduler(settings(**options), 64 * 64).config


def true_output(prediction, z, level, std):
    """The best prediction for data ~ N(0, std^2): E[x0 | z] = a std^2 z / (a^2 std^2 + s^2), E[e | z] likewise."""
    variance = level.signal**2 * std**2 + level.noise**2
    latents, noise = level.signal * std**2 / variance * z, level.noise / variance * z
    return objectives.target(prediction, latents, noise, level)


def draw(sampler, prediction, std, num_steps, table=None):
    """NUM pictures of one pixel, drawn as a pipeline does."""
    generator = torch.Generator().manual_seed(0)
    sampler.generators = [generator]
    sampler.set_timesteps(num_steps)
    # Quantiles, so that what spread is lost or won is the sampler's.
    places = (torch.arange(NUM, dtype=torch.float64) + 0.5) / NUM
    z = torch.special.ndtri(places).float()[None] * sampler.init_noise_sigma
    for timestep in sampler.timesteps:
        shown = sampler.scale_model_input(z, timestep)
        if table is None:
            level = objectives.flow_level((timestep / 1000).reshape(1).float())
        else:
            abar = table[timestep.long()].reshape(1).float()
            level = NoiseLevel(abar.sqrt(), (1 - abar).sqrt(), timestep / 1000)
        z = sampler.step(true_output(prediction, shown, level, std), timestep, z, return_dict=False)[0]
    return z


@pytest.mark.parametrize("std", [1.0, 0.3])
@pytest.mark.parametrize("name", ["euler", "heun", "euler-stochastic", "dpm++"])
def test_a_flow_sampler_keeps_the_spread_of_the_data_within_2_percent(name, std):
    drawn = draw(make_sampler(name, config()), "flow", std, 100)
    assert float(drawn.std()) == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize("name", ["euler", "heun", "euler-stochastic", "dpm++"])
def test_a_shift_that_a_pipeline_gives_for_a_size_counts_where_the_model_wants_one(name):
    """FLUX's pipeline gives mu to every scheduler; exp(mu) is the shift."""
    fixed = {**config(), "shift": math.exp(0.7)}
    samplers = [
        make_sampler(name, found) for found in (fixed, fixed, {**config(), "use_dynamic_shifting": True})
    ]
    samplers[0].set_timesteps(6)
    for sampler, mu in zip(samplers[1:], (2.0, 0.7), strict=True):
        sampler.set_timesteps(6, mu=mu)
        torch.testing.assert_close(sampler.timesteps.float(), samplers[0].timesteps.float())


def test_sd3_from_scratch_added_noise_without_the_score_and_widened_what_it_drew():
    """Its sampler on the same data: 1.19 instead of 1. Ours takes the score's term: 0.99 (an ODE has 0.988)."""
    sampler = OwnSampler("euler-stochastic")
    ours = float(draw(sampler, "flow", 1.0, 100).std())
    assert ours == pytest.approx(0.991, abs=0.006)
    plain = float(draw(OwnSampler("euler"), "flow", 1.0, 100).std())
    assert plain == pytest.approx(0.988, abs=0.004)
    full = sampler._diffusion
    sampler._diffusion = lambda noise, here, following, generator: full(
        torch.zeros_like(noise), here, following, generator
    )
    assert float(draw(sampler, "flow", 1.0, 100).std()) == pytest.approx(1.19, abs=0.01)


@pytest.mark.parametrize("std, tolerance", [(1.0, 0.02), (0.3, 0.08)])
@pytest.mark.parametrize("name", ["euler", "heun", "ddim", "dpm++"])
@pytest.mark.parametrize(
    "options",
    [
        TERMINAL,
        {**TERMINAL, "zero_terminal_snr": False},
        {"prediction": "epsilon", "schedule": "scaled_linear"},
    ],
    ids=["terminal", "v", "epsilon"],
)
def test_a_diffusion_sampler_keeps_the_spread_of_the_data(name, std, tolerance, options):
    """The last step goes from sigma 0.1 to 0 at once: what is narrower than that is drawn too narrow by all."""
    table = objectives.noise_table(settings(**options), 64 * 64)
    drawn = draw(make_sampler(name, config(**options)), options["prediction"], std, 100, table)
    assert float(drawn.std()) == pytest.approx(std, rel=tolerance)


def test_heun_is_nearer_than_euler_with_as_many_calls_of_the_model():
    euler, heun = (make_sampler(name, config()) for name in ("euler", "heun"))
    errors = [abs(float(draw(s, "flow", 0.5, n).std()) - 0.5) for s, n in ((euler, 19), (heun, 10))]
    assert len(heun.timesteps) == len(euler.timesteps) == 19
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize("name", OURS)
def test_a_known_picture_is_reached_from_any_noise(name):
    sampler, picture = (
        make_sampler(name, config(timestep_shift=3.0)),
        torch.linspace(-1, 1, 64).reshape(1, 64),
    )
    sampler.set_timesteps(5)
    z = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    for timestep in sampler.timesteps:
        z = sampler.step((z - picture) / (timestep / 1000), timestep, z)[0]
    torch.testing.assert_close(z, picture, atol=1e-5, rtol=0)


def test_euler_is_ddim_in_diffusion_and_the_flow_step_in_flow():
    v, flow = config(**{**TERMINAL, "zero_terminal_snr": False}), config(timestep_shift=3.0)
    table = objectives.noise_table(settings(**{**TERMINAL, "zero_terminal_snr": False}), 64 * 64)
    ours, theirs = (draw(make_sampler(name, v), "v", 0.6, 12, table) for name in ("euler", "ddim"))
    torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-2)
    sampler = make_sampler("euler", flow)
    sampler.set_timesteps(4)
    assert sampler.timesteps.tolist() == pytest.approx([1000, 900, 750, 500])
    z, velocity = torch.ones(1, 3), torch.full((1, 3), 2.0)
    torch.testing.assert_close(sampler.step(velocity, 1000, z)[0], z + (0.9 - 1.0) * velocity)


@pytest.mark.parametrize("options", [{}, TERMINAL], ids=["flow", "terminal"])
@pytest.mark.parametrize("name", OURS)
def test_a_sampler_computes_where_the_latents_are(name, options):
    """Tensors without a place in memory refuse to meet those of the CPU, as a GPU's do."""
    if name == "euler-stochastic" and options:
        return
    sampler = make_sampler(name, config(**options))
    sampler.set_timesteps(3, device="meta")
    z = torch.zeros(2, 3, 4, 4, device="meta")
    for timestep in sampler.timesteps:
        z = sampler.step(torch.zeros_like(z), timestep, z)[0]
    assert z.device.type == "meta" and z.shape == (2, 3, 4, 4)


def test_stochastic_noise_comes_from_each_pictures_own_generator():
    def run(seeds):
        sampler = OwnSampler("euler-stochastic")
        sampler.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        sampler.set_timesteps(3)
        z = torch.zeros(len(seeds), 1, 4, 4)
        for timestep in sampler.timesteps:
            z = sampler.step(torch.zeros_like(z), timestep, z)[0]
        return z

    together, alone = run([1, 2]), run([2])
    torch.testing.assert_close(together[1:], alone)
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("euler a", {}, "'euler a' is none of euler, heun, euler-stochastic, ddim, dpm"),
        ("ddim", {}, "would be euler"),
        ("euler-stochastic", TERMINAL, "write euler, heun, ddim or dpm"),
    ],
)
def test_a_sampler_that_does_not_fit_says_which_would(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_sampler(name, config(**options))


def test_every_sampler_begins_at_the_noisiest_timestep():
    for options in ({}, TERMINAL):
        for name in SAMPLERS:
            if name not in (("ddim",) if not options else ("euler-stochastic",)):
                sampler = make_sampler(name, config(**options))
                sampler.set_timesteps(7)
                assert float(sampler.timesteps[0]) >= 999 and math.isfinite(float(sampler.timesteps[-1]))
