"""Faults of the scanner: motion ghosts, and the uneven sensitivity of a coil."""

from __future__ import annotations

import numpy as np
import torch
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray
from torch import Tensor

from .configs import AugmentConfig
from .transform import BatchInfo, Parameters, Transform, gated

__all__ = ["BIAS_FIELD", "GHOSTING", "ghost_copies", "log_field"]


def ghost_copies(n: int, period: int) -> list[tuple[int, float]]:
    """Return the copies of an axis of n voxels: cyclic shift in voxels, and sign. Never the image itself.

    A phase that swings with the period from line to line of k-space is, for a small w, a factor of line k of
    ``1 - 2 i w sin(2 pi k s / n)`` with ``s = n / period``: it adds w of the image shifted by s and takes away as much
    of that shifted by -s. Line 0 is not touched, so the sum of the image stays. Period 2 is a difference of odd and
    even lines, a factor ``1 + w cos(pi k)``: one copy, half the field away.

    Source: Wood and Henkelman, Medical Physics 12 (1985), on the places of ghosts of periodic disturbances.
    """
    if period == 2:
        return [(n // 2, 1.0)] if n > 1 else []
    shift = round(n / period)
    return [(shift, 1.0), (n - shift, -1.0)] if 0 < 2 * shift < n else []


def _signal(part: Tensor, outside: Tensor) -> Tensor:
    """Return what a channel holds above its darkest value, ``(x, y, z)``, and 0 outside.

    The zero of a standardised image is its mean, not the want of signal, so its darkest value stands in for that.
    """
    return torch.where(outside, 0.0, part - part.amin())


def _sample_ghosting(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    axes = [axis for axis in config.ghosting_axes if axis < len(info.shape)]
    if config.ghosting_probability == 0 or not axes:
        return _identity_ghosting(info)
    # no phase is encoded across slices that are excited one by one
    axes = [axis for axis in axes if axis != info.slice_axis] or axes
    axis = np.array(axes)[generator.integers(len(axes), size=info.batch)]
    first, last = config.ghosting_period
    period = generator.integers(first, last + 1, size=info.batch)
    weight = generator.uniform(*config.ghosting_strength, (info.batch, info.channels))
    # which side is bright
    weight *= generator.choice([-1.0, 1.0], weight.shape)
    weight = np.where(generator.random(weight.shape) < config.channel_probability, weight, 0.0)
    return {
        "axis": axis.astype(np.float64),
        "period": period.astype(np.float64),
        "weight": gated(generator, config.ghosting_probability, weight, 0.0),
    }


def _identity_ghosting(info: BatchInfo) -> Parameters:
    return {
        "axis": np.zeros(info.batch),
        "period": np.full(info.batch, 2.0),
        "weight": np.zeros((info.batch, info.channels)),
    }


def _apply_ghosting(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    """Add shifted copies; where none falls the level stays, since the image's own share is 1 everywhere."""
    weight = parameters["weight"]
    if not (weight != 0).any():
        return image, label
    outside, before, image = info.outside(image)[:, 0], image, image.clone()
    for i, j in np.argwhere(weight != 0):
        signal, axis = _signal(before[i, j], outside[i]), int(parameters["axis"][i])
        for shift, sign in ghost_copies(info.shape[axis], int(parameters["period"][i])):
            image[i, j] += sign * float(weight[i, j]) * signal.roll(shift, axis)
    return image, label


def log_field(coefficients: NDArray[np.float64], inside: Tensor, ratio: float) -> Tensor:
    """Return ``(x, y, z)`` float32: the logarithm of a bias field, a polynomial of mean 0 over the inside.

    Args:
        coefficients: ``(d + 1,) * axes``, of products of Legendre polynomials over the patch.
        inside: ``(x, y, z)`` bool, at least one voxel.
        ratio: of the largest to the smallest value of the field inside.
    """
    field = torch.from_numpy(coefficients).to(inside.device, torch.float32)
    for axis, n in enumerate(inside.shape):
        place = np.linspace(-1, 1, n) if n > 1 else np.zeros(1)
        basis = torch.from_numpy(legvander(place, coefficients.shape[axis] - 1)).to(inside.device, torch.float32)
        field = torch.tensordot(basis, field.movedim(axis, 0), dims=1).movedim(0, axis)
    values = field[inside]
    width = (values.amax() - values.amin()).clamp_min(1e-6)
    return (field - values.mean()) * (float(np.log(ratio)) / width)


def _sample_bias_field(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    if config.bias_field_probability == 0:
        return _identity_bias_field(info)
    axes, order = len(info.shape), config.bias_field_order
    degree = np.indices((order + 1,) * axes).sum(axis=0)
    coefficients = generator.normal(size=(info.batch, info.channels, *degree.shape))
    coefficients = np.where((degree > 0) & (degree <= order), coefficients, 0.0)
    low, high = np.log(config.bias_field_ratio)
    ratio = np.exp(generator.uniform(low, high, (info.batch, info.channels)))
    return {"coefficients": coefficients, "ratio": gated(generator, config.bias_field_probability, ratio, 1.0)}


def _identity_bias_field(info: BatchInfo) -> Parameters:
    size = (info.batch, info.channels)
    return {"coefficients": np.zeros(size + (2,) * len(info.shape)), "ratio": np.ones(size)}


def _apply_bias_field(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    ratio = parameters["ratio"]
    if not (ratio != 1).any():
        return image, label
    outside, image = info.outside(image)[:, 0], image.clone()
    for i, j in np.argwhere(ratio != 1):
        if not outside[i].all():
            field = log_field(parameters["coefficients"][i, j], ~outside[i], float(ratio[i, j]))
            # a polynomial that is flat over a few voxels inside may be beyond all numbers outside, where nothing is
            image[i, j] += _signal(image[i, j], outside[i]) * torch.expm1(field).masked_fill(outside[i], 0.0)
    return image, label


GHOSTING = Transform("ghosting", False, _sample_ghosting, _identity_ghosting, _apply_ghosting)
BIAS_FIELD = Transform("bias_field", False, _sample_bias_field, _identity_bias_field, _apply_bias_field)
