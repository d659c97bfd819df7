"""The affine registration: known maps, every way round, cut and noisy scans, lesions, real pairs, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from neoseg.errors import InputError
from neoseg.io import read_volume
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import Head, make_head
from neoseg.register.affine import AffineRegistration, register_affine
from neoseg.register.alignment import Pose, climb_rigid, left_jacobian, make_level, rotation
from neoseg.register.configs import AffineConfig
from neoseg.register.images import clipped, known, require_image
from neoseg.register.itk import affine_from_itk
from neoseg.register.mutual_information import MattesInformation, read_linear
from neoseg.register.search import evenly_spread, turn_of
from neoseg.register.transforms import Affine, resample
from neoseg.volume import Grid, Volume

DATA = Path(__file__).parents[2] / "shared" / "data"
COARSE = AffineConfig(levels_mm=(6.0,))


@pytest.fixture(scope="module")
def head() -> Head:
    return make_head(np.random.default_rng(21), HeadConfig())


@pytest.fixture(scope="module")
def other() -> Head:
    return make_head(np.random.default_rng(22), HeadConfig())


def about(centre: np.ndarray, linear: np.ndarray, shift: tuple[float, ...]) -> Affine:
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = centre - linear @ centre + shift
    return Affine(matrix)


def brain_centre(volume: Volume) -> np.ndarray:
    return volume.grid.to_world(np.argwhere(volume.array[0] != 0).mean(axis=0))


def seen_through(head: Head, truth: Affine, spacing: tuple[float, ...], shape: tuple[int, ...]) -> Volume:
    """The head on an oblique grid of its own in a world that ``truth`` maps to the head's, with noise in the brain."""
    own = np.eye(4)
    own[:3, :3] = Rotation.from_rotvec([0.15, -0.1, 0.2]).as_matrix() @ np.diag(spacing)
    centre = truth.inverse().points(brain_centre(head.adc)[None])[0]
    own[:3, 3] = centre - own[:3, :3] @ ((np.array(shape) - 1) / 2)
    grid = Grid(shape, own)
    image = resample(head.adc, grid, truth).array
    inside = resample(head.brain, grid, truth, order=0).array != 0
    noise = np.random.default_rng(3).normal(0, 40, image.shape)
    return Volume(np.where(inside, np.maximum(image + noise, 1), 0).astype(np.float32), grid)


def error(found: AffineRegistration, truth: Affine, fixed: Volume) -> float:
    brain = fixed.grid.to_world(np.argwhere(fixed.array[0] != 0)[::7])
    return float(np.linalg.norm(found.transform.points(brain) - truth.points(brain), axis=1).mean())


def twenty_degrees(head: Head) -> Affine:
    turn = Rotation.from_rotvec(np.radians(20) * np.array([1, 0.3, -0.5]) / np.linalg.norm([1, 0.3, -0.5]))
    return about(brain_centre(head.adc), turn.as_matrix() @ np.diag([0.9, 1.0, 1.1]), (-6.0, 6.0, 5.3))


def turned(volume: Volume, turn: np.ndarray) -> tuple[Volume, Affine]:
    """The same voxels under a turned header, and the map from the old to the new world."""
    to_new = about(volume.grid.centre, turn, (5.0, -8.0, 10.0))
    return Volume(volume.array, Grid(volume.grid.shape, to_new.matrix @ volume.grid.affine)), to_new


def cut(volume: Volume, first: int, last: int) -> Volume:
    grid = volume.grid.cropped((0, 0, first), (*volume.grid.shape[:2], last - first))
    return Volume(np.ascontiguousarray(volume.array[..., first:last]), grid)


@pytest.mark.parametrize(("spacing", "shape"), [((1.4, 1.4, 4.0), (100, 100, 34)), ((1.25, 1.25, 2.5), (112, 112, 52))])
def test_a_known_affine_is_found_both_ways(head: Head, spacing: tuple[float, ...], shape: tuple[int, ...]) -> None:
    truth = twenty_degrees(head)
    image = seen_through(head, truth, spacing, shape)
    assert error(register_affine(image, head.adc, config=AffineConfig()), truth, image) <= 0.7
    assert error(register_affine(head.adc, image, config=AffineConfig()), truth.inverse(), head.adc) <= 0.7


