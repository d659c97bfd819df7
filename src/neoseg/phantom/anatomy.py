"""The brain of a newborn at term as implicit surfaces: which share of which tissue lies at a point.

Coordinates are millimetres of a common anatomy: x to the right, y to anterior, z to superior, origin between the
thalami. Every structure is a signed distance (mm, positive inside); a surface is blurred over ``RAMP_MM`` so that the
average over a voxel's points is its partial volume. Sizes are those of a term newborn (brain about 380 mL).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import HeadConfig
from .fields import Lattice, Table, blocks, noise_table, smooth_table

__all__ = ["TISSUES", "Anatomy", "brain_distance", "draw_anatomy", "tissue_shares"]

Floats = NDArray[np.float32]

TISSUES = (
    "background",
    "csf",
    "cortex",
    "white_matter",
    "thalamus",
    "basal_ganglia",
    "plic",
    "alic",
    "ventricle",
    "cerebellum",
    "brainstem",
)
"""Names of the tissues; the index is the value in label maps and the channel of share maps."""

RAMP_MM = 0.8
FAR_MM = 6.0
"""Distances further outside of a small structure are not computed."""

_COMMON_FOLDS = 20231008
"""Seed of the part of the folds that all heads share (primary sulci)."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What is individual in a head beside its smooth shape.

    Attributes:
        folds: band-limited noise; sulci run along its zero level, scaled to mm.
        depth: depth of the sulci, mm.
        thickness: thickness of the cortex, mm.
        rim_mm: width of the outer CSF that belongs to the brain mask.
        ventricle: factor on the width of the ventricles; one number a side.
        cavum_mm: half width of the cavum septi pellucidi (0: closed).
        sylvian_mm: half width of the Sylvian fissure; one number a side.
    """

    folds: Table
    depth: Table
    thickness: Table
    rim_mm: float
    ventricle: tuple[float, float]
    cavum_mm: float
    sylvian_mm: tuple[float, float]


def draw_anatomy(generator: np.random.Generator, config: HeadConfig) -> Anatomy:
    """Draw folds, sulcal depth, cortical thickness, ventricles and cisterns of one head."""
    lattice = Lattice()
    share = np.float32(config.fold_individuality)
    common = noise_table(np.random.default_rng(_COMMON_FOLDS), lattice, config.fold_wavelength_mm).values
    own = noise_table(generator, lattice, config.fold_wavelength_mm).values
    folds = np.sqrt(1 - share**2) * common + share * own
    slope = np.sqrt(np.sum(np.square(np.gradient(folds, lattice.step_mm)), axis=0))
    distance = np.clip(folds / np.maximum(slope, 0.25 * slope.mean()), -12, 12).astype(np.float32)
    depth = 8.0 + 4.5 * smooth_table(generator, lattice, 30.0).values
    thickness = config.cortex_mm * (1 + 0.12 * smooth_table(generator, lattice, 24.0).values)
    wide = generator.normal(0, config.ventricle_scale_sd)
    sides = np.exp(wide + generator.normal(0, 0.12, 2))
    sylvian = generator.uniform(0.5, 1.2) * np.exp(generator.normal(0, 0.15, 2))
    return Anatomy(
        folds=Table(distance, lattice),
        depth=Table(np.clip(depth, 0, 14).astype(np.float32), lattice),
        thickness=Table(np.clip(thickness, 1.2, 4.5).astype(np.float32), lattice),
        rim_mm=float(generator.uniform(0.2, 1.0)),
        ventricle=(float(sides[0]), float(sides[1])),
        cavum_mm=float(max(0.0, generator.normal(0.8, 0.9))),
        sylvian_mm=(float(sylvian[0]), float(sylvian[1])),
    )


@dataclass(frozen=True, eq=False)
class _Outline:
    """Distances below the surfaces of the large parts, which several structures are measured from.

    Attributes:
        hull: the cerebrum with its sulci closed.
        cerebellum: without its folia.
        brainstem: midbrain to medulla.
    """

    hull: Floats
    cerebellum: Floats
    brainstem: Floats

    @classmethod
    def at(cls, points: Floats) -> _Outline:
        return cls(_cerebrum_hull(points), _cerebellum(points), _brainstem(points))


def brain_distance(points: Floats, rim_mm: float) -> Floats:
    """Signed distance (mm, positive inside) to the border of the skull-stripped brain with its outer CSF."""
    return _brain_distance(points, _Outline.at(points), rim_mm)


def _brain_distance(points: Floats, outline: _Outline, rim_mm: float) -> Floats:
    posterior = np.maximum(outline.cerebellum, outline.brainstem) + np.float32(1.2)
    whole = _smooth_maximum(outline.hull, posterior, 4.0) + np.float32(rim_mm)
    return np.asarray(np.minimum(whole, points[:, 2] + np.float32(49.0)), dtype=np.float32)


def tissue_shares(points: Floats, anatomy: Anatomy) -> Floats:
    """Return the share of each tissue at points ``(n, 3)`` of the common anatomy.

    Returns:
        ``(len(TISSUES), n)`` float32 in 0..1, summing to 1; channel 0 is 1 outside the skull-stripped brain.
    """
    shares = np.zeros((len(TISSUES), len(points)), dtype=np.float32)
    for part in blocks(len(points)):
        _add_shares(shares[:, part], points[part], anatomy)
    return shares


def _add_shares(shares: Floats, points: Floats, anatomy: Anatomy) -> None:
    rest = np.ones(len(points), dtype=np.float32)

    def put(name: str, alpha: Floats) -> None:
        nonlocal rest
        part = rest * alpha
        shares[TISSUES.index(name)] += part
        rest = rest - part

    right = points[:, 0] > 0
    outline = _Outline.at(points)
    put("background", 1 - _ramp(_brain_distance(points, outline, anatomy.rim_mm)))
    put("ventricle", _ramp(_ventricles(points, anatomy, right)))
    posterior_limb, anterior_limb = _internal_capsule(points)
    put("plic", _ramp(posterior_limb))
    put("alic", _ramp(anterior_limb))
    put("thalamus", _ramp(_ellipsoid(points, (10.0, -8.5, 3.0), (9.0, 14.5, 10.5))))
    caudate = _ellipsoid(points, (11.5, 18.0, 5.0), (5.0, 9.0, 8.0))
    lentiform = _ellipsoid(points, (23.0, 3.0, 0.5), (7.6, 16.0, 11.0), turn=-14.0)
    put("basal_ganglia", _ramp(np.maximum(caudate, lentiform)))
    put("brainstem", _ramp(outline.brainstem))
    put("cerebellum", _ramp(np.minimum(outline.cerebellum, _folia(points, outline.cerebellum))))
    pial = _pial(points, outline, anatomy, right)
    put("csf", 1 - _ramp(pial))
    depth = pial - anatomy.thickness.at(points)
    put("cortex", 1 - _ramp(depth))
    put("white_matter", np.ones_like(rest))


def _ramp(distance: NDArray[Any]) -> Floats:
    return np.asarray(np.clip(distance / np.float32(RAMP_MM) + np.float32(0.5), 0, 1), dtype=np.float32)


def _smooth_maximum(a: Floats, b: Floats, width_mm: float) -> Floats:
    blend = np.maximum(width_mm - np.abs(a - b), 0) / width_mm
    return np.asarray(np.maximum(a, b) + blend**2 * (width_mm / 4), dtype=np.float32)


def _by_side(right: NDArray[np.bool_], values: tuple[float, float]) -> Floats:
    return np.where(right, np.float32(values[0]), np.float32(values[1])).astype(np.float32)


def _sigmoid(x: NDArray[Any]) -> Floats:
    return np.asarray(0.5 + 0.5 * np.tanh(x / 2), dtype=np.float32)


def _ellipsoid(
    points: Floats, centre: tuple[float, float, float], radii: tuple[float, float, float], turn: float = 0.0
) -> Floats:
    """Distance to a pair of ellipsoids, mirrored at x = 0 and turned outwards at the front by ``turn`` degrees.

    Further than ``FAR_MM`` outside of their box it is ``-FAR_MM``.
    """
    reach = np.array([max(radii[:2]) if turn else radii[0], max(radii[:2]) if turn else radii[1], radii[2]]) + FAR_MM
    near = _within(points, np.array(centre) - reach, np.array(centre) + reach)
    result = np.full(len(points), -FAR_MM, dtype=np.float32)
    result[near] = np.maximum(_ellipsoid_here(points[near], centre, radii, turn), -FAR_MM)
    return result


def _within(points: Floats, low: NDArray[np.floating], high: NDArray[np.floating]) -> NDArray[np.intp]:
    """Indices of the points in a box; x is mirrored."""
    x = np.abs(points[:, 0])
    inside = (x > low[0]) & (x < high[0])
    for axis in (1, 2):
        inside &= (points[:, axis] > low[axis]) & (points[:, axis] < high[axis])
    return np.flatnonzero(inside)


def _ellipsoid_here(
    points: Floats, centre: tuple[float, float, float], radii: tuple[float, float, float], turn: float
) -> Floats:
    x, y, z = np.abs(points[:, 0]) - np.float32(centre[0]), points[:, 1] - np.float32(centre[1]), points[:, 2]
    cos, sin = np.float32(np.cos(np.radians(turn))), np.float32(np.sin(np.radians(turn)))
    u, v = (cos * x + sin * y) / np.float32(radii[0]), (cos * y - sin * x) / np.float32(radii[1])
    w = (z - np.float32(centre[2])) / np.float32(radii[2])
    length = np.sqrt(u * u + v * v + w * w) + np.float32(1e-3)
    slope = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2) / length
    return np.asarray((1 - length) / np.maximum(slope, 1 / max(radii)), dtype=np.float32)


def _tube(points: Floats, path: NDArray[np.float64]) -> Floats:
    """Distance inside a tube along ``path`` rows (x, y, z, radius); x is mirrored; at least ``-FAR_MM``."""
    reach = path[:, 3].max() + FAR_MM
    near = _within(points, path[:, :3].min(0) - reach, path[:, :3].max(0) + reach)
    result = np.full(len(points), -FAR_MM, dtype=np.float32)
    result[near] = np.maximum(_tube_here(points[near], path), -FAR_MM)
    return result


def _tube_here(points: Floats, path: NDArray[np.float64]) -> Floats:
    mirrored = points.copy()
    mirrored[:, 0] = np.abs(mirrored[:, 0])
    best = np.full(len(points), -1e3, dtype=np.float32)
    for first, last in zip(path[:-1].astype(np.float32), path[1:].astype(np.float32), strict=True):
        along = last[:3] - first[:3]
        offset = mirrored - first[:3]
        t = np.clip(offset @ along / (along @ along), 0, 1)
        gap = offset - t[:, None] * along
        best = np.maximum(best, first[3] + t * (last[3] - first[3]) - np.sqrt(np.einsum("ij,ij->i", gap, gap)))
    return best


def _cerebrum_hull(points: Floats) -> Floats:
    """The cerebrum with its sulci closed: a rounded box, narrower in front, with a base that rises to the front."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    half_width = np.float32(46.5) - 7 * _sigmoid((y - 18) / 9) - 2 * _sigmoid((-34 - y) / 8)
    vx, vy, vz = x / half_width, np.abs(y) / np.float32(57.0), np.abs(z) / np.float32(40.0)
    # a superellipsoid of power 9/4; v^(5/4) by two square roots, since powers cost ten times as much
    px, py, pz = (v * np.sqrt(np.sqrt(v)) for v in (vx, vy, vz))
    length = (vx * px + vy * py + vz * pz) ** np.float32(4 / 9) + np.float32(1e-3)
    slope = np.sqrt((px / 44) ** 2 + (py / 57) ** 2 + (pz / 40) ** 2) / (length * np.sqrt(np.sqrt(length)))
    ellipsoid = (1 - length) / np.maximum(slope, np.float32(1 / 57))
    middle = np.exp(-((x / 14) ** 2)) * _sigmoid((y + 8) / 4)
    base = -33 + 9 * _sigmoid((y - 22) / 3) + middle * (13 - 9 * _sigmoid((y - 18) / 4))
    return np.asarray(np.minimum(ellipsoid, np.float32(0.85) * (z - base)), dtype=np.float32)


