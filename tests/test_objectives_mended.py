"""Defects of five published training systems, each with a test that it is not ours.

The systems: PixelProse-PowerUp (SD3), Stable Diffusion 3 from scratch, DreamBooth with ColossalAI, the SDXL
improvements from NovelAI's paper, and open-diffusion.
"""

import math

import torch
from diffusers import AutoencoderKL
from test_components import write_vae
from test_objectives_algebra import normals, settings

from darkroom import objectives
from darkroom.components.vae import decode_latents, encode_latents
from darkroom.objectives import NoiseLevel, TrainingObjective
from darkroom.sample.schedulers import make_scheduler
from darkroom.train.step import learning_rate_at

V = {"prediction": "v", "schedule": "scaled_linear"}


def test_pixelprose_weighed_the_flow_loss_by_sigma_squared_and_ours_is_plain():
    """Regressing x0 = z - t F, the gradient on F is t^2 times that of |F - (e - x0)|^2."""
    latents, noise, output = torch.randn(3, 6, 4, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    objective = TrainingObjective(settings())
    level = objective.levels(normals(6).float(), (64, 64))
    output.requires_grad_()
    objective.losses(output, latents, noise, level).sum().backward()
    plain = 2 * (output.detach() - (noise - latents)) / latents[0].numel()
    torch.testing.assert_close(output.grad, plain)
    assert level.timestep.square().max() / level.timestep.square().min() > 5  # theirs would differ as much


def test_diffusers_sd3_examples_turned_logit_mean_round_and_ours_biases_to_noise():
    mean = [
        float(TrainingObjective(settings(logit_mean=m)).levels(normals(10_000), (64, 64)).timestep.mean())
        for m in (-1.0, 0.0, 1.0)
    ]
    assert mean[0] < 0.35 and abs(mean[1] - 0.5) < 0.01 and mean[2] > 0.65


def test_pixelprose_forgot_the_shift_of_sd3s_latents_and_ours_are_moved_then_scaled(tmp_path):
    vae = AutoencoderKL.from_pretrained(write_vae(tmp_path / "vae", shift=0.0609)).eval()
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        plain = vae.encode(images).latent_dist.mode()
        latents = encode_latents(vae, images)
        torch.testing.assert_close(latents, (plain - 0.0609) * 1.5305)
        torch.testing.assert_close(decode_latents(vae, latents), vae.decode(plain).sample)


def test_sd3_from_scratch_scaled_latents_before_the_shift_which_diffusers_would_not_undo(tmp_path):
    vae = AutoencoderKL.from_pretrained(write_vae(tmp_path / "vae", shift=0.3)).eval()
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        plain = vae.encode(images).latent_dist.mode()
        theirs = plain * vae.config["scaling_factor"] + vae.config["shift_factor"]
        assert (
            decode_latents(vae, encode_latents(vae, images)) - vae.decode(plain).sample
        ).abs().max() < 1e-4
        assert (decode_latents(vae, theirs) - vae.decode(plain).sample).abs().max() > 1e-2


def test_novelai_reproduction_lost_the_picture_in_its_v_and_ours_has_both_terms():
    """Its target was e / sqrt(sigma^2 + 1); v = (e - sigma x0) / sqrt(sigma^2 + 1)."""
    latents, noise = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0)).unbind()
    level = TrainingObjective(settings(**V)).levels(torch.tensor([-1.0, 0.0, 1.0, 2.0]), (64, 64))
    latents, noise = latents.expand(4, 3, 3).reshape(4, 1, 3, 3), noise.reshape(4, 1, 3, 3)
    v = objectives.target("v", latents, noise, level)
    sigma = level.sigma.reshape(4, 1, 1, 1)
    torch.testing.assert_close(v, (noise - sigma * latents) / torch.sqrt(sigma**2 + 1))
    assert (v - noise / torch.sqrt(sigma**2 + 1)).abs().max() > 0.1


def test_novelai_reproduction_swapped_v_s_coefficients_and_ours_gives_x0_back():
    """x0 = alpha z - s v. Its sqrt(c_skip) x0 + c_out e was alpha x0 - s e, neither v nor -v."""
    latents, noise = torch.randn(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(1)).unbind()
    level = NoiseLevel(torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.9, 0.5, 0.1]).square().neg().add(1).sqrt(),
                       torch.zeros(3))  # fmt: skip
    z, v = objectives.noisy(latents, noise, level), objectives.target("v", latents, noise, level)
    alpha, s = (part.reshape(3, 1, 1, 1) for part in (level.signal, level.noise))
    torch.testing.assert_close(alpha * z - s * v, latents)
    assert (alpha * z - s * (alpha * latents - s * noise) - latents).abs().max() > 0.1


