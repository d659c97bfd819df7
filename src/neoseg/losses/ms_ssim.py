"""MS-SSIM loss: one minus the structural similarity of probabilities and truth at several resolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from neoseg.losses.bounded_power import bounded_log
from neoseg.losses.configs import MsSsimTerm
from neoseg.losses.probabilities import probabilities_and_truth

__all__ = ["ms_ssim_loss", "usable_scales"]

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of each resolution, the finest first (Wang et al. 2003)."""

C1, C2 = 0.01**2, 0.03**2
"""What keeps the two quotients finite, for values from 0 to 1 (Wang et al. 2003)."""


def ms_ssim_loss(logits: Tensor, target: Tensor, config: MsSsimTerm) -> Tensor:
    """Return 1 - mean over samples and foreground classes of the MS-SSIM of p and g, from 0 (perfect) towards 1.

    p is the softmax of the logits (of regions the sigmoid), g the truth as 0 and 1. At each resolution m, from means,
    variances and covariance in a Gaussian window, cs_m = mean of (2 s_pg + C2) / (s_p^2 + s_g^2 + C2), and at the
    lowest one l cs, with l = (2 m_p m_g + C1) / (m_p^2 + m_g^2 + C1); the MS-SSIM is the product of the cs_m^w_m and (l
    cs)^w. Each resolution is the mean over two voxels a side of the one before. Windows lie within the patch.

    UNet 3+ (Huang et al., ICASSP 2020) takes it for its loss and prints l at every resolution. Wang et al., Multiscale
    structural similarity for image quality assessment, Asilomar 2003, whose exponents UNet 3+ quotes, have it at the
    lowest alone, as here. A patch that is too small for all resolutions uses the first ones,
    whose exponents are then divided by their sum. MONAI's MultiScaleSSIMMetric is the same number on large images; it
    refuses small ones, multiplies after averaging the classes, and its gradient is not a number where a cs_m is
    negative. Here the logarithm of a factor goes on as a line below 0.05.

    Args:
        logits: (B, K, ...) in two or three dimensions, of class indices K at least 2; computed in float32 or wider.
        target: class indices int64 (B, ...), or of regions bool (B, K, ...).
        config: window, sigma, scales.
    """
    with torch.autocast(logits.device.type, enabled=False):
        pair = torch.stack([part.flatten(0, 1) for part in probabilities_and_truth(logits, target)])
        scales = usable_scales(pair.shape[2:], config)
        exponents = [value / sum(EXPONENTS[:scales]) for value in EXPONENTS[:scales]]
        logarithm = pair.new_zeros(pair.shape[1])
        for scale, exponent in enumerate(exponents):
            if scale:
                pair = _halved(pair)
            luminance, structure = _similarities(pair[0], pair[1], config)
            factor = structure if scale < scales - 1 else luminance * structure
            logarithm = logarithm + exponent * bounded_log(factor.flatten(1).mean(1))
        return 1 - logarithm.exp().mean()


def usable_scales(size: Sequence[int], config: MsSsimTerm) -> int:
    """Return how many resolutions have a window of voxels or more on every axis: one at least, the wanted at most."""
    return max(scale for scale in range(1, config.scales + 1) if scale == 1 or min(size) >> scale - 1 >= config.window)


def _halved(images: Tensor) -> Tensor:
    """Return the means over blocks of two voxels a side; an odd last voxel is left out.

    Args:
        images: (2, N, ...) in two or three dimensions.
    """
    pool = functional.avg_pool2d if images.ndim == 4 else functional.avg_pool3d
    return pool(images, 2)


def _similarities(p: Tensor, g: Tensor, config: MsSsimTerm) -> tuple[Tensor, Tensor]:
    """Return luminance and contrast times structure in every window that lies within the images (N, ...)."""
    windowed = torch.stack([p, g, p.square() + g.square(), p * g])
    for axis in range(2, windowed.ndim):
        windowed = (windowed.movedim(axis, -1) @ _windows(windowed, axis, config)).movedim(-1, axis)
    mean_p, mean_g, squares, products = windowed.unbind()
    mean_squares, mean_product = mean_p.square() + mean_g.square(), mean_p * mean_g
    luminance = (2 * mean_product + C1) / (mean_squares + C1)
    structure = (2 * (products - mean_product) + C2) / (squares - mean_squares + C2)
    return luminance, structure


def _windows(images: Tensor, axis: int, config: MsSsimTerm) -> Tensor:
    """Return a matrix (voxels on the axis, places of the window), each column a Gaussian that sums to one."""
    size = images.shape[axis]
    width = min(config.window, size - 1 + size % 2)
    voxels = torch.arange(size, device=images.device, dtype=images.dtype)
    offset = voxels[:, None] - (voxels[: size - width + 1] + width // 2)
    gaussian = torch.exp(-(offset / config.sigma).square() / 2) * (offset.abs() <= width // 2)
    return gaussian / gaussian.sum(0)