def _cerebellum(points: Floats) -> Floats:
    hemispheres = _ellipsoid(points, (12.5, -33.0, -28.5), (14.0, 15.5, 13.0))
    vermis = _ellipsoid(points, (0.0, -33.0, -26.0), (8.0, 13.0, 13.5))
    return _smooth_maximum(hemispheres, vermis, 3.0)


def _folia(points: Floats, cerebellum: Floats) -> Floats:
    """Distance to the shallow fissures of the cerebellum, roughly horizontal and evenly spaced."""
    wave = np.sin((points[:, 2] + 0.25 * points[:, 1]) * np.float32(2 * np.pi / 5.5))
    return np.asarray(0.5 + 1.6 * (wave + 1) + np.maximum(cerebellum - 3.0, 0), dtype=np.float32)


def _brainstem(points: Floats) -> Floats:
    path = np.array(
        [[0, -11, -7, 8.5], [0, -13.5, -15, 8.5], [0, -13, -26, 9.5], [0, -19, -38, 6.5], [0, -23, -52, 5.5]]
    )
    return _tube(points, path)


def _ventricles(points: Floats, anatomy: Anatomy, right: NDArray[np.bool_]) -> Floats:
    lateral = np.array(
        [[5.5, 27, 3, 1.6], [5.5, 18, 9.5, 2.9], [6, 4, 14.5, 2.4], [9, -12, 14.5, 2.8], [17, -25, 7, 4.2]]
    )
    occipital = np.array([[17, -25, 7, 4.2], [17, -37, 3, 2.4]])
    temporal = np.array([[17, -25, 7, 3.6], [26, -22, -6, 2.0], [27, -8, -15, 1.4]])
    factor = _by_side(right, anatomy.ventricle)
    widest = np.maximum(np.maximum(_tube(points, lateral), _tube(points, occipital)), _tube(points, temporal))
    lateral_distance = widest + 3 * (factor - 1)
    third = np.minimum(0.9 * factor - np.abs(points[:, 0]), _ellipsoid(points, (0, -2, -3), (30, 10, 8)))
    fourth = _ellipsoid(points, (0.0, -22.5, -27.0), (5.0, 3.2, 7.0))
    cavum = np.minimum(anatomy.cavum_mm - np.abs(points[:, 0]), _ellipsoid(points, (0, 17, 9), (20, 8, 5)))
    return np.asarray(np.maximum(np.maximum(lateral_distance, third), np.maximum(fourth, cavum)), dtype=np.float32)


