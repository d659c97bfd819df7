"""HIE-like lesions: how much of the brain, where, which shape, how deep the fall of the ADC.

Burdens follow the BONBID-HIE training set: 8 % of patients without any lesion, log10 of the percentage of the rest
normal with mean -0.13 and standard deviation 1.09 (Bao et al., Scientific Data 12:53, 2025). Patterns are those of
hypoxic-ischaemic injury at term: scattered white matter spots, watershed, basal ganglia and thalamus, global injury.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .anatomy import TISSUES
from .config import HeadConfig
from .fields import Lattice, smooth_table

__all__ = ["BURDEN_LARGEST", "BURDEN_SMALLEST", "NO_LESION", "Lesions", "burden_quantile", "draw_lesions", "stratified"]

Floats = NDArray[np.float32]

NO_LESION = 0.08
BURDEN_SMALLEST, BURDEN_LARGEST = 0.015, 80.0
_LOG10_MEAN, _LOG10_SD = -0.13, 1.09


def burden_quantile(share: float) -> float:
    """Return the lesion burden (percent of the brain) below which this share of patients lies."""
    from scipy.stats import norm

    if share < NO_LESION:
        return 0.0
    low, high = (norm.cdf((np.log10(b) - _LOG10_MEAN) / _LOG10_SD) for b in (BURDEN_SMALLEST, BURDEN_LARGEST))
    rank = low + (high - low) * (share - NO_LESION) / (1 - NO_LESION)
    return float(10 ** (_LOG10_MEAN + _LOG10_SD * norm.ppf(rank)))


def stratified(generator: np.random.Generator, count: int) -> list[float]:
    """Draw burdens for a group: one from each of ``count`` equally likely ranges, in random order.

    A small group then has the published quantiles too, not only a large one.
    """
    shares = (generator.permutation(count) + generator.random(count)) / max(count, 1)
    return [burden_quantile(float(share)) for share in shares]


@dataclass(frozen=True, eq=False)
class Lesions:
    """Lesions at the points of a head.

    Attributes:
        weight: 0 (healthy) .. 1 (lesion); 0.5 is the border.
        factor: what the healthy ADC is multiplied with.
        pattern: "none", "focal", "watershed", "deep" or "global".
        count: number of foci that were placed.
        drop: mean fall of the ADC in the cores (share of the healthy value).
    """

    weight: Floats
    factor: Floats
    pattern: str
    count: int
    drop: float


def draw_lesions(
    generator: np.random.Generator,
    config: HeadConfig,
    head_mm: Floats,
    canonical_mm: Floats,
    shares: Floats,
    burden: float,
) -> Lesions:
    """Draw lesions that fill ``burden`` percent of the brain.

    Args:
        generator: source of randomness.
        config: fall of the ADC, width of the edges.
        head_mm: ``(n, 3)`` head coordinates, mm.
        canonical_mm: ``(n, 3)`` coordinates in the common anatomy, mm.
        shares: ``(tissues, n)``.
        burden: percent of the brain (with CSF), 0 for none.
    """
    n = shares.shape[1]
    if burden <= 0:
        return Lesions(np.zeros(n, np.float32), np.ones(n, np.float32), "none", 0, 0.0)
    brain = float((1 - shares[0]).sum())
    solid = 1 - shares[0] - shares[TISSUES.index("csf")] - shares[TISSUES.index("ventricle")]
    pattern = _pattern(generator, burden)
    noise = smooth_table(generator, Lattice(), 13.0).at(head_mm)
    if pattern == "global":
        inside, drop, count = _global(generator, config, head_mm, canonical_mm, shares)
    else:
        place = (head_mm, canonical_mm, shares, noise)
        inside, drop, count = _foci(generator, config, place, (pattern, burden))
    inside = np.where(solid > 0.35, inside, -50).astype(np.float32)
    keep = min(len(inside) - 1, max(1, round(burden / 100 * brain)))
    inside = inside - np.float32(np.partition(inside, len(inside) - keep)[len(inside) - keep])
    # the middle of a small lesion is as deep as that of a large one, so its edge is sharper
    edge = np.float32(min(generator.uniform(*config.lesion_edge_mm), max(0.3, 0.2 * float(inside.max()))))
    weight = np.asarray(0.5 + 0.5 * np.tanh(inside / (2 * edge)), dtype=np.float32)
    deeper = 0.8 + 0.2 * np.tanh(np.maximum(inside, 0) / 4) + 0.08 * noise
    white = shares[TISSUES.index("white_matter")]
    tissue = config.grey_drop + (1 - config.grey_drop) * white
    fall = np.clip(weight * drop * deeper * tissue * solid, 0, 0.75)
    return Lesions(weight, (1 - fall).astype(np.float32), pattern, count, float(np.mean(drop[weight >= 0.5])))


def _pattern(generator: np.random.Generator, burden: float) -> str:
    if burden > 18:
        return "global"
    if burden > 1.5:
        return str(generator.choice(["watershed", "deep", "focal"], p=[0.5, 0.3, 0.2]))
    return str(generator.choice(["focal", "deep", "watershed"], p=[0.6, 0.25, 0.15]))


def _foci(
    generator: np.random.Generator,
    config: HeadConfig,
    place: tuple[Floats, Floats, Floats, Floats],
    wanted: tuple[str, float],
) -> tuple[Floats, Floats, int]:
    """Signed distance into a number of rough ellipsoids, and the fall of the ADC in each."""
    head, canonical, shares, noise = place
    pattern, burden = wanted
    low, high = config.lesion_drop
    count = int(np.clip(1 + generator.poisson(2.2 * np.sqrt(burden)), 1, 22))
    likely = _sites(canonical, shares, pattern)
    count = min(count, len(likely))
    # one focus in three stands on the mirrored side of another: injury of HIE is often on both sides
    centres = [head[i] for i in generator.choice(likely, count, replace=False)]
    for k in range(1, count, 3):
        centres[k] = centres[k - 1] * np.array([-1, 1, 1]) + generator.normal(0, 3, 3)
    brain = float((1 - shares[0]).sum())
    extent = head.max(0) - head.min(0)
    # points are not spread evenly in space when the voxels are not cubes, so the volume of one is taken from the brain
    point_mm3 = float(np.prod(extent)) * 0.52 / max(brain, 1.0)
    base = (3 * burden / 100 * brain * point_mm3 / count / (4 * np.pi)) ** (1 / 3)
    overall = generator.uniform(low, high)
    inside = np.full(len(head), -50, dtype=np.float32)
    drop = np.zeros(len(head), dtype=np.float32)
    for centre in centres:
        radius = float(np.clip(base * np.exp(generator.normal(0, 0.3)), 1.2, 22))
        stretch = np.exp(generator.normal(0, 0.22, 3))
        offset = (head - centre.astype(np.float32)) / (stretch / np.prod(stretch) ** (1 / 3)).astype(np.float32)
        here = radius * (1 + np.float32(0.22) * noise) - np.sqrt(np.einsum("ij,ij->i", offset, offset))
        own = np.clip(overall + generator.normal(0, 0.05), low, high)
        drop = np.where(here > inside, np.float32(own), drop)
        inside = np.maximum(inside, here)
    return inside, drop, count


def _sites(canonical: Floats, shares: Floats, pattern: str) -> NDArray[np.intp]:
    x, y, z = np.abs(canonical[:, 0]), canonical[:, 1], canonical[:, 2]
    white = shares[TISSUES.index("white_matter")]
    cortex = shares[TISSUES.index("cortex")]
    if pattern == "deep":
        deep = sum(shares[TISSUES.index(name)] for name in ("thalamus", "basal_ganglia", "plic"))
        fits = np.asarray(deep) > 0.8
    elif pattern == "watershed":
        # parasagittal, between the territories of the anterior, middle and posterior arteries
        fits = (white + cortex > 0.8) & (x > 12) & (x < 30) & (z > 4) & ((y > 18) | (y < -26))
    else:
        fits = (white > 0.8) & (z > -24)
    found = np.flatnonzero(fits)
    return found if len(found) else np.flatnonzero(white > 0.5)


def _global(
    generator: np.random.Generator, config: HeadConfig, head: Floats, canonical: Floats, shares: Floats
) -> tuple[Floats, Floats, int]:
    """Widespread injury of cortex and white matter (with or without deep grey), patchy at its border."""
    low, high = config.lesion_drop
    lattice = Lattice(36, 4.0)
    patches = smooth_table(generator, lattice, 40.0).at(head)
    deep = sum(shares[TISSUES.index(n)] for n in ("thalamus", "basal_ganglia", "plic", "alic"))
    hindbrain = sum(shares[TISSUES.index(n)] for n in ("cerebellum", "brainstem"))
    bias = generator.normal(0, 4) * np.asarray(deep) - 12 * np.asarray(hindbrain)
    posterior = generator.normal(0, 0.08) * canonical[:, 1]
    inside = np.asarray(6 * patches + bias + posterior, dtype=np.float32)
    strength = generator.uniform(0.5 * (low + high), high)
    drop = np.clip(strength * (1 + 0.12 * smooth_table(generator, lattice, 30.0).at(head)), low, high)
    return inside, drop.astype(np.float32), 1
