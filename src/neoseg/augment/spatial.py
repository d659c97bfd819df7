"""Changes that move voxels: rotation, zoom and elastic deformation in one resampling, and flips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .configs import AugmentConfig
from .elastic import displacement_mm, identity_elastic, sample_elastic
from .pieces import Box, Piece
from .transform import BatchInfo, Parameters, Transform, gated

__all__ = ["AFFINE", "ELASTIC", "FLIP", "boxes", "rotation_matrix", "warp", "warp_pieces"]

ROUNDING = 1e-3
"""Voxels by which a box is larger than the places that are computed, for the rounding of float32."""


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
    if info.slice_axis is not None:
        limits[np.arange(3) != info.slice_axis] = 0.0
    # + 0: no angle of -0, which would read oddly
    degrees = generator.uniform(-1, 1, (info.batch, len(limits))) * limits + 0.0
    low, high = np.log(config.scaling_range)
    zoom = np.exp(generator.uniform(low, high, info.batch))
    return {
        "degrees": gated(generator, config.rotation_probability, degrees, 0.0),
        "zoom": gated(generator, config.scaling_probability, zoom, 1.0),
    }


def _identity_affine(info: BatchInfo) -> Parameters:
    return {"degrees": np.zeros((info.batch, 3 if len(info.shape) == 3 else 1)), "zoom": np.ones(info.batch)}


@dataclass(frozen=True, eq=False)
class _Pull:
    """Where the values of one sample come from: at voxel p from ``matrix (p + u(p))``, counted from the patch's centre.

    Attributes:
        matrix: ``(axes, axes)``, of voxel indices.
        elastic: parameters of the displacement u, without the axis of samples; ``None``: there is none.
        slices: an axis along which every voxel stays in its slice, where slices are thick.
    """

    matrix: NDArray[np.float64]
    elastic: Parameters | None
    slices: int | None

    def box(self, info: BatchInfo) -> Box:
        """Return the voxels between which the patch is interpolated, most of them outside it after a zoom below 1."""
        half = (np.array(info.shape) - 1) / 2
        most = half
        if self.elastic is not None:
            # a spline stays between its control points
            control = np.abs(self.elastic["control_mm"])
            most = half + control.max(axis=tuple(range(1, control.ndim))) / np.array(info.spacing_mm)
        reach = np.abs(self.matrix) @ most + ROUNDING
        first, last = np.floor(half - reach).astype(int), np.ceil(half + reach).astype(int)
        if self.slices is not None:
            first[self.slices], last[self.slices] = 0, info.shape[self.slices] - 1
        return Box(tuple(int(n) for n in first), tuple(int(n) for n in last - first + 1))

    def resample(self, piece: Piece, info: BatchInfo) -> tuple[Tensor, Tensor]:
        """Return image and label of the patch."""
        image, label = piece.image, piece.label
        classes = int(label.max())
        shares = [(label == value)[None].to(image.dtype) for value in range(1, classes + 1)]
        # boxes may be large, so no copy is made for nothing
        raised = image - info.fill if info.fill else image
        moved = self._interpolate(torch.cat([raised, *shares]), piece.first, info)
        found = moved[info.channels :]
        if classes == 0:
            answer = torch.zeros(info.shape, dtype=label.dtype, device=label.device)
        elif classes == 1:
            answer = (found[0] > 0.5).to(label.dtype)
        else:
            background = 1 - found.sum(dim=0, keepdim=True)
            # argmax is many times slower on CPUs
            answer = torch.cat([background, found]).max(dim=0).indices.to(label.dtype)
        return moved[: info.channels] + info.fill, answer

    def _interpolate(self, values: Tensor, first: tuple[int, ...], info: BatchInfo) -> Tensor:
        """Return the linear interpolation ``(c, *patch)`` of ``(c, *box)``; outside the box is 0.

        Thick slices that nothing leaves are a batch of pictures, so that they cannot mix, not even by rounding.
        """
        axes = [axis for axis in range(len(info.shape)) if axis != self.slices]
        sides, spacing = (np.array(given, dtype=np.float64)[axes] for given in (info.shape, info.spacing_mm))
        inner = np.array(values.shape[1:], dtype=np.float64)[axes]
        # index -> torch's -1..1, from the patch to the box
        pull = self.matrix[np.ix_(axes, axes)] * sides[None, :] / inner[:, None]
        shift = (sides - inner - 2 * np.array(first)[axes]) / inner
        theta = torch.from_numpy(np.column_stack([pull[::-1, ::-1], shift[::-1]]))
        theta = theta.to(values.device, torch.float32)
        stack = values[None] if self.slices is None else values.movedim(self.slices + 1, 0)
        start = 0 if self.slices is None else first[self.slices]
        grid = functional.affine_grid(theta[None], [1, 1, *(int(n) for n in sides)], align_corners=False)
        grid = grid.expand(len(stack), *grid.shape[1:])
        if self.elastic is not None:
            move = displacement_mm(self.elastic, info, values.device)[..., axes]
            move = move[None] if self.slices is None else move.movedim(self.slices, 0)[start : start + len(stack)]
            per_mm = torch.from_numpy(2 / (sides * spacing)).to(values.device, torch.float32)
            grid = grid + (move * per_mm).flip(-1) @ theta[:, :-1].T
        found = functional.grid_sample(stack, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        if self.slices is None:
            return found[0]
        result = values.new_zeros((len(values), *info.shape))
        result.movedim(self.slices + 1, 0)[start : start + len(stack)] = found
        return result


def _pulls(affine: Parameters, elastic: Parameters, info: BatchInfo) -> list[_Pull | None]:
    """Return for each sample where its values come from; ``None``: nothing moves."""
    degrees, zoom, control = affine["degrees"], affine["zoom"], elastic["control_mm"]
    spacing, thick = np.array(info.spacing_mm), info.slice_axis
    result: list[_Pull | None] = []
    for i in range(info.batch):
        bent = bool(control[i].any())
        if not (bent or degrees[i].any() or zoom[i] != 1):
            result.append(None)
            continue
        # content turns by R, so the value at p comes from R^T p / zoom; then mm -> index
        factor = np.full((len(spacing), 1), zoom[i])
        if thick is not None:
            factor[thick] = 1.0
        matrix = rotation_matrix(degrees[i]).T / factor * spacing[None, :] / spacing[:, None]
        still = thick is not None and not (
            (matrix - np.eye(len(spacing)))[thick].any()
            or (matrix - np.eye(len(spacing)))[:, thick].any()
            or control[i, thick].any()
        )
        own = {key: values[i] for key, values in elastic.items()} if bent else None
        result.append(_Pull(matrix, own, thick if still else None))
    return result


def boxes(affine: Parameters, elastic: Parameters, info: BatchInfo) -> list[Box | None]:
    """Return for each sample the voxels that its patch is interpolated between; ``None``: nothing moves.

    Args:
        affine: parameters of :data:`AFFINE`.
        elastic: parameters of :data:`ELASTIC`.
        info: of the batch; its shape is that of the patch.
    """
    return [None if pull is None else pull.box(info) for pull in _pulls(affine, elastic, info)]


def warp_pieces(
    pieces: Sequence[Piece], affine: Parameters, elastic: Parameters, info: BatchInfo
) -> tuple[Tensor, Tensor]:
    """Resample, once, the samples that move: the image linearly, the label by linear shares of its classes.

    The value at p comes from ``A^-1 (p + u(p))``, A the rotation with its zoom and u the elastic displacement in mm,
    both around the centre of the patch: the Jacobian determinant is that of ``1 + Du`` over that of A, so where u folds
    nothing, nothing folds. Across thick slices (:attr:`BatchInfo.slice_axis`) the zoom is 1.

    A rigid turn in mm is a sheared map of voxel indices where voxels are not cubes, hence the spacing.

    Args:
        pieces: of each sample what it is made from. Of one that moves that is its box (:func:`boxes`) or what of it
            lies in the volume, the fill value being outside; of another it is the patch.
        affine: parameters of :data:`AFFINE`.
        elastic: parameters of :data:`ELASTIC`.
        info: of the batch; its shape is that of the patch.

    Returns:
        Images ``(b, c, *patch)`` and labels ``(b, *patch)``.
    """
    done = [
        (piece.image, piece.label) if pull is None else pull.resample(piece, info)
        for piece, pull in zip(pieces, _pulls(affine, elastic, info), strict=True)
    ]
    return torch.stack([image for image, _ in done]), torch.stack([label for _, label in done])


def warp(
    image: Tensor, label: Tensor, affine: Parameters, elastic: Parameters, info: BatchInfo
) -> tuple[Tensor, Tensor]:
    """Resample the samples of a batch of which no more than the patches is there; beyond them is the fill value.

    Args:
        image: ``(b, c, x, y, z)`` or ``(b, c, x, y)``.
        label: ``(b, x, y, z)`` or ``(b, x, y)``.
        affine, elastic, info: see :func:`warp_pieces`.
    """
    if not any(_pulls(affine, elastic, info)):
        return image, label
    first = (0,) * len(info.shape)
    pieces = [Piece(one, mask, first) for one, mask in zip(image, label, strict=True)]
    return warp_pieces(pieces, affine, elastic, info)


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