def test_novelai_reproduction_showed_unscaled_inputs_and_ours_have_unit_variance():
    """Without c_in an input at sigma 14.6 would have a standard deviation of 14.6."""
    latents, noise = torch.randn(2, 5, 4, 64, 64, generator=torch.Generator().manual_seed(0)).unbind()
    objective = TrainingObjective(settings(**V))
    level = objective.levels(torch.linspace(-3, 3, 5), (64, 64))
    spread = objective.noisy(latents, noise, level).flatten(1).std(dim=1)
    torch.testing.assert_close(spread, torch.ones(5), atol=0.02, rtol=0)
    assert level.sigma.max() > 14


def test_novelai_reproduction_trained_sigmas_from_1_17_to_1_90_and_ours_cover_the_schedule():
    sigma = TrainingObjective(settings(**V)).levels(normals(10_000), (64, 64)).sigma
    assert sigma.min() < 0.03 and sigma.max() > 14.6
    assert ((sigma < 1.168) | (sigma > 1.902)).double().mean() > 0.8


def test_novelai_reproduction_told_timesteps_the_wrong_way_round_and_ours_grow_with_sigma():
    for options in (V, {**V, "zero_terminal_snr": True}, {}):
        level = TrainingObjective(settings(**options)).levels(normals(2000), (64, 64))
        order = level.timestep.argsort()
        assert (level.sigma[order].diff().nan_to_num(0.0) >= 0).all()
        assert level.timestep.max() > 0.95


def test_novelai_reproduction_multiplied_a_cumulative_product_again_and_ours_is_multiplied_once():
    abar = objectives.beta_table("scaled_linear", 1000, 0.00085, 0.012)
    betas = torch.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000, dtype=torch.float64).square()
    torch.testing.assert_close(abar[-1], torch.prod(1 - betas))
    assert float(torch.cumprod(abar, 0)[-1]) < 1e-100


def test_novelai_reproduction_used_the_x0_weight_for_v_and_ours_is_converted():
    level = TrainingObjective(settings(**V)).levels(normals(1000), (64, 64))
    weight = objectives.prediction_weight("min_snr", "v", level)
    torch.testing.assert_close(weight, level.snr.clamp(max=5) / (level.snr + 1))
    assert (level.snr.clamp(max=5) - weight).abs().max() > 4


def test_open_diffusion_regressed_the_noise_whatever_the_scheduler_said_and_ours_agree():
    latents, noise = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    for prediction, name in (("epsilon", "epsilon"), ("v", "v_prediction"), ("x0", "sample")):
        wanted = settings(prediction=prediction, schedule="scaled_linear")
        objective, scheduler = TrainingObjective(wanted), make_scheduler(wanted, 64 * 64)
        level = objective.levels(torch.tensor([-1.5, -0.5, 0.5, 1.5]), (64, 64))
        assert scheduler.config.prediction_type == name
        index = (level.timestep * 1000).round().long()
        z = objective.noisy(latents, noise, level)
        torch.testing.assert_close(z, scheduler.add_noise(latents, noise, index), atol=1e-5, rtol=1e-4)
        true = {"epsilon": noise, "v": scheduler.get_velocity(latents, noise, index), "x0": latents}[
            prediction
        ]
        assert float(objective.losses(true, latents, noise, level).max()) < 1e-9


def test_open_diffusions_average_of_138_steps_shows_in_the_log_as_its_half_life():
    assert round(objectives.half_life_steps(0.995)) == 138


def test_novelai_reproduction_scaled_sdxl_latents_by_another_vaes_factor_and_ours_ask_the_vae(tmp_path):
    vae = AutoencoderKL.from_pretrained(write_vae(tmp_path / "vae", shift=None)).eval()
    vae.register_to_config(scaling_factor=0.13025)
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        plain = vae.encode(images).latent_dist.mode()
    torch.testing.assert_close(encode_latents(vae, images), plain * 0.13025)


def test_pixelprose_and_open_diffusion_warmed_up_in_micro_steps_and_ours_counts_optimizer_steps():
    base = settings().model_copy(update={"num_steps": 100, "num_warmup_steps": 10, "global_batch_size": 16})
    rates = [
        [learning_rate_at(step, base.model_copy(update={"microbatch_size": size})) for step in range(20)]
        for size in (16, 2)
    ]
    assert rates[0] == rates[1]
    assert rates[0][4] == base.learning_rate / 2 and rates[0][10] == base.learning_rate
