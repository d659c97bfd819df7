"""Registration of procedural heads: known affines are found, deformations help and never fold, bad input has words."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from neoseg.errors import GeometryError, InputError
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import Head, make_head
from neoseg.register.affine import register_affine
from neoseg.register.chain import register_heads
from neoseg.register.configs import AffineConfig, FfdConfig
from neoseg.register.ffd import register_ffd
from neoseg.register.moments import start_from_moments
from neoseg.register.mutual_information import MattesInformation, read_linear
from neoseg.register.transforms import Affine, resample
from neoseg.volume import Grid, Volume


@pytest.fixture(scope="module")
def heads() -> list[Head]:
    return [make_head(generator, HeadConfig()) for generator in np.random.default_rng(5).spawn(2)]


def known_affine(centre: np.ndarray, axis: list[float], scale: list[float]) -> Affine:
    matrix = np.eye(4)
    turn = Rotation.from_rotvec(np.radians(20) * np.array(axis) / np.linalg.norm(axis)).as_matrix()
    matrix[:3, :3] = turn @ np.diag(scale)
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + np.array([6.0, -6.0, 5.3])
    return Affine(matrix)


def moved_head(head: Head, transform: Affine, flip: bool, seed: int) -> Volume:
    """The head seen through a known affine, on an oblique grid of its own, with fresh noise inside the brain."""
    own = np.eye(4)
    own[:3, :3] = Rotation.from_rotvec([0.15, -0.1, 0.2]).as_matrix() @ np.diag([1.5, 1.5, 3.0])
    if flip:
        own[:3, 0] *= -1
    index = np.argwhere(head.brain.array[0])
    centre = transform.inverse().points(head.adc.grid.to_world(index.mean(axis=0))[None])[0]
    own[:3, 3] = centre - own[:3, :3] @ [44, 44, 22]
    grid = Grid((89, 89, 45), own)
    image = resample(head.adc, grid, transform, order=1).array
    inside = resample(head.brain, grid, transform, order=0).array != 0
    noise = np.random.default_rng(seed).normal(0, 40, image.shape)
    return Volume(np.where(inside, np.maximum(image + noise, 1), 0).astype(np.float32), grid)


@pytest.mark.parametrize(
    ("axis", "scale", "flip"),
    [
        ([0, 0, 1], [1.1, 1.1, 1.1], False),
        ([1, 0.3, -0.5], [0.9, 1.0, 1.1], True),
        ([0.2, -1, 0.3], [1.1, 0.95, 1], False),
    ],
)
def test_a_known_affine_is_found(heads: list[Head], axis: list[float], scale: list[float], flip: bool) -> None:
    head = heads[0]
    centre = head.adc.grid.to_world(np.argwhere(head.brain.array[0]).mean(axis=0))
    truth = known_affine(centre, axis, scale)
    fixed = moved_head(head, truth, flip, seed=1)
    found = register_affine(fixed, head.adc, config=AffineConfig())
    brain = fixed.grid.to_world(np.argwhere(fixed.array[0] != 0))
    error = np.linalg.norm(found.transform.points(brain) - truth.points(brain), axis=1)
    assert error.mean() <= 0.7
    assert error.max() <= 2.5


def test_affine_gives_the_same_bits_twice(heads: list[Head]) -> None:
    config = AffineConfig(samples=5000, turn_degrees=0)
    pair = heads[0].adc, heads[1].adc
    first, second = (register_affine(*pair, config=config) for _ in range(2))
    assert np.array_equal(first.transform.matrix, second.transform.matrix)
    assert first.similarity == second.similarity


def test_moments_lay_centre_on_centre(heads: list[Head]) -> None:
    start = start_from_moments(heads[0].adc, heads[1].adc)
    centres = [h.adc.grid.to_world(np.argwhere(h.adc.array[0] != 0).mean(axis=0)) for h in heads]
    assert np.allclose(start.points(centres[0][None])[0], centres[1])


def test_mutual_information_has_an_exact_gradient_and_prefers_itself() -> None:
    rng = np.random.default_rng(0)
    from scipy.ndimage import gaussian_filter

    image = gaussian_filter(rng.normal(size=(20, 21, 22)), 2.0)
    affine = np.diag([-2.0, 1.5, 3.0, 1.0])
    grid = Grid(image.shape, affine)
    points = grid.to_world(rng.uniform(4, 15, (3000, 3)))
    fixed = read_linear(image, grid.to_index(points))[0]
    measure = MattesInformation(fixed, image, grid, bins=16, window=image)
    moved = points + rng.normal(0, 0.5, 3)
    assert measure(points)[0] > 1.5 * measure(points + np.array([3.0, 0, 0]))[0] > 0
    direction = rng.normal(size=points.shape)
    numeric = (measure(moved + 1e-5 * direction)[0] - measure(moved - 1e-5 * direction)[0]) / 2e-5
    assert measure(moved)[1].ravel() @ direction.ravel() == pytest.approx(numeric, rel=1e-3)


def tissue_overlap(heads: list[Head], transform: object) -> float:
    fixed = heads[0].tissues.array.argmax(axis=0)
    moving = Volume(heads[1].tissues.array.argmax(axis=0)[None].astype(np.uint8), heads[1].adc.grid)
    warped = resample(moving, heads[0].adc.grid, transform, order=0).array[0]  # type: ignore[arg-type]
    scores = []
    for tissue in range(1, len(heads[0].tissues.array)):
        a, b = fixed == tissue, warped == tissue
        if a.sum() > 200:
            scores.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    return float(np.mean(scores))


def test_deformation_improves_overlap_and_correlation_without_folding(heads: list[Head]) -> None:
    affine = register_affine(heads[0].adc, heads[1].adc, config=AffineConfig()).transform
    found = register_ffd(heads[0].adc, heads[1].adc, affine, config=FfdConfig())
    assert found.accepted
    assert found.warning is None
    assert found.ncc_after > found.ncc_before + 0.03
    assert found.smallest_jacobian > 0.2
    assert tissue_overlap(heads, found.transform) > tissue_overlap(heads, affine) + 0.05
    brain = heads[0].adc.grid.to_world(np.argwhere(heads[0].adc.array[0] != 0)[::11])
    assert np.linalg.det(found.transform.jacobians(brain)).min() > 0
    again = found.transform.inverse().points(found.transform.points(brain))
    assert np.abs(again - brain).max() < 0.05
    twice = register_ffd(heads[0].adc, heads[1].adc, affine, config=FfdConfig())
    assert np.array_equal(twice.transform.points(brain), found.transform.points(brain))


def test_a_refused_deformation_leaves_the_affine_and_says_so(heads: list[Head]) -> None:
    config = FfdConfig(bending=0, grid_mm=(8.0,), image_mm=(4.0,), iterations=60, smallest_jacobian=0.9, stiffer=1)
    found = register_heads(
        heads[0].adc, heads[1].adc, affine=AffineConfig(levels_mm=(6.0,), turn_degrees=0), ffd=config
    )
    assert found.transform is found.affine
    assert len(found.warnings) == 1
    assert "Jacobian" in found.warnings[0]


def test_a_deformation_that_folds_is_sought_again_stiffer(heads: list[Head]) -> None:
    pair = heads[0].adc, heads[1].adc
    affine = register_affine(*pair, config=AffineConfig(levels_mm=(6.0,), turn_degrees=0)).transform
    config = FfdConfig(bending=3, smallest_jacobian=0.3)
    assert not register_ffd(*pair, affine, config=config.model_copy(update={"stiffer": 0})).accepted
    found = register_ffd(*pair, affine, config=config)
    assert found.accepted
    assert found.bending > 3
    assert found.smallest_jacobian >= 0.3


def test_bad_images_have_words(heads: list[Head]) -> None:
    good = heads[0].adc
    config = AffineConfig()
    empty = good.with_array(np.zeros_like(good.array))
    with pytest.raises(InputError, match=r"moving image has 0 voxels in its mask.* 64 or more; none was given"):
        register_affine(good, empty, config=config)
    with pytest.raises(InputError, match=r"fixed image is constant \(1\.0 in all \d+ voxels\).*give another image"):
        register_affine(good.with_array(np.ones_like(good.array)), good, config=config)
    broken = good.array.copy()
    broken[0, 5, 5, 5] = np.nan
    with pytest.raises(InputError, match=r"1 voxels of \d+ that are not numbers; write 0"):
        register_affine(good.with_array(broken), good, config=config)
    with pytest.raises(GeometryError, match="one channel in 3-D; give a single volume"):
        register_affine(Volume(np.repeat(good.array, 2, axis=0), good.grid), good, config=config)
    with pytest.raises(GeometryError, match=r"mask has shape \(3, 3, 3\).*give a mask on the grid"):
        register_affine(good, good, config=config, fixed_mask=np.ones((3, 3, 3), bool))


def test_levels_run_from_coarse_to_fine() -> None:
    with pytest.raises(ValueError, match="coarse to fine"):
        AffineConfig(levels_mm=(2.0, 6.0))
    with pytest.raises(ValueError, match="as many levels"):
        FfdConfig(grid_mm=(20.0,), image_mm=(4.0, 2.0))
