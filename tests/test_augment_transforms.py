import numpy as np
import pytest
import torch
from scipy import ndimage

from neoseg.augment.augmentation import AUGMENTATIONS, Augmentation
from neoseg.augment.configs import AugmentConfig
from neoseg.augment.intensity import BRIGHTNESS, CONTRAST, GAMMA, NOISE
from neoseg.augment.resolution import BLUR, LOW_RESOLUTION, blur_matrix, low_resolution_matrix
from neoseg.augment.spatial import AFFINE, FLIP, rotation_matrix
from neoseg.augment.transform import BatchInfo

ALWAYS = AugmentConfig(
    **{name: 1.0 for name in AugmentConfig.model_fields if name.endswith("probability")}, noise_sd=(0.05, 0.1)
)
SHAPES = {"3-D": ((2, 2, 20, 18, 10), (1.0, 1.0, 2.0)), "2-D": ((2, 2, 20, 18), (1.0, 1.5))}


pytestmark = pytest.mark.usefixtures("one_thread")


def batch(kind: str):
    shape, spacing = SHAPES[kind]
    generator = np.random.default_rng(0)
    image = torch.from_numpy(generator.normal(0, 1, shape).astype(np.float32))
    label = torch.zeros((shape[0], *shape[2:]), dtype=torch.uint8)
    label[:, 3:9, 4:11] = 1
    label[:, 12:16, 4:11] = 2
    return image, label, BatchInfo(shape[0], shape[1], shape[2:], spacing)


@pytest.mark.parametrize("transform", AUGMENTATIONS, ids=lambda t: t.name)
@pytest.mark.parametrize("kind", SHAPES)
class TestEveryTransform:
    def test_identity_parameters_change_no_bit(self, transform, kind):
        image, label, info = batch(kind)
        found, mask = transform.apply(image, label, transform.identity(info), info)
        assert torch.equal(found, image) and torch.equal(mask, label)

    def test_probability_zero_draws_identity(self, transform, kind):
        image, label, info = batch(kind)
        off = AugmentConfig(**{name: 0.0 for name in AugmentConfig.model_fields if name.endswith("probability")})
        parameters = transform.sample(off, np.random.default_rng(1), info)
        assert parameters.keys() == transform.identity(info).keys()
        found, mask = transform.apply(image, label, parameters, info)
        assert torch.equal(found, image) and torch.equal(mask, label)

    def test_it_changes_the_image_and_keeps_form_and_input(self, transform, kind):
        image, label, info = batch(kind)
        before = image.clone(), label.clone()
        changed = False
        for seed in range(8):
            parameters = transform.sample(ALWAYS, np.random.default_rng(seed), info)
            assert all(len(value) == info.batch for value in parameters.values())
            found, mask = transform.apply(image, label, parameters, info)
            assert found.shape == image.shape and found.dtype == torch.float32 and torch.isfinite(found).all()
            assert mask.shape == label.shape and mask.dtype == label.dtype
            assert set(mask.unique().tolist()) <= {0, 1, 2}
            changed |= not torch.equal(found, image)
            if not transform.moves:
                assert torch.equal(mask, label)
        assert changed
        assert torch.equal(image, before[0]) and torch.equal(label, before[1])

    def test_empty_surroundings_stay_empty_and_the_image_alone_changes_unless_voxels_move(self, transform, kind):
        image, label, info = batch(kind)
        image[:, :, :5] = image[:, :, :, 12:] = info.fill
        empty = (image == info.fill).all(dim=1, keepdim=True).expand_as(image)
        drawn = {transform.name: transform.sample(ALWAYS, np.random.default_rng(2), info)}
        found, mask = Augmentation(ALWAYS).apply(image, label, drawn, info)
        if not transform.moves:
            assert (found[empty] == info.fill).all() and torch.equal(mask, label)
        assert not torch.equal(found[~empty], image[~empty])

    def test_the_same_generator_gives_the_same_bits(self, transform, kind):
        image, label, info = batch(kind)
        results = []
        for _ in range(2):
            torch.rand(5)
            parameters = transform.sample(ALWAYS, np.random.default_rng(3), info)
            results.append(transform.apply(image, label, parameters, info))
        assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])

    def test_a_sample_changes_without_regard_to_its_neighbours(self, transform, kind):
        image, label, info = batch(kind)
        parameters = transform.sample(ALWAYS, np.random.default_rng(4), info)
        alone = BatchInfo(1, info.channels, info.shape, info.spacing_mm)
        both = transform.apply(image, label, parameters, info)
        one = transform.apply(image[1:], label[1:], {k: v[1:] for k, v in parameters.items()}, alone)
        torch.testing.assert_close(both[0][1:], one[0])
        assert torch.equal(both[1][1:], one[1])


