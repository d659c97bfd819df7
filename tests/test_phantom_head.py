"""One procedural head: tissue values, volume, background, lesion, field, determinism."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from neoseg.phantom.adc import TISSUE_ADC
from neoseg.phantom.anatomy import TISSUES
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.deformation import draw_deformation
from neoseg.phantom.head import Head, make_head

COARSE = HeadConfig(point_mm=(1.6, 3.0))
"""Fewer points a voxel: the same anatomy at a third of the time."""

# Sotardi 2021, means of both sides at birth, 1e-6 mm2/s; the vermis stands for the cerebellum
PUBLISHED = {"plic": 1175.0, "alic": 1100.0, "thalamus": 1160.0, "basal_ganglia": 1245.0, "cerebellum": 1260.0}


@cache
def head(seed: int, burden: float | None = None) -> Head:
    return make_head(np.random.default_rng([41, seed]), COARSE, lesion_burden=burden)


def inside(values: Head) -> np.ndarray:
    return values.brain.array[0] > 0


def test_the_tissue_values_are_the_published_ones() -> None:
    for name, value in PUBLISHED.items():
        assert TISSUE_ADC[name] == pytest.approx(value, abs=10)
    found: dict[str, list[float]] = {name: [] for name in PUBLISHED}
    for seed in range(4):
        one = head(seed)
        for name in PUBLISHED:
            pure = one.tissues.array[TISSUES.index(name)] > 0.97
            if pure.sum() > 10:
                found[name].append(float(one.clean.array[0][pure].mean()))
    for name, values in found.items():
        # a head's own level differs by some per cent, so the mean of four is known to about that
        assert np.mean(values) == pytest.approx(PUBLISHED[name], rel=0.10), name


def test_white_matter_cortex_and_fluid_lie_in_their_ranges() -> None:
    one = head(0)
    ranges = {"white_matter": (1350, 1800), "cortex": (1000, 1350), "ventricle": (2500, 3200)}
    for name, (low, high) in ranges.items():
        pure = one.tissues.array[TISSUES.index(name)] > 0.95
        assert low < one.clean.array[0][pure].mean() < high, name


def test_the_whole_brain_resembles_the_collection() -> None:
    values = np.concatenate([head(seed).adc.array[0][inside(head(seed))] for seed in range(4)])
    assert values.mean() == pytest.approx(1350.25, rel=0.15)
    assert values.std() == pytest.approx(428.13, rel=0.25)


@pytest.mark.parametrize("seed", range(4))
def test_the_background_is_exactly_zero_and_the_brain_has_the_size_of_a_newborn(seed: int) -> None:
    one = head(seed)
    mask = inside(one)
    assert (one.adc.array[0][~mask] == 0).all()
    assert (one.adc.array[0][mask] >= 1).all()
    assert 280 < mask.sum() * one.adc.grid.voxel_volume / 1000 < 470
    assert one.tissues.array.sum(0) == pytest.approx(1, abs=1e-4)
    for axis in (0, 1):
        assert not mask.take(0, axis).any()
        assert not mask.take(-1, axis).any()


def test_partial_volume_is_there() -> None:
    one = head(0)
    largest = one.tissues.array[:, inside(one)].max(0)
    assert (largest < 0.9).mean() > 0.25


def test_the_same_seed_gives_the_same_head_and_another_seed_another() -> None:
    first, again = (make_head(np.random.default_rng(5), COARSE, lesion_burden=2.0) for _ in range(2))
    for name in ("adc", "label", "tissues", "field", "lesion", "clean"):
        assert getattr(first, name).array.tobytes() == getattr(again, name).array.tobytes(), name
    assert first.parameters == again.parameters
    assert head(0).parameters["tissue_adc"] != head(1).parameters["tissue_adc"]


def test_folds_differ_from_head_to_head_more_than_deep_grey() -> None:
    """In the common anatomy, where deep grey lines up by construction, the cortex must not."""
    from scipy.ndimage import map_coordinates

    axis = np.arange(-40, 41, 2.0, dtype=np.float32)
    maps = []
    for seed in range(2):
        one = head(seed)
        voxels = np.argwhere(inside(one))
        place = one.deformation.to_canonical(one.adc.grid.to_world(voxels))
        size = (len(axis),) * 3
        index = np.clip(np.rint((place + 40) / 2).astype(int), 0, len(axis) - 1)
        tissue = np.full(size, -1)
        tissue[tuple(index.T)] = one.tissues.array[:, inside(one)].argmax(0)
        maps.append(map_coordinates(tissue.astype(float), np.indices(size), order=0))
    both = (maps[0] >= 0) & (maps[1] >= 0)

    def dice(name: str) -> float:
        a, b = ((m == TISSUES.index(name)) & both for m in maps)
        return float(2 * (a & b).sum() / (a.sum() + b.sum()))

    assert dice("cortex") < 0.6
    assert dice("thalamus") > 0.75


def test_the_field_is_smooth_positive_and_of_the_asked_strength() -> None:
    one = head(2)
    field, mask = one.field.array[0], inside(one)
    assert field.min() > 0
    assert field[mask].mean() == pytest.approx(1, abs=1e-3)
    assert np.log(field[mask]).std() == pytest.approx(COARSE.field_sd, rel=0.02)
    for axis, spacing in enumerate(one.adc.spacing):
        pairs = mask.take(range(1, mask.shape[axis]), axis) & mask.take(range(mask.shape[axis] - 1), axis)
        slope = np.abs(np.diff(np.log(field), axis=axis))[pairs] / spacing
        assert slope.max() < 0.02  # at most 2 % a millimetre: no edge of tissue is that flat


def test_the_deformation_can_be_inverted_everywhere() -> None:
    for seed in range(3):
        deformation = draw_deformation(np.random.default_rng(seed), COARSE, np.zeros(3), np.eye(3))
        gradient = np.gradient(deformation.displacement, deformation.lattice.step_mm, axis=(1, 2, 3))
        jacobian = np.moveaxis(np.stack(gradient, 1), (0, 1), (-2, -1)) + np.eye(3)
        assert np.linalg.det(jacobian).min() > 0.2
        assert np.abs(deformation.displacement).max() > 1.5


def test_a_healthy_head_has_no_lesion_and_the_same_anatomy_as_the_patient() -> None:
    healthy, patient = head(3), head(3, 4.0)
    assert not healthy.label.array.any()
    assert not healthy.lesion.array.any()
    assert np.array_equal(healthy.tissues.array, patient.tissues.array)
    outside = patient.lesion.array < 1e-4
    assert np.allclose(healthy.clean.array[outside], patient.clean.array[outside], rtol=2e-4)


@pytest.mark.parametrize("burden", [0.1, 1.0, 8.0, 50.0])
def test_a_lesion_has_the_asked_volume_lies_in_tissue_and_lowers_the_adc(burden: float) -> None:
    one = make_head(np.random.default_rng([42, int(burden * 10)]), COARSE, lesion_burden=burden)
    lesion, mask = one.label.array[0] > 0, inside(one)
    assert not lesion[~mask].any()
    assert set(np.unique(one.label.array)) == {0, 1}
    assert 100 * lesion.sum() / mask.sum() == pytest.approx(burden, rel=0.25)
    assert np.array_equal(lesion, one.lesion.array[0] >= 0.5)
    assert ((one.lesion.array > 0.05) & (one.lesion.array < 0.95)).sum() > 0.2 * lesion.sum()  # soft edges
    healthy = make_head(np.random.default_rng([42, int(burden * 10)]), COARSE, lesion_burden=None)
    ratio = (one.clean.array / np.maximum(healthy.clean.array, 1))[0][lesion]
    assert 0.4 < ratio.mean() < 0.9


def test_a_patient_without_a_visible_lesion_has_an_empty_label() -> None:
    one = head(3, 0.0)
    assert not one.label.array.any()
    assert one.parameters["lesion_pattern"] == "none"
