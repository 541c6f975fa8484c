"""How near reconstructions are to pictures: PSNR, SSIM and L1, picture by picture."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Of Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", section III.
_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03


def psnr(reconstructions: Tensor, pictures: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures (B, 3, H, W) in [0, 1]: (B,) 10 log10(1 / mean squared error).

    Equal pictures have infinity.
    """
    errors = (reconstructions.double() - pictures.double()).square().flatten(1).mean(dim=1)
    return -10 * torch.log10(errors)


def mean_absolute_error(reconstructions: Tensor, pictures: Tensor) -> Tensor:
    """(B,) of pictures (B, 3, H, W) in [0, 1]."""
    return (reconstructions.double() - pictures.double()).abs().flatten(1).mean(dim=1)


def ssim(reconstructions: Tensor, pictures: Tensor) -> Tensor:
    """Structural similarity (B,) of pictures (B, 3, H, W) in [0, 1], of each colour, then averaged.

    Wang et al. 2004: a Gaussian window of 11 x 11 with a standard deviation of 1.5 pixels, K1 = 0.01, K2 = 0.03;
    only where the window lies inside the picture.

    Raises:
        ValueError: a side is below 11 pixels.
    """
    if min(pictures.shape[-2:]) < _WINDOW:
        raise ValueError(f"SSIM needs pictures of {_WINDOW} x {_WINDOW} pixels or more")
    x, y = reconstructions.double(), pictures.double()
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x = _blurred(x * x) - mean_x**2
    variance_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    one, two = _K1**2, _K2**2
    alike = (2 * mean_x * mean_y + one) * (2 * covariance + two)
    return (alike / ((mean_x**2 + mean_y**2 + one) * (variance_x + variance_y + two))).flatten(1).mean(dim=1)


def _blurred(pictures: Tensor) -> Tensor:
    """Weighted by the window, which is a product of a column and a row."""
    places = torch.arange(_WINDOW, dtype=pictures.dtype, device=pictures.device) - _WINDOW // 2
    weights = torch.exp(-(places**2) / (2 * _SIGMA**2))
    weights = (weights / weights.sum()).expand(pictures.shape[1], 1, 1, -1)
    rows = F.conv2d(pictures, weights, groups=pictures.shape[1])
    return F.conv2d(rows, weights.transpose(2, 3), groups=pictures.shape[1])
