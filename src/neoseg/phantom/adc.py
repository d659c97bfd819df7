"""From tissue to an ADC map: tissue values, their variation, the receive field and the noise of two magnitude images.

Values are in 1e-6 mm2/s. Internal capsule, thalami, basal ganglia and vermis: means of both sides at birth, Sotardi et
al., Pediatric Radiology 2021. White matter and cortex at term lie around 1500 and 1150; CSF is close to free water at
body temperature. The mean over a head comes to about 1450, near the BONBID-HIE collection (1350 +- 428, lesions
included; Bao et al., Scientific Data 12:53, 2025).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .anatomy import TISSUES
from .config import HeadConfig
from .fields import Lattice, smooth_table

__all__ = ["B_VALUE", "TISSUE_ADC", "healthy_adc", "measured", "receive_field"]

Floats = NDArray[np.float32]

TISSUE_ADC = {
    "background": 0.0,
    "csf": 2650.0,
    "cortex": 1130.0,
    "white_matter": 1540.0,
    "thalamus": 1160.0,
    "basal_ganglia": 1245.0,
    "plic": 1175.0,
    "alic": 1100.0,
    "ventricle": 2900.0,
    "cerebellum": 1260.0,
    "brainstem": 1130.0,
}
"""Mean of each tissue in healthy newborns, 1e-6 mm2/s."""

B_VALUE = 1000.0
"""Diffusion weighting of the second magnitude image, s/mm2."""

_FLUID = ("csf", "ventricle")


def healthy_adc(
    generator: np.random.Generator, config: HeadConfig, points: Floats, shares: Floats
) -> tuple[Floats, dict[str, float]]:
    """Return the noise-free ADC at points and the head's own mean of each tissue.

    White matter varies most: it is least mature in the frontal and occipital lobes, so its ADC is higher there.

    Args:
        generator: source of randomness.
        config: sizes of the variation.
        points: ``(n, 3)`` mm in the common anatomy.
        shares: ``(tissues, n)`` from :func:`neoseg.phantom.anatomy.tissue_shares`.
    """
    lattice = Lattice(36, 4.0)
    maturity = generator.normal(0, config.maturity_sd)
    own = {name: TISSUE_ADC[name] * float(np.exp(generator.normal(0, 0.015))) for name in TISSUES}
    own |= {name: value * float(np.exp(maturity)) for name, value in own.items() if name not in _FLUID}
    slow = smooth_table(generator, lattice, 45.0).at(points)
    fine = smooth_table(generator, Lattice(), 11.0).at(points)
    factor = 1 + np.float32(config.texture_sd) * fine
    regional = np.float32(config.regional_sd) * slow
    maturation = np.float32(0.05) * np.tanh((np.abs(points[:, 1] + 4) - 26) / 10)
    adc = np.zeros(len(points), dtype=np.float32)
    for index, name in enumerate(TISSUES):
        if name in _FLUID:
            adc += shares[index] * np.float32(own[name])
        else:
            strength = np.float32(1.0 if name in ("white_matter", "cortex") else 0.4)
            pattern = maturation if name == "white_matter" else 0
            adc += shares[index] * np.float32(own[name]) * (factor + strength * regional + pattern)
    return adc * _distortion(generator, config, points), own


def _distortion(generator: np.random.Generator, config: HeadConfig, points: Floats) -> Floats:
    """Factor of smooth falls above the sinuses and beside the petrous bones: look-alikes of injury at known places."""
    factor = np.ones(len(points), dtype=np.float32)
    for site in ((0.0, 38.0, -18.0), (33.0, 4.0, -26.0), (-33.0, 4.0, -26.0)):
        centre = (np.array(site) + generator.normal(0, 4, 3)).astype(np.float32)
        depth, radius = generator.uniform(0, config.distortion), generator.uniform(7, 11)
        offset = points - centre
        factor -= np.float32(depth) * np.exp(-np.einsum("ij,ij->i", offset, offset) / np.float32(2 * radius**2))
    return factor


def receive_field(
    generator: np.random.Generator, config: HeadConfig, head_mm: Floats, inside: NDArray[np.bool_]
) -> Floats:
    """Return the smooth factor of an array of surface loops around the head; positive, mean 1 over ``inside``.

    Each loop adds the on-axis field of a current loop, ``a^2 / (a^2 + r^2)^(3/2)`` (Biot-Savart), with its own gain.

    Args:
        generator: source of randomness.
        config: gives the standard deviation of the logarithm over ``inside``.
        head_mm: ``(n, 3)`` upright head coordinates in mm.
        inside: ``(n,)``, the points of the brain.
    """
    loops = 8
    angle = 2 * np.pi * (np.arange(loops) + generator.random()) / loops
    centres = np.stack([95 * np.cos(angle), 105 * np.sin(angle), generator.normal(5, 25, loops)], -1)
    gains = np.exp(generator.normal(0, 0.5, loops))
    radius = 55.0
    field = np.zeros(len(head_mm), dtype=np.float32)
    for centre, gain in zip(centres.astype(np.float32), gains, strict=True):
        offset = head_mm - centre
        field += np.float32(gain * radius**2) * (radius**2 + np.einsum("ij,ij->i", offset, offset)) ** np.float32(-1.5)
    logarithm = np.log(field)
    logarithm = (logarithm - logarithm[inside].mean()) * np.float32(
        config.field_sd / max(1e-9, logarithm[inside].std())
    )
    result = np.exp(logarithm)
    return np.asarray(result / result[inside].mean(), dtype=np.float32)


def measured(generator: np.random.Generator, config: HeadConfig, adc: Floats, slice_index: NDArray[np.intp]) -> Floats:
    """Return the ADC that two noisy magnitude images give: ``log(S0 / Sb) / b``, both with Rician noise.

    The noise floor lowers the ADC of CSF, as it does in real maps. Each slice has a small factor of its own.

    Args:
        generator: source of randomness.
        config: signal over noise, variation from slice to slice.
        adc: ``(n,)`` true values of the voxels, 1e-6 mm2/s.
        slice_index: ``(n,)`` which slice a voxel lies in.
    """
    noise = np.float32(1 / config.snr)
    b = np.float32(B_VALUE * 1e-6)
    magnitudes = []
    for signal in (np.ones_like(adc), np.exp(-b * adc)):
        real = signal + noise * generator.standard_normal(len(adc), dtype=np.float32)
        imaginary = noise * generator.standard_normal(len(adc), dtype=np.float32)
        magnitudes.append(np.sqrt(real**2 + imaginary**2))
    factors = np.exp(generator.normal(0, config.slice_sd, int(slice_index.max()) + 1)).astype(np.float32)
    estimate = np.log(magnitudes[0] / np.maximum(magnitudes[1], np.float32(1e-3))) / b
    return np.asarray(np.clip(estimate * factors[slice_index], 1.0, 3600.0), dtype=np.float32)
