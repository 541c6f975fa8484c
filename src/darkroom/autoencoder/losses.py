"""What an autoencoder's training minimises, term by term.

The terms and their weights are those of Esser et al. 2021 (VQGAN, arXiv 2012.09841, section 3.1) and Rombach et
al. 2022 (latent diffusion, arXiv 2112.10752, appendix G), each divided by the numbers of a picture: there they are
sums over a picture, so that published weights mean the same here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Of the adaptive weight, as in VQGAN's code: below its length a gradient counts as none, and a weight's limit.
_EPSILON, _MAX_WEIGHT = 1e-4, 1e4


def reconstruction_loss(reconstructions: Tensor, pictures: Tensor, kind: str) -> Tensor:
    """Mean absolute ("l1") or squared ("l2") error of (B, 3, H, W), a scalar."""
    return (F.l1_loss if kind == "l1" else F.mse_loss)(reconstructions, pictures)


def kl_divergence(mean: Tensor, log_variance: Tensor, num_values: int) -> Tensor:
    """KL divergence of N(mean, exp(log_variance)) from N(0, 1), in nats, summed over a picture's latents.

    Args:
        mean, log_variance: (B, C, h, w).
        num_values: numbers of a picture, by which the sum is divided.

    Returns:
        The mean over pictures, a scalar: 1/2 sum(mean^2 + variance - 1 - log variance) / num_values.
    """
    of_each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return of_each.flatten(1).sum(dim=1).mean() / num_values


def hinge_loss(of_pictures: Tensor, of_reconstructions: Tensor) -> Tensor:
    """The discriminator's loss, 1/2 (E max(0, 1 - D(x)) + E max(0, 1 + D(x'))), from its outputs, any shapes."""
    return 0.5 * (F.relu(1 - of_pictures).mean() + F.relu(1 + of_reconstructions).mean())


def generator_loss(of_reconstructions: Tensor) -> Tensor:
    """The autoencoder's side of it: -E D(x')."""
    return -of_reconstructions.mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """How much the adversarial loss counts: |grad reconstruction| / (|grad adversarial| + 1e-4), at most 1e4.

    Gradients are those of the decoder's last layer (Esser et al. 2021, equation 7), so that both pull it alike.
    Has no gradient itself.
    """
    (one,) = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)
    (other,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    return (one.norm() / (other.norm() + _EPSILON)).clamp(0.0, _MAX_WEIGHT).detach()