def _internal_capsule(points: Floats) -> tuple[Floats, Floats]:
    """Posterior and anterior limb: sheets that form a V between caudate, thalamus and lentiform nucleus."""
    lifted = np.abs(points).astype(np.float32)
    lifted[:, 1:] = points[:, 1:]
    lifted[:, 0] -= np.float32(0.25) * np.maximum(points[:, 2], 0)
    flat = lifted.copy()
    flat[:, 2] = 0
    height = np.minimum(points[:, 2] + 7, 17 - points[:, 2])
    posterior = _tube(flat, np.array([[13.5, 5.0, 0, 1.7], [18.0, -4.0, 0, 1.9], [23.0, -16.0, 0, 1.9]]))
    anterior = _tube(flat, np.array([[13.5, 6.0, 0, 1.5], [19.5, 22.0, 0, 1.5]]))
    return np.minimum(posterior, height).astype(np.float32), np.minimum(anterior, height).astype(np.float32)


def _pial(points: Floats, outline: _Outline, anatomy: Anatomy, right: NDArray[np.bool_]) -> Floats:
    """Distance below the surface of the cerebral cortex: hull, folds, fissures and the clefts around the hindbrain."""
    hull, core = outline.hull, _core(points)
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    radii = np.array([26.0, 56.0, 39.0], dtype=np.float32)
    ray = points - np.array([0.0, -1.0, 1.0], dtype=np.float32)
    ray[:, 0] -= np.where(right, np.float32(20), np.float32(-20))
    length = np.sqrt(np.einsum("ij,ij->i", ray / radii, ray / radii)) + np.float32(1e-2)
    surface = points - ray * (1 - np.float32(0.88) / length)[:, None]
    across = np.abs(anatomy.folds.at(surface)) * np.minimum(length / np.float32(0.88), 1.3)
    medial = x - np.float32(0.6)
    below = np.minimum(hull, np.where(core < 0, medial, 99)).astype(np.float32)
    beyond = np.maximum(below - anatomy.depth.at(surface), 0)
    opening = np.float32(0.25) + np.float32(0.75) * np.exp(-np.maximum(below, 0) / 3)
    sulci = np.sqrt(across**2 + beyond**2) - opening
    fissure = np.sqrt(x**2 + np.maximum(core + 1, 0) ** 2) - np.float32(0.8)
    tilt = z - (-3 - np.float32(0.28) * y)
    inward = np.maximum(31 + 0.012 * (y - 2) ** 2 - x, 0)
    width = _by_side(right, anatomy.sylvian_mm) * np.clip((x - 26) / 12, 0.4, 1.2)
    sylvian = np.sqrt(tilt**2 + inward**2) - width
    hindbrain = -np.maximum(outline.cerebellum + 2.2, np.where(z < -13, outline.brainstem + 1.5, -99))
    distances = [hull, sulci, fissure, sylvian, hindbrain]
    return np.asarray(np.minimum.reduce(distances), dtype=np.float32)


def _core(points: Floats) -> Floats:
    """The part around the midline that the fissure between the hemispheres does not divide (corpus callosum down)."""
    return _ellipsoid(points, (0.0, -2.0, 0.0), (60.0, 33.0, 19.0))