def test_flips_are_exact_and_only_of_the_chosen_axes():
    image, label, info = batch("3-D")
    flip = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    found, mask = FLIP.apply(image, label, {"flip": flip}, info)
    assert torch.equal(found[0], image[0].flip(1, 3)) and torch.equal(found[1], image[1].flip(2))
    assert torch.equal(mask[0], label[0].flip(0, 2)) and torch.equal(mask[1], label[1].flip(1))
    config = AugmentConfig(flip_axes=(2,), flip_probability=1.0)
    assert FLIP.sample(config, np.random.default_rng(0), info)["flip"].tolist() == [[0, 0, 1]] * 2


def test_a_quarter_turn_about_z_is_an_exact_permutation():
    generator = np.random.default_rng(0)
    image = torch.from_numpy(generator.normal(0, 1, (1, 1, 9, 9, 4)).astype(np.float32))
    label = torch.from_numpy(generator.integers(0, 3, (1, 9, 9, 4)).astype(np.uint8))
    info = BatchInfo(1, 1, (9, 9, 4), (1.0, 1.0, 3.0))
    parameters = {"degrees": np.array([[0.0, 0.0, 90.0]]), "zoom": np.ones(1)}
    found, mask = AFFINE.apply(image, label, parameters, info)
    # turning x towards y: what was on +x is then on +y
    torch.testing.assert_close(found[0, 0], torch.rot90(image[0, 0], 1, (0, 1)), atol=1e-4, rtol=0)
    assert torch.equal(mask[0], torch.rot90(label[0], 1, (0, 1)))


def test_a_quarter_turn_out_of_the_plane_keeps_sizes_in_mm():
    # a bar of 12 mm along x (voxels of 1 mm) becomes a bar of 12 mm along z (voxels of 2 mm)
    label = torch.zeros((1, 25, 9, 13), dtype=torch.uint8)
    label[0, 6:18, 3:6, 5:7] = 1
    info = BatchInfo(1, 1, (25, 9, 13), (1.0, 1.0, 2.0))
    parameters = {"degrees": np.array([[0.0, 90.0, 0.0]]), "zoom": np.ones(1)}
    image, mask = AFFINE.apply(label[:, None].float(), label, parameters, info)
    extent = [int(mask[0].any(dim=tuple(a for a in range(3) if a != axis)).sum()) for axis in range(3)]
    assert extent[1] == 3 and abs(extent[0] * 1.0 - 4.0) <= 1 and abs(extent[2] * 2.0 - 12.0) <= 2
    assert torch.equal(image[0, 0] > 0.5, mask[0] == 1)


@pytest.mark.parametrize("zoom", [0.7, 1.3])
def test_a_zoom_above_one_enlarges(zoom):
    label = torch.zeros((1, 200, 200), dtype=torch.uint8)
    label[0, 60:140, 60:140] = 1
    info = BatchInfo(1, 1, (200, 200), (1.0, 1.0))
    _, mask = AFFINE.apply(label[:, None].float(), label, {"degrees": np.zeros((1, 1)), "zoom": np.array([zoom])}, info)
    assert mask.sum().item() == pytest.approx(6400 * zoom**2, rel=0.03)


def test_an_affine_equals_that_of_scipy():
    generator = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(generator.normal(0, 1, (24, 20, 12)), 1.5).astype(np.float32)
    spacing = np.array([1.0, 1.2, 2.5])
    degrees, zoom = np.array([12.0, -8.0, 25.0]), 1.2
    info = BatchInfo(1, 1, smooth.shape, tuple(spacing), fill=-1.0)
    found, _ = AFFINE.apply(
        torch.from_numpy(smooth)[None, None],
        torch.zeros((1, *smooth.shape), dtype=torch.uint8),
        {"degrees": degrees[None], "zoom": np.array([zoom])},
        info,
    )
    pull = np.diag(1 / spacing) @ rotation_matrix(degrees).T @ np.diag(spacing) / zoom
    centre = (np.array(smooth.shape) - 1) / 2
    wanted = ndimage.affine_transform(smooth, pull, centre - pull @ centre, order=1, mode="grid-constant", cval=-1.0)
    np.testing.assert_allclose(found[0, 0].numpy(), wanted, atol=2e-5)


