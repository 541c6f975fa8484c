"""The terms of an autoencoder's loss, against their formulas and other people's code."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from test_models_clip import save_clip
from torch import nn
from transformers import CLIPImageProcessor, CLIPModel

from darkroom.autoencoder.discriminator import built, smallest_picture
from darkroom.autoencoder.losses import (
    adaptive_weight,
    generator_loss,
    hinge_loss,
    kl_divergence,
    reconstruction_loss,
)
from darkroom.autoencoder.quality import mean_absolute_error, psnr, ssim
from darkroom.components.base import Component
from darkroom.perceptual.table import PERCEPTUAL

DEMO_CLIP = Component(kind="clip", path=str(Path(__file__).parents[1] / "src/darkroom_demo/components/clip"))


def test_reconstruction_is_the_mean_error_of_all_numbers() -> None:
    one, other = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)
    assert reconstruction_loss(one, other, "l1") == 0.5 and reconstruction_loss(one, other, "l2") == 0.25


def test_the_kl_divergence_is_diffusers_over_the_numbers_of_a_picture() -> None:
    moments = torch.randn(3, 8, 2, 2, generator=torch.Generator().manual_seed(0))
    wanted = DiagonalGaussianDistribution(moments).kl().mean() / 48
    mean, log_variance = moments.chunk(2, dim=1)
    torch.testing.assert_close(kl_divergence(mean, log_variance, 48), wanted)
    normal = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    same = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0, 1)).sum() / 3 / 48
    torch.testing.assert_close(kl_divergence(mean, log_variance, 48), same)
    assert kl_divergence(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), 1) == 0


def test_the_hinge_counts_what_is_less_than_one_on_the_right_side() -> None:
    of_pictures, of_reconstructions = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0])
    # Of pictures 0, 0.5 and 2; of reconstructions 0 and 1.
    assert hinge_loss(of_pictures, of_reconstructions).item() == pytest.approx(0.5 * (2.5 / 3 + 1 / 2))
    assert generator_loss(of_reconstructions).item() == pytest.approx(1.5)


@pytest.mark.parametrize(("slopes", "wanted"), [((3.0, 0.5), 6 / (1 + 1e-4)), ((1.0, 0.0), 1e4)])
def test_the_adaptive_weight_is_the_ratio_of_gradients(slopes: tuple[float, float], wanted: float) -> None:
    # Four weights with the same gradient each: its length is twice the slope.
    layer = torch.ones(4, requires_grad=True)
    loss, adversarial = (slope * layer.sum() for slope in slopes)
    weight = adaptive_weight(loss, adversarial, layer)
    assert weight.item() == pytest.approx(wanted) and not weight.requires_grad


def test_with_its_weight_the_discriminator_pulls_the_decoder_as_the_reconstruction_does() -> None:
    torch.manual_seed(0)
    decoder, discriminator = nn.Conv2d(2, 3, 3, padding=1), built(1, 4, seed=0)
    pictures, found = torch.rand(2, 3, 16, 16), decoder(torch.randn(2, 2, 16, 16))
    loss, adversarial = (found - pictures).abs().mean(), generator_loss(discriminator(found))
    weight = adaptive_weight(loss, adversarial, decoder.weight)
    lengths = [
        torch.autograd.grad(term, decoder.weight, retain_graph=True)[0].norm()
        for term in (loss, weight * adversarial)
    ]
    assert lengths[1].item() == pytest.approx(lengths[0].item(), rel=2e-2)


@pytest.mark.parametrize(("num_layers", "side"), [(1, 16), (2, 34), (3, 70)])
def test_a_number_of_the_discriminator_sees_a_patch(num_layers: int, side: int) -> None:
    # Isola et al. 2017, section 6.1.2: the discriminators of 16 x 16 and of 70 x 70.
    discriminator = built(num_layers, 2, seed=0).eval()
    pictures = torch.randn(1, 3, 160, 160, requires_grad=True)
    outputs = discriminator(pictures)
    middle = outputs.shape[-1] // 2
    (gradient,) = torch.autograd.grad(outputs[0, 0, middle, middle], pictures)
    seen = gradient[0].abs().sum(dim=0) > 0
    assert (seen.any(dim=0).sum(), seen.any(dim=1).sum()) == (side, side)


def test_the_smallest_picture_leaves_one_number_and_a_smaller_one_none() -> None:
    for num_layers in (1, 2, 3):
        discriminator, side = built(num_layers, 2, seed=0).eval(), smallest_picture(num_layers)
        assert discriminator(torch.zeros(1, 3, side, side)).numel() == 1
        with pytest.raises(RuntimeError):
            discriminator(torch.zeros(1, 3, side - 1, side - 1))


def test_psnr_ssim_and_l1_are_scikit_images() -> None:
    rng = np.random.default_rng(3)
    pictures = rng.random((3, 3, 24, 32))
    found = np.clip(pictures + rng.normal(0, [[[[0.02]]], [[[0.1]]], [[[0.4]]]], pictures.shape), 0, 1)
    one, other = torch.from_numpy(found), torch.from_numpy(pictures)
    for place in range(3):
        similar = structural_similarity(
            found[place], pictures[place], data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )  # fmt: skip
        assert ssim(one, other)[place].item() == pytest.approx(similar, abs=1e-9)
        wanted = peak_signal_noise_ratio(pictures[place], found[place], data_range=1.0)
        assert psnr(one, other)[place].item() == pytest.approx(wanted)
    assert mean_absolute_error(one, other)[2].item() == pytest.approx(np.abs(found - pictures)[2].mean())
    assert torch.isinf(psnr(one, one)).all() and torch.allclose(ssim(one, one), torch.ones(3).double())


def test_the_clip_distance_is_lpips_formula_on_the_layers_of_its_image_encoder(tmp_path: Path) -> None:
    saved = save_clip(tmp_path)
    section = PERCEPTUAL["clip"].section(kind="clip", clip="saved")
    distance = PERCEPTUAL["clip"].load(section, {"saved": Component(kind="clip", path=str(saved))}, "cpu")
    model = CLIPModel.from_pretrained(saved)
    size = model.config.vision_config.image_size
    # Of the size that it takes: nothing is resized.
    one, other = torch.rand(2, 2, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    processor = CLIPImageProcessor.from_pretrained(saved)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (processor.image_mean, processor.image_std))
    states = [
        model.vision_model(pixel_values=((x + 1) / 2 - mean) / std, output_hidden_states=True).hidden_states[
            1:
        ]
        for x in (one, other)
    ]
    of_layers = []
    for a, b in zip(*states, strict=True):
        cosine = nn.functional.cosine_similarity(a, b, dim=-1)
        # |a - b|^2 of vectors of length 1.
        of_layers.append((2 - 2 * cosine).mean().item())
    assert distance(one, other).item() == pytest.approx(np.mean(of_layers), rel=1e-4)
    assert distance(one, one).item() == pytest.approx(0, abs=1e-9)


def test_openais_clip_gives_pictures_a_gradient_and_learns_nothing() -> None:
    section = PERCEPTUAL["clip"].section(kind="clip", clip="demo-clip")
    distance = PERCEPTUAL["clip"].load(section, {"demo-clip": DEMO_CLIP}, "cpu")
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    near = (pictures + 0.05 * torch.ones_like(pictures)).requires_grad_()
    far = pictures.flip(-1)
    found = distance(near, pictures)
    found.backward()
    assert near.grad is not None and near.grad.abs().sum() > 0
    assert 0 < found.item() < distance(far, pictures).item() and math.isfinite(found.item())