@pytest.mark.parametrize("vector", [(np.pi, 0, 0), (0, np.pi, 0), (0, 0, np.pi), (0, 0, np.pi / 2), (1.2, 1.2, -1.2)])
def test_a_head_is_found_whichever_way_round_its_header_has_it(
    head: Head, other: Head, vector: tuple[float, ...]
) -> None:
    straight = register_affine(head.adc, other.adc, config=COARSE)
    image, to_new = turned(other.adc, Rotation.from_rotvec(vector).as_matrix())
    found = register_affine(head.adc, image, config=COARSE)
    truth = Affine(to_new.matrix @ straight.transform.matrix)
    assert error(found, truth, head.adc) < 1.0
    assert found.facts()["affine_turn_degrees"] > 60
    assert found.rival is not None
    assert found.rival < 0.9


def test_without_the_search_over_all_turns_a_turned_header_is_believed(head: Head, other: Head) -> None:
    image, _ = turned(other.adc, Rotation.from_rotvec([np.pi, 0, 0]).as_matrix())
    trusting = register_affine(head.adc, image, config=AffineConfig(levels_mm=(6.0,), orientations=0))
    searching = register_affine(head.adc, image, config=COARSE)
    assert trusting.facts()["affine_turn_degrees"] < 60
    assert trusting.similarity < 0.8 * searching.similarity


def test_a_start_is_followed_and_not_searched_around(head: Head) -> None:
    truth = twenty_degrees(head)
    image = seen_through(head, truth, (1.4, 1.4, 4.0), (100, 100, 34))
    near = Affine(truth.matrix + np.diag([0.03, -0.03, 0.02, 0]))
    found = register_affine(image, head.adc, config=AffineConfig(), start=near)
    assert error(found, truth, image) <= 0.7
    assert found.rival is None
    assert "affine_rival" not in found.facts()


