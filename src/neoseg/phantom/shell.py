"""The rest of a head around a procedural brain: bone, fat, skin, eyes, neck and air, as an unstripped ADC map has them.

Made for testing what finds the brain in a scan that is not skull-stripped. Two magnitude images (without and with
diffusion weighting) are composed, blurred and given Rician noise, and the ADC is computed from them as a scanner does:
bone and air give next to no signal, so their ADC is wild; suppressed fat gives little, and its ADC is near 0.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..volume import Volume
from .adc import B_VALUE
from .head import Head

__all__ = ["Air", "unstripped"]

Air = Literal["zero", "noise", "clipped"]
"""What a map holds where there is no signal: 0, the computed noise of both signs, or that noise cut to 0..4095."""

_FLOOR = 0.12
"""Signal (brain 1) below which a scanner that blanks its maps writes 0."""

BASE_MM = 4.0
"""What the bone of the skull's base is thicker than that of its vault."""

# Thickness in mm, signal without diffusion weighting (brain 1), ADC in 1e-6 mm2/s; outwards from the bone.
_LAYERS = ((1.6, 0.25, 80.0), (2.4, 0.4, 1150.0))


def unstripped(head: Head, generator: np.random.Generator, *, air: Air = "noise", bone_mm: float = 2.6) -> Volume:
    """Return the ADC map of a head before skull stripping, float32 ``(1, x, y, z)`` on the head's grid.

    Args:
        head: gives the brain, its ADC and its receive field; its noise is drawn anew.
        generator: source of randomness of the noise.
        air: what is written where there is no signal.
        bone_mm: thickness of the skull.
    """
    from scipy import ndimage

    grid = head.adc.grid
    brain = head.brain.array[0] != 0
    outside = ndimage.distance_transform_edt(~brain, sampling=grid.spacing)
    signal = np.where(brain, 1.0, 0.0)
    adc = np.where(brain, head.clean.array[0] * head.field.array[0], 0.0)
    under = np.flip(np.maximum.accumulate(np.flip(brain, 2), 2), 2) & ~brain
    bone = np.where(under, bone_mm + BASE_MM, bone_mm)
    depth = outside - bone
    signal[depth <= 0] = np.where(brain, 1.0, 0.03)[depth <= 0]
    low = 0.0
    for thick, strength, value in _LAYERS:
        layer = (depth > low) & (depth <= low + thick)
        signal[layer], adc[layer] = strength, value
        low += thick
    place = head.deformation.to_head(grid.to_world(np.indices(grid.shape).reshape(3, -1).T)).T.reshape(3, *grid.shape)
    for region, strength, value in _soft_parts(place):
        here = region & (depth > 0)
        signal[here], adc[here] = strength, value
    weighted = signal * np.exp(-B_VALUE * 1e-6 * adc)
    noise = 1 / 45.0
    images = []
    for image in (signal, weighted):
        blurred = ndimage.gaussian_filter(image, (0.45, 0.45, 0.0))
        draws = generator.normal(0, noise, (2, *grid.shape))
        images.append(np.hypot(blurred + draws[0], draws[1]))
    found = np.log(images[0] / np.maximum(images[1], 1e-6)) / (B_VALUE * 1e-6)
    if air == "zero":
        found = np.where(images[0] < _FLOOR, 0.0, np.clip(found, 0, 4095))
    elif air == "clipped":
        found = np.clip(found, 0, 4095)
    return Volume(found[None].astype(np.float32), grid)


def _soft_parts(place: NDArray[np.floating]) -> list[tuple[NDArray[np.bool_], float, float]]:
    """Return region, signal and ADC of eyes and of the muscles of face and neck, in upright head coordinates (mm)."""
    x, y, z = np.abs(place[0]), place[1], place[2]
    muscles = ((x / 42) ** 2 + ((y - 4) / 52) ** 2 < 1) & (z < -30)
    eyes = (x - 20) ** 2 + (y - 58) ** 2 + (z + 28) ** 2 < 8.5**2
    return [(muscles, 0.2, 1350.0), (eyes, 1.2, 2900.0)]
