"""Changes that move voxels: rotation, zoom and elastic deformation in one resampling, and flips."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .configs import AugmentConfig
from .elastic import displacement_mm, identity_elastic, sample_elastic
from .transform import BatchInfo, Parameters, Transform, gated

__all__ = ["AFFINE", "ELASTIC", "FLIP", "rotation_matrix", "warp"]


def rotation_matrix(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix that turns about x, then y, then z (three angles), or in the plane (one angle)."""
    radians = np.deg2rad(degrees)
    if len(degrees) == 1:
        c, s = math.cos(radians[0]), math.sin(radians[0])
        return np.array([[c, -s], [s, c]])
    result = np.eye(3)
    for axis, angle in enumerate(radians):
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        result = turn @ result
    return result


def _sample_affine(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    limits = np.array(config.rotation_degrees if len(info.shape) == 3 else config.rotation_degrees[-1:])
    degrees = generator.uniform(-1, 1, (info.batch, len(limits))) * limits
    low, high = np.log(config.scaling_range)
    zoom = np.exp(generator.uniform(low, high, info.batch))
    return {
        "degrees": gated(generator, config.rotation_probability, degrees, 0.0),
        "zoom": gated(generator, config.scaling_probability, zoom, 1.0),
    }


def _identity_affine(info: BatchInfo) -> Parameters:
    return {"degrees": np.zeros((info.batch, 3 if len(info.shape) == 3 else 1)), "zoom": np.ones(info.batch)}


def warp(
    image: Tensor, label: Tensor, affine: Parameters, elastic: Parameters, info: BatchInfo
) -> tuple[Tensor, Tensor]:
    """Resample, once, the samples that move: the image linearly, the label by linear shares of its classes.

    The value at p comes from ``A^-1 (p + u(p))``, A the rotation with its zoom and u the elastic displacement in mm:
    the Jacobian determinant is that of ``1 + Du`` over that of A, so where u folds nothing, nothing folds.

    A rigid turn in mm is a sheared map of voxel indices where voxels are not cubes, hence the spacing.

    Args:
        image: ``(b, c, x, y, z)`` or ``(b, c, x, y)``.
        label: ``(b, x, y, z)`` or ``(b, x, y)``.
        affine: parameters of :data:`AFFINE`.
        elastic: parameters of :data:`ELASTIC`.
        info: of the batch.
    """
    degrees, zoom = affine["degrees"], affine["zoom"]
    control = elastic["control_mm"]
    bent = (control != 0).any(axis=tuple(range(1, control.ndim)))
    chosen = np.flatnonzero(degrees.any(axis=1) | (zoom != 1) | bent)
    if not len(chosen):
        return image, label
    sides, spacing = np.array(info.shape, dtype=np.float64), np.array(info.spacing_mm)
    thetas = []
    for i in chosen:
        # content turns by R, so the value at p comes from R^T p / zoom; then mm -> index -> torch's -1..1
        pull = rotation_matrix(degrees[i]).T / zoom[i]
        pull = pull * spacing[None, :] / spacing[:, None] * sides[None, :] / sides[:, None]
        thetas.append(np.hstack([pull[::-1, ::-1], np.zeros((len(sides), 1))]))
    theta = torch.from_numpy(np.stack(thetas)).to(image.device, torch.float32)
    index = torch.from_numpy(chosen).to(image.device)
    old = label[index]
    classes = int(old.max())
    shares = [(old == value)[:, None].to(image.dtype) for value in range(1, classes + 1)]
    stacked = torch.cat([image[index] - info.fill, *shares], dim=1)
    grid = functional.affine_grid(theta, list(stacked.shape), align_corners=False)
    per_mm = torch.from_numpy(2 / (sides * spacing)).to(image.device, torch.float32)
    for row, i in enumerate(chosen):
        if bent[i]:
            move = displacement_mm({key: values[i] for key, values in elastic.items()}, info, image.device)
            grid[row] += (move * per_mm).flip(-1) @ theta[row, :, :-1].T
    moved = functional.grid_sample(stacked, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    image, label = image.clone(), label.clone()
    image[index] = moved[:, : info.channels] + info.fill
    found = moved[:, info.channels :]
    if classes == 0:
        return image, label
    if classes == 1:
        label[index] = (found[:, 0] > 0.5).to(label.dtype)
    else:
        background = 1 - found.sum(dim=1, keepdim=True)
        # argmax is many times slower on CPUs
        label[index] = torch.cat([background, found], dim=1).max(dim=1).indices.to(label.dtype)
    return image, label


def _apply_affine(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    return warp(image, label, parameters, identity_elastic(info), info)


def _apply_elastic(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    return warp(image, label, _identity_affine(info), parameters, info)


def _sample_flip(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    axes = len(info.shape)
    flips = generator.random((info.batch, axes)) < config.flip_probability
    return {"flip": (flips & np.isin(np.arange(axes), config.flip_axes)).astype(np.float64)}


def _identity_flip(info: BatchInfo) -> Parameters:
    return {"flip": np.zeros((info.batch, len(info.shape)))}


def _apply_flip(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    if not parameters["flip"].any():
        return image, label
    axes = [[int(a) + 1 for a in np.flatnonzero(flip)] for flip in parameters["flip"]]
    # (c, x, y, z) and, with a channel axis lent to it, the label
    images = [torch.flip(image[i], axes[i]) if axes[i] else image[i] for i in range(info.batch)]
    labels = [torch.flip(label[i][None], axes[i])[0] if axes[i] else label[i] for i in range(info.batch)]
    return torch.stack(images), torch.stack(labels)


AFFINE = Transform("affine", True, _sample_affine, _identity_affine, _apply_affine)
ELASTIC = Transform("elastic", True, sample_elastic, identity_elastic, _apply_elastic)
FLIP = Transform("flip", True, _sample_flip, _identity_flip, _apply_flip)