def test_a_rotation_matrix_turns_about_x_then_y_then_z():
    turn = rotation_matrix(np.array([90.0, 0.0, 90.0]))
    np.testing.assert_allclose(turn @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(turn @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)


def test_a_blur_equals_that_of_scipy_away_from_the_border():
    image = torch.zeros((1, 1, 21, 21, 21))
    image[0, 0, 10, 10, 10] = 1
    info = BatchInfo(1, 1, (21, 21, 21), (1.0, 1.0, 1.0))
    found, _ = BLUR.apply(image, torch.zeros((1, 21, 21, 21)), {"sigma": np.array([[0.9]])}, info)
    wanted = ndimage.gaussian_filter(image[0, 0].numpy(), 0.9, truncate=10)
    np.testing.assert_allclose(found[0, 0].numpy(), wanted, atol=1e-6)
    assert blur_matrix(7, 1.0).sum(axis=1) == pytest.approx(1)


def test_low_resolution_keeps_constants_and_ramps():
    for n, zoom in [(20, 0.5), (17, 0.6), (5, 0.1), (1, 0.5)]:
        matrix = low_resolution_matrix(n, zoom)
        assert matrix.sum(axis=1) == pytest.approx(1)
    np.testing.assert_array_equal(low_resolution_matrix(9, 1.0), np.eye(9))
    ramp = low_resolution_matrix(20, 0.5) @ np.arange(20.0)
    assert np.abs(np.diff(ramp)[1:-2] - 1).max() < 1e-9
    # nothing moves against the label: a ramp stays where it is, but for its ends
    for n, zoom in [(20, 0.5), (20, 0.25), (64, 0.75), (33, 0.6)]:
        found, inner = low_resolution_matrix(n, zoom) @ np.arange(n), slice(int(1 / zoom), -int(1 / zoom))
        np.testing.assert_allclose(found[inner], np.arange(n)[inner])
    # half the voxels: a pattern that changes from voxel to voxel is gone
    assert np.ptp(low_resolution_matrix(20, 0.5) @ (np.arange(20) % 2)) == 0


def test_brightness_multiplies_each_channel_by_its_factor():
    image, label, info = batch("3-D")
    factor = np.array([[1.2, 1.0], [0.8, 1.1]])
    found, _ = BRIGHTNESS.apply(image, label, {"factor": factor}, info)
    torch.testing.assert_close(found, image * torch.tensor(factor, dtype=torch.float32)[..., None, None, None])


def test_contrast_keeps_the_mean_within_the_old_range():
    image, label, info = batch("3-D")
    found, _ = CONTRAST.apply(image, label, {"factor": np.full((2, 2), 0.8)}, info)
    torch.testing.assert_close(found.mean(dim=(2, 3, 4)), image.mean(dim=(2, 3, 4)), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(dim=(2, 3, 4)), 0.8 * image.std(dim=(2, 3, 4)))
    wider, _ = CONTRAST.apply(image, label, {"factor": np.full((2, 2), 1.25)}, info)
    assert wider.amax() <= image.amax() and wider.amin() >= image.amin()


@pytest.mark.parametrize("inverted", [0.0, 1.0])
def test_gamma_bends_but_keeps_mean_deviation_and_order(inverted):
    image, label, info = batch("3-D")
    parameters = {"exponent": np.full((2, 2), 1.4), "inverted": np.full(2, inverted)}
    found, _ = GAMMA.apply(image, label, parameters, info)
    torch.testing.assert_close(found.mean(dim=(2, 3, 4)), image.mean(dim=(2, 3, 4)), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.std(dim=(2, 3, 4)), image.std(dim=(2, 3, 4)), atol=1e-4, rtol=1e-4)
    order = image[0, 0].ravel().argsort()
    assert (found[0, 0].ravel()[order].diff() >= -1e-6).all()
    # a power above 1 pulls out the bright end, its inverted form the dark end
    skew = ((found[0, 0] - found[0, 0].mean()) ** 3).mean() - ((image[0, 0] - image[0, 0].mean()) ** 3).mean()
    assert skew * (1 - 2 * inverted) > 0


def test_gamma_of_a_constant_image_stays_finite():
    info = BatchInfo(1, 1, (4, 4, 4), (1.0, 1.0, 1.0))
    parameters = {"exponent": np.full((1, 1), 0.7), "inverted": np.zeros(1)}
    found, _ = GAMMA.apply(torch.full((1, 1, 4, 4, 4), 3.0), torch.zeros((1, 4, 4, 4)), parameters, info)
    torch.testing.assert_close(found, torch.full_like(found, 3.0))


def test_noise_has_the_deviation_that_was_drawn():
    info = BatchInfo(2, 1, (30, 30, 30), (1.0, 1.0, 1.0))
    image = torch.zeros((2, 1, 30, 30, 30))
    parameters = {"sd": np.array([[0.1], [0.0]]), "seed": np.array([7.0, 7.0])}
    found, _ = NOISE.apply(image, torch.zeros((2, 30, 30, 30)), parameters, info)
    assert found[0].std().item() == pytest.approx(0.1, rel=0.03)
    assert abs(found[0].mean().item()) < 0.003
    assert torch.equal(found[1], image[1])


def test_frequencies_and_ranges_are_those_of_the_config():
    info = BatchInfo(4000, 1, (4, 4, 4), (1.0, 1.0, 1.0))
    config = AugmentConfig()
    generator = np.random.default_rng(0)
    affine = AFFINE.sample(config, generator, info)
    turned = affine["degrees"].any(axis=1)
    assert turned.mean() == pytest.approx(0.2, abs=0.03)
    assert np.abs(affine["degrees"]).max(axis=0) == pytest.approx([15, 15, 30], rel=0.02)
    zoomed = affine["zoom"] != 1
    assert zoomed.mean() == pytest.approx(0.2, abs=0.03)
    assert (affine["zoom"].min(), affine["zoom"].max()) == (
        pytest.approx(0.7, abs=0.01),
        pytest.approx(1.4, abs=0.01),
    )
    assert np.median(affine["zoom"][zoomed]) == pytest.approx(np.sqrt(0.7 * 1.4), abs=0.03)
    assert FLIP.sample(config, generator, info)["flip"].mean(axis=0) == pytest.approx([0.5] * 3, abs=0.03)
    assert (BLUR.sample(config, generator, info)["sigma"] > 0).mean() == pytest.approx(0.1, abs=0.02)
    assert (LOW_RESOLUTION.sample(config, generator, info)["zoom"] < 1).mean() == pytest.approx(0.125, abs=0.02)
    gamma = GAMMA.sample(config, generator, info)
    assert (gamma["exponent"] != 1).mean() == pytest.approx(0.3, abs=0.03)
    assert gamma["inverted"].mean() == pytest.approx(0.25, abs=0.03)


def test_the_whole_chain_keeps_empty_surroundings_empty_and_labels_on_their_tissue():
    # the image says where the label is: after any chain of moves it must still do so
    label = torch.zeros((2, 24, 24, 12), dtype=torch.uint8)
    label[:, 8:16, 6:18, 3:9] = 1
    body = torch.zeros((2, 1, 24, 24, 12))
    body[:, :, 4:20, 4:20, 2:10] = 1
    image = body + 2 * label[:, None]
    augmentation = Augmentation(ALWAYS)
    for seed in range(5):
        found, mask = augmentation(image, label, np.random.default_rng(seed), spacing_mm=(1.0, 1.0, 2.0))
        assert (found == 0).float().mean() > 0.1
        inside, outside = found[:, 0][mask == 1], found[:, 0][mask == 0]
        assert inside.mean() > outside.mean() + 1
    free = Augmentation(ALWAYS.model_copy(update={"keep_background": False}))
    found, _ = free(image, label, np.random.default_rng(0), spacing_mm=(1.0, 1.0, 2.0))
    assert (found == 0).float().mean() < 0.01


def test_the_whole_chain_repeats_with_the_generator():
    image, label, info = batch("3-D")
    results = [Augmentation(ALWAYS)(image, label, np.random.default_rng(9), spacing_mm=info.spacing_mm) for _ in "ab"]
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    other = Augmentation(ALWAYS)(image, label, np.random.default_rng(10), spacing_mm=info.spacing_mm)
    assert not torch.equal(results[0][0], other[0])


def test_a_blur_does_not_mix_thick_slices():
    image = torch.zeros(1, 1, 9, 9, 5)
    image[0, 0, 4, 4, 2] = 1.0
    for spacing, slices in (((1.0, 1.0, 5.0), 1), ((1.0, 1.0, 2.0), 5)):
        info = BatchInfo(1, 1, (9, 9, 5), spacing)
        found, _ = BLUR.apply(image, torch.zeros(1, 9, 9, 5), {"sigma": np.ones((1, 1))}, info)
        assert int((found[0, 0].abs() > 1e-9).any(dim=0).any(dim=0).sum()) == slices
