"""Bias field correction: on shapes whose field is known, and on procedural heads."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from neoseg.data.loading import LoadedImages
from neoseg.errors import GeometryError, InputError
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import Head, make_head
from neoseg.prepare.bias_field import BiasField, BiasFieldConfig, correct_bias_field
from neoseg.prepare.case import physical_maps
from neoseg.prepare.configs import PrepareConfig
from neoseg.volume import Grid, Volume

SPACING = (1.5, 1.5, 4.0)
PLAIN = BiasFieldConfig(anatomy_sd=0)
SEEDS = (41, 42, 43, 44)
"""Heads on which nothing was chosen."""


@pytest.fixture(scope="module")
def heads() -> list[Head]:
    return [make_head(np.random.default_rng(seed), HeadConfig(), lesion_burden=0.0) for seed in SEEDS]


@pytest.fixture(scope="module")
def injured() -> Head:
    return make_head(np.random.default_rng(SEEDS[0]), HeadConfig(), lesion_burden=50.0)


def scanned(head: Head, field_sd: float) -> tuple[Volume, NDArray[np.bool_], NDArray[np.float64]]:
    """The head's noisy ADC under its receive field of another strength, the brain, and the true log field there."""
    brain = head.brain.array[0] != 0
    own = np.log(head.field.array[0].astype(np.float64))
    truth = (own - own[brain].mean()) * (field_sd / own[brain].std())
    array = np.where(brain, head.adc.array[0] * np.exp(truth - own), 0)
    return head.adc.with_array(array[None].astype(np.float32)), brain, truth[brain]


