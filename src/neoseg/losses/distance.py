"""Distances of voxels from the boundary of a mask."""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor

__all__ = ["boundary_distance", "signed_distance"]


def boundary_distance(masks: Tensor) -> Tensor:
    """Return the distance of each voxel's centre from the nearest centre on the other side of the boundary, in voxels.

    It is 1 or more. A mask that is empty or full has no boundary; its distance is 1 throughout, so that a voxel
    which is wrong there counts as one beside a boundary does. No distance would leave it free of charge, and the size
    of the patch would let patches without a lesion outweigh all others.

    Args:
        masks: bool (B, C, ...), any device; computed on the CPU.

    Returns:
        float32 (B, C, ...), on the device of the masks.
    """
    found = torch.ones(masks.shape)
    for sample, of_sample in zip(found, masks.cpu(), strict=True):
        for distance, mask in zip(sample, of_sample, strict=True):
            if mask.any() and not mask.all():
                inside = mask.numpy()
                either = ndimage.distance_transform_edt(inside) + ndimage.distance_transform_edt(~inside)
                distance.copy_(torch.from_numpy(either))
    return found.to(masks.device)


def signed_distance(masks: Tensor) -> Tensor:
    """Return the distance from the boundary in voxels, negative inside; the boundary lies between voxels.

    Args:
        masks: bool (B, C, ...), any device.

    Returns:
        float32 (B, C, ...), -0.5 or less inside and 0.5 or more outside.
    """
    distance = boundary_distance(masks) - 0.5
    return torch.where(masks, -distance, distance)