def test_slices_missing_from_either_scan_do_not_pull(head: Head) -> None:
    truth = twenty_degrees(head)
    image = seen_through(head, truth, (1.4, 1.4, 3.0), (100, 100, 44))
    count = head.adc.grid.shape[2]
    fixed, moving = cut(image, 0, 26), cut(head.adc, count // 3, count)
    assert error(register_affine(fixed, moving, config=AffineConfig()), truth, fixed) < 0.15
    assert error(register_affine(moving, fixed, config=AffineConfig()), truth.inverse(), moving) < 0.5


def test_noise_in_the_background_and_wild_voxels_are_coped_with(head: Head) -> None:
    truth = twenty_degrees(head)
    generator = np.random.default_rng(0)
    volumes = []
    for volume in (seen_through(head, truth, (1.4, 1.4, 4.0), (100, 100, 34)), head.adc):
        image = np.hypot(volume.array + generator.normal(0, 40, volume.array.shape), 40).astype(np.float32)
        wild = generator.random(image.shape) < 2e-4
        image[wild] = generator.uniform(1e4, 1e6, int(wild.sum()))
        volumes.append(volume.with_array(image))
    assert (volumes[0].array != 0).all()
    found = register_affine(*volumes, config=AffineConfig())
    brain = seen_through(head, truth, (1.4, 1.4, 4.0), (100, 100, 34))
    assert error(found, truth, brain) < 1.0


def test_large_lesions_pull_little() -> None:
    healthy, ill = (make_head(np.random.default_rng(23), HeadConfig(), lesion_burden=b) for b in (None, 60.0))
    truth = twenty_degrees(ill)
    image = seen_through(ill, truth, (1.4, 1.4, 4.0), (100, 100, 34))
    assert (ill.label.array != 0).sum() > 0.5 * (ill.brain.array != 0).sum()
    assert error(register_affine(image, healthy.adc, config=AffineConfig()), truth, image) <= 1.0


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not on this machine")
@pytest.mark.slow
def test_real_pairs_with_known_transforms_and_their_mirror_image() -> None:
    import SimpleITK as sitk  # noqa: N813

    folders = sorted((DATA / "ms_longitudinal_registration").glob("patient*"))
    assert folders
    for folder in folders:
        one, two = (read_volume(folder / f"study{i}_FLAIR.nii.gz") for i in (1, 2))
        to_one, to_two = (
            affine_from_itk(sitk.ReadTransform(str(folder / f"study{i}_FLAIR_to_common_space.txt"))) for i in (1, 2)
        )
        mask = read_volume(folder / "brainmask.nii.gz")
        common = mask.grid.to_world(np.argwhere(mask.array[0] != 0)[::29])
        assert np.linalg.norm(to_one.points(common) - to_two.points(common), axis=1).mean() > 3
        found = register_affine(one, two, config=AffineConfig())
        away = np.linalg.norm(found.transform.points(to_one.points(common)) - to_two.points(common), axis=1)
        assert away.mean() <= 1.0
        assert found.mirrored < 0.95
        swapped = Volume(np.ascontiguousarray(two.array[:, ::-1]), two.grid)
        assert register_affine(one, swapped, config=COARSE).mirrored > 1.05


def test_one_slice_empty_and_heads_side_by_side_have_words(head: Head) -> None:
    good = head.adc
    slice_of_it = cut(good, 12, 13)
    with pytest.raises(InputError, match=r"fixed image spans 1 voxel.*give more of the head"):
        register_affine(slice_of_it, good, config=AffineConfig())
    with pytest.raises(InputError, match=r"moving image has 0 voxels.*give a mask of the whole head"):
        register_affine(good, good, config=AffineConfig(), moving_mask=np.zeros(good.grid.shape, bool))
    with pytest.raises(InputError, match="side by side"):
        register_affine(good, good, config=AffineConfig(), start=about(np.zeros(3), np.eye(3), (500.0, 0.0, 0.0)))
    infinite = good.array.copy()
    infinite[0, 3, 3, 3] = np.inf
    with pytest.raises(InputError, match="not numbers"):
        register_affine(good.with_array(infinite), good, config=AffineConfig())


def test_a_head_too_thin_for_the_level_has_words() -> None:
    grid = Grid.of_spacing((40, 40, 3), (1.5, 1.5, 0.6))
    image = np.random.default_rng(0).normal(1200, 90, (1, *grid.shape)).astype(np.float32)
    image[:, :5] = 0
    with pytest.raises(InputError, match="fixed head is too thin for a registration with voxels of 8 mm"):
        register_affine(Volume(image, grid), Volume(image, grid), config=AffineConfig(levels_mm=(8.0,)))


def test_fields_of_view_that_lie_apart_are_brought_together(head: Head) -> None:
    affine = head.adc.grid.affine.copy()
    affine[:3, 3] += [700.0, -300.0, 400.0]
    far = Volume(head.adc.array, Grid(head.adc.grid.shape, affine))
    found = register_affine(head.adc, far, config=COARSE)
    assert np.allclose(found.transform.matrix[:3, 3], [700, -300, 400], atol=1.0)


def test_a_mask_found_in_noise_is_the_head(head: Head) -> None:
    image = head.adc.array + np.random.default_rng(1).uniform(1, 60, head.adc.array.shape).astype(np.float32)
    inside = require_image(head.adc.with_array(image), None, "given")
    brain = head.brain.array[0] != 0
    assert 2 * (inside & brain).sum() / (inside.sum() + brain.sum()) > 0.9


def test_outliers_are_cut_off_and_the_background_is_kept(head: Head) -> None:
    image = head.adc.array.copy()
    image[0, 0, 0, 0] = 1e6
    result = clipped(head.adc.with_array(image), head.brain.array[0] != 0).array
    assert result.max() < 4000
    assert result.min() == 0
    assert (result == image).mean() > 0.99


def test_what_lies_behind_a_face_that_cuts_the_head_is_unknown() -> None:
    inside = np.zeros((6, 6, 6), bool)
    inside[2:4, 2:4, 2:] = True
    own = Grid.of_spacing((6, 6, 6), (1.0, 1.0, 1.0))
    around = own.cropped((-2, -2, -2), (10, 10, 10))
    found = known(inside, own, around)
    expected = np.ones((10, 10, 10), bool)
    expected[4:6, 4:6, 8:] = False
    assert np.array_equal(found, expected)


def test_the_gradient_is_exact_where_part_of_the_image_is_unknown() -> None:
    generator = np.random.default_rng(0)
    image = gaussian_filter(generator.normal(size=(20, 21, 22)), 2.0)
    there = np.ones(image.shape)
    there[:, :, 14:] = 0
    grid = Grid(image.shape, np.diag([-2.0, 1.5, 3.0, 1.0]))
    points = grid.to_world(generator.uniform(4, 15, (3000, 3)))
    fixed = read_linear(image, grid.to_index(points))[0]
    measure = MattesInformation(fixed, image, grid, bins=16, window=image, known=there)
    whole = MattesInformation(fixed, image, grid, bins=16, window=image)
    moved = points + generator.normal(0, 0.5, 3)
    assert measure(moved)[0] != pytest.approx(whole(moved)[0], rel=1e-3)
    direction = generator.normal(size=points.shape)
    for term in (direction, np.broadcast_to([0.0, 0.0, 1.0], points.shape)):
        numeric = (measure(moved + 1e-5 * term)[0] - measure(moved - 1e-5 * term)[0]) / 2e-5
        assert measure(moved)[1].ravel() @ term.ravel() == pytest.approx(numeric, rel=2e-3)
    assert measure(points + np.array([0, 0, 1000.0]))[0] == 0
    chosen = np.arange(0, 3000, 3)
    part = MattesInformation(fixed[chosen], image, grid, bins=16, window=image, known=there)
    assert measure.of(chosen)(moved[chosen])[0] == pytest.approx(part(moved[chosen])[0], rel=0.05)


def test_rotations_are_those_of_scipy_and_the_rigid_optimum_is_climbed_to(head: Head) -> None:
    for vector in ([0.0, 0.0, 0.0], [1e-9, 0, 0], [0.4, -0.8, 1.1], [0, 3.0, 0]):
        assert np.allclose(rotation(np.array(vector)), Rotation.from_rotvec(vector).as_matrix(), atol=1e-12)
        change = np.array([3e-6, -2e-6, 1e-6])
        added = rotation(left_jacobian(np.array(vector)) @ change) @ rotation(np.array(vector))
        assert np.allclose(added, rotation(np.array(vector) + change), atol=1e-11)
    inside = head.brain.array[0] != 0
    centre = brain_centre(head.adc)
    level = make_level((head.adc, head.adc), (inside, inside), centre, config=AffineConfig(), spacing=4.0)
    start = Pose(rotation(np.array([0.2, -0.15, 0.25])), centre + np.array([4.0, -3.0, 2.0]))
    found = climb_rigid(level, start, 60)
    assert turn_of(found.linear) < 0.1
    assert np.linalg.norm(found.shift - centre) < 0.1
    square = found.linear @ found.linear.T
    assert np.allclose(square, square[0, 0] * np.eye(3), atol=1e-9)
    assert square[0, 0] == pytest.approx(1, abs=0.002)


def test_orientations_are_spread_over_all_turns() -> None:
    spread = evenly_spread(400)
    assert np.allclose(spread @ spread.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(spread), 1)
    for turn in Rotation.random(200, random_state=1).as_matrix():
        nearest = np.degrees(np.arccos(np.clip((np.einsum("nij,ij->n", spread, turn).max() - 1) / 2, -1, 1)))
        assert nearest < 32
    assert evenly_spread(0).shape == (0, 3, 3)


def test_the_turn_of_a_linear_map_ignores_its_stretch() -> None:
    for degrees in (0.0, 37.0, 90.0, 179.0):
        turn = Rotation.from_rotvec(np.radians(degrees) * np.array([0.6, 0.0, 0.8])).as_matrix()
        assert turn_of(turn @ np.diag([1.2, 0.9, 1.1])) == pytest.approx(degrees, abs=4.0)
        assert turn_of(turn) == pytest.approx(degrees, abs=1e-4)