def two_tissues(shape: tuple[int, int, int] = (40, 36, 14)) -> tuple[Volume, NDArray[np.bool_], NDArray[np.float64]]:
    """Blocks of two values under a field of second order, without noise; the ball in which they lie."""
    grid = Grid.of_spacing(shape, SPACING)
    index = np.indices(shape)
    x, y, z = ((i - (n - 1) / 2) * s / 30 for i, n, s in zip(index, shape, SPACING, strict=True))
    truth = 0.2 * x - 0.1 * y + 0.1 * z + 0.1 * x * y - 0.1 * y * y + 0.05 * z * x
    blocks = (index[0] // 8 + index[1] // 8 + index[2] // 4) % 2
    inside = x**2 + y**2 + z**2 < 0.8
    array = np.where(inside, np.where(blocks == 0, 1100.0, 1500.0) * np.exp(truth), 0)
    return Volume(array[None].astype(np.float32), grid), inside, truth - truth[inside].mean()


def field_of(found: BiasField, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    field = found.log_field[inside].astype(np.float64)
    return field - field.mean()


def test_a_field_of_second_order_over_two_tissues_is_found_almost_exactly() -> None:
    volume, inside, truth = two_tissues()
    found = correct_bias_field(volume, inside, BiasFieldConfig(anatomy_sd=0, smooth_mm=0))
    assert np.abs(field_of(found, inside) - truth[inside]).max() <= 0.01
    assert truth[inside].std() > 0.1


def test_turned_and_mirrored_scans_have_the_turned_and_mirrored_field() -> None:
    volume, inside, _ = two_tissues()
    straight = correct_bias_field(volume, inside, PLAIN).log_field
    mirrored = correct_bias_field(volume.with_array(volume.array[:, ::-1]), inside[::-1], PLAIN).log_field
    assert np.abs(mirrored[::-1] - straight).max() <= 2e-3
    axes = (2, 0, 1)
    grid = Grid.of_spacing(tuple(inside.shape[a] for a in axes), tuple(SPACING[a] for a in axes))
    turned = correct_bias_field(Volume(volume.array.transpose(0, 3, 1, 2), grid), inside.transpose(axes), PLAIN)
    assert np.abs(turned.log_field - straight.transpose(axes)).max() <= 2e-3


def test_a_lesion_that_fills_one_side_is_no_field() -> None:
    volume, inside, truth = two_tissues()
    array = volume.array / np.exp(truth).astype(np.float32)
    array[0, :20] *= 0.6
    found = correct_bias_field(volume.with_array(array), inside, PLAIN)
    assert np.log(array[0][inside]).std() > 0.25
    assert field_of(found, inside).std() <= 0.02


def test_what_anatomy_explains_is_left_in_place() -> None:
    volume, inside, _ = two_tissues()
    whole = correct_bias_field(volume, inside, PLAIN)
    assert whole.found_sd == pytest.approx(field_of(whole, inside).std(), rel=1e-4)
    part = correct_bias_field(volume, inside, BiasFieldConfig(anatomy_sd=0.08))
    assert part.found_sd == whole.found_sd
    factor = 1 - (0.08 / whole.found_sd) ** 2
    assert np.allclose(field_of(part, inside), factor * field_of(whole, inside), atol=1e-6)
    none = correct_bias_field(volume, inside, BiasFieldConfig(anatomy_sd=0.3))
    assert not none.log_field.any()
    assert np.array_equal(none.corrected.array, volume.array)


@pytest.mark.parametrize("method", ["pairs", "n4"])
def test_the_mean_is_kept_and_the_outside_untouched(heads: list[Head], method: str) -> None:
    volume, brain, _ = scanned(heads[0], 0.15)
    part = brain.copy()
    part[: brain.shape[0] // 3] = False
    found = correct_bias_field(volume, part, BiasFieldConfig.model_validate({"method": method, "convergence": 2e-3}))
    assert found.log_field[part].std() > 0
    before, after = volume.array[0].astype(np.float64), found.corrected.array[0].astype(np.float64)
    assert after[part].mean() == pytest.approx(before[part].mean(), rel=1e-6)
    assert np.array_equal(after[~part], before[~part])
    assert not found.log_field[~part].any()
    assert np.allclose(after[part] * np.exp(found.log_field[part]), before[part], rtol=1e-4)
    again = correct_bias_field(volume, part, BiasFieldConfig.model_validate({"method": method, "convergence": 2e-3}))
    assert np.array_equal(found.log_field, again.log_field)
    assert np.array_equal(found.corrected.array, again.corrected.array)


@pytest.mark.parametrize(("field_sd", "median", "worst"), [(0.09, 0.90, 0.80), (0.15, 0.95, 0.85)])
def test_a_coil_field_is_found_in_heads(heads: list[Head], field_sd: float, median: float, worst: float) -> None:
    correlations = []
    for head in heads:
        volume, brain, truth = scanned(head, field_sd)
        found = correct_bias_field(volume, brain, BiasFieldConfig())
        correlations.append(np.corrcoef(found.log_field[brain], truth)[0, 1])
        assert (field_of(found, brain) - truth).std() < 0.8 * field_sd
    assert np.median(correlations) >= median
    assert min(correlations) >= worst


def test_without_a_field_adc_stays_as_it_is(heads: list[Head], injured: Head) -> None:
    for head in [*heads, injured]:
        volume, brain, _ = scanned(head, 0.0)
        found = correct_bias_field(volume, brain, BiasFieldConfig())
        assert found.log_field[brain].std() <= 0.03
    lesion = injured.label.array[0] != 0
    assert lesion.sum() > 0.4 * brain.sum()
    before, after = (v.array[0][lesion].mean() / v.array[0][brain & ~lesion].mean() for v in (volume, found.corrected))
    assert after == pytest.approx(before, rel=0.02)


def test_n4_finds_a_coil_field(heads: list[Head]) -> None:
    volume, brain, truth = scanned(heads[1], 0.15)
    found = correct_bias_field(volume, brain, BiasFieldConfig(method="n4"))
    assert np.corrcoef(found.log_field[brain], truth)[0, 1] >= 0.85
    assert (field_of(found, brain) - truth).std() < 0.1


def test_otsu_leaves_the_air_of_an_unstripped_scan_out() -> None:
    volume, inside, truth = two_tissues()
    air = np.random.default_rng(0).rayleigh(60, inside.shape).astype(np.float32)
    scan = volume.with_array(np.where(inside, volume.array[0], air)[None])
    everywhere = np.ones(inside.shape, bool)
    found = correct_bias_field(scan, everywhere, BiasFieldConfig(anatomy_sd=0, mask="otsu", smooth_mm=0))
    assert np.abs(field_of(found, inside) - truth[inside]).max() <= 0.01


def test_without_a_mask_the_stripped_brain_is_used(heads: list[Head]) -> None:
    volume, brain, _ = scanned(heads[0], 0.15)
    given, own = (correct_bias_field(volume, mask, PLAIN) for mask in (brain, None))
    assert np.array_equal(given.log_field, own.log_field)


@pytest.mark.parametrize("method", ["pairs", "n4"])
@pytest.mark.parametrize("slices", [1, 2])
def test_one_and_two_slices_are_corrected_within_the_slice(heads: list[Head], method: str, slices: int) -> None:
    volume, brain, _ = scanned(heads[0], 0.15)
    low = brain.shape[2] // 2
    grid = volume.grid.cropped((0, 0, low), (*brain.shape[:2], slices))
    thin = Volume(volume.array[..., low : low + slices], grid)
    config = BiasFieldConfig.model_validate({"method": method, "anatomy_sd": 0, "convergence": 2e-3})
    found = correct_bias_field(thin, brain[..., low : low + slices], config)
    assert np.isfinite(found.corrected.array).all()
    assert 0 < found.found_sd < 0.4


def test_bad_input_has_words() -> None:
    grid = Grid.of_spacing((20, 20, 10), SPACING)
    rng = np.random.default_rng(0)
    noise = Volume(rng.uniform(500, 1500, (1, 20, 20, 10)), grid)
    everywhere = np.ones(grid.shape, bool)
    config = BiasFieldConfig()
    with pytest.raises(InputError, match="all over its mask"):
        correct_bias_field(noise.with_array(np.full((1, 20, 20, 10), 3.0)), everywhere, config)
    with pytest.raises(InputError, match="is empty"):
        correct_bias_field(noise, ~everywhere, config)
    few = np.zeros(grid.shape, bool)
    few[:3, :3, :3] = True
    with pytest.raises(InputError, match="has 27 voxels above 0"):
        correct_bias_field(noise, few, config)
    with pytest.raises(InputError, match="mean of 0 or below"):
        correct_bias_field(noise.with_array(noise.array - 2000), everywhere, config)
    bright = noise.array.copy()
    bright[0, 10:] += 1e5
    dark = np.indices(grid.shape)[0] < 10
    with pytest.raises(InputError, match="0 voxels above Otsu"):
        correct_bias_field(noise.with_array(bright), dark, BiasFieldConfig(mask="otsu"))
    scattered = np.indices((40, 40, 40)).sum(0) % 41 == 0
    wide = Volume(rng.uniform(500, 1500, (1, 40, 40, 40)), Grid.of_spacing((40, 40, 40), (30, 30, 30)))
    with pytest.raises(InputError, match="pairs of nearby voxels"):
        correct_bias_field(wide, scattered & (np.indices((40, 40, 40))[0] % 2 == 0), config)
    broken = noise.array.copy()
    broken[0, 3, 3, 3] = np.nan
    with pytest.raises(InputError, match="not numbers"):
        correct_bias_field(noise.with_array(broken), everywhere, config)
    with pytest.raises(GeometryError, match="mask"):
        correct_bias_field(noise, np.ones((2, 2, 2), bool), config)
    with pytest.raises(GeometryError, match="one channel"):
        correct_bias_field(Volume(np.ones((2, 20, 20, 10)), grid), everywhere, config)


def test_no_z_map_is_corrected_whatever_it_is_called() -> None:
    volume, inside, _ = two_tissues()
    z = np.where(inside, volume.array[0] / 400 - 4, 0).astype(np.float32)
    names = ("adc", "zadc", "zadc_smooth", "t2")
    image = Volume(np.stack([volume.array[0], z, z, volume.array[0]]), volume.grid)
    config = PrepareConfig(bias_field=PLAIN)
    found = physical_maps(LoadedImages(image, names, ()), config, None, want=names)
    changed = [not np.array_equal(a, b) for a, b in zip(found.image.array, image.array, strict=True)]
    assert changed == [True, False, False, True]
    assert {name for name in found.facts if name.startswith("bias_field")} == {"bias_field_sd_adc", "bias_field_sd_t2"}


@pytest.mark.parametrize("scale", [1e-4, 1e3])
def test_n4_finds_the_same_field_in_any_unit(scale: float) -> None:
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (32, 36, 20)], indexing="ij"))
    mask = (place**2).sum(axis=0) < 0.9
    noise = np.random.default_rng(0).normal(1, 0.03, mask.shape)
    values = np.where(mask, np.exp(0.3 * place[0]) * noise, 0)
    config = BiasFieldConfig(method="n4", anatomy_sd=0)
    grid = Grid(mask.shape, np.diag([3.0, 3.0, 4.0, 1.0]))
    fields = [
        correct_bias_field(Volume((k * values)[None].astype(np.float32), grid), mask, config).log_field
        for k in (1.0, scale)
    ]
    assert np.std(fields[0][mask]) > 0.05
    np.testing.assert_allclose(fields[1], fields[0], atol=5e-3)
