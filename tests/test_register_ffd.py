"""Free-form registration: one contract for all methods, exact gradients, known deformations found, folds refused."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from neoseg.errors import ConfigError, InputError
from neoseg.register.configs import FfdConfig
from neoseg.register.ffd import METHODS, FfdRegistration, register_ffd
from neoseg.register.ffd_lbfgs import Cost
from neoseg.register.ffd_level import Level
from neoseg.register.ffd_similarity import GlobalCorrelation, LocalCorrelation, window_matrix
from neoseg.register.ffd_torch import TorchCost
from neoseg.register.transforms import Affine, Chain, Ffd, grid_points, resample
from neoseg.volume import Grid, Volume

SMALL = {"grid_mm": (30.0,), "image_mm": (5.0,), "iterations": 20, "sampling": 1.0}
OWN = ("lbfgs", "torch")


def ball(seed: int = 0) -> Volume:
    """A ball of 36 mm radius with smooth structure inside, 0 outside, on an oblique grid of 3 x 3 x 4 mm."""
    affine = np.eye(4)
    turn = np.linalg.qr(np.array([[1, 0.1, -0.05], [-0.1, 1, 0.08], [0.05, -0.08, 1.0]]))[0]
    affine[:3, :3] = turn * np.sign(np.diag(turn)) @ np.diag([3.0, 3.0, 4.0])
    shape = (30, 30, 24)
    affine[:3, 3] = -affine[:3, :3] @ [14.5, 14.5, 11.5]
    grid = Grid(shape, affine)
    structure = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.6)
    radius = np.linalg.norm(grid_points(grid), axis=1).reshape(shape)
    image = np.where(radius < 36, 1000 + 250 * structure / structure.std(), 0)
    return Volume(np.maximum(image, 0)[None].astype(np.float32), grid)


def known() -> Chain:
    """A deformation of some mm, then a shift."""
    coefficients = np.random.default_rng(3).normal(0, 3.0, (3, 7, 7, 7))
    shift = np.eye(4)
    shift[:3, 3] = [4.0, -3.0, 2.0]
    return Chain([Ffd([-66] * 3, [22] * 3, coefficients), Affine(shift)])


@pytest.fixture(scope="module")
def pair() -> tuple[Volume, Volume, Chain]:
    """Fixed image, moving image and the truth, fixed world to moving world."""
    moving = ball()
    return resample(moving, moving.grid, known(), order=1), moving, known()


def mean_error_mm(fixed: Volume, found: object, truth: object) -> float:
    brain = fixed.grid.to_world(np.argwhere(fixed.array[0] > 0))
    gap = found.points(brain) - truth.points(brain)  # type: ignore[attr-defined]
    return float(np.linalg.norm(gap, axis=1).mean())


def test_the_config_names_exactly_the_methods_there_are() -> None:
    assert set(get_args(FfdConfig.model_fields["method"].annotation)) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_meets_the_contract(pair: tuple[Volume, Volume, Chain], method: str) -> None:
    fixed, moving, truth = pair
    start = truth.transforms[-1]
    config = FfdConfig.model_validate({**SMALL, "method": method, "bending": 5.0})
    found = register_ffd(fixed, moving, start, config=config)
    assert found.accepted and found.warning is None and found.method == method
    assert isinstance(found.transform, Chain)
    ffd = found.transform.transforms[0]
    assert isinstance(ffd, Ffd)
    assert found.ncc_after > found.ncc_before + 0.01
    assert mean_error_mm(fixed, found.transform, truth) < 0.6 * mean_error_mm(fixed, start, truth)
    assert found.smallest_jacobian == ffd.smallest_determinant() > 0.1
    assert found.bending == (5.0 if method in OWN else 0.0)
    other = register_ffd(fixed, moving, start, config=config.model_copy(update={"method": "lbfgs"}))
    lattice = other.transform.transforms[0]  # type: ignore[attr-defined]
    assert np.array_equal(lattice.origin, ffd.origin)
    assert lattice.coefficients.shape == ffd.coefficients.shape
    again = register_ffd(fixed, moving, start, config=config).transform.transforms[0]  # type: ignore[attr-defined]
    assert np.array_equal(again.coefficients, ffd.coefficients)
    brain = fixed.grid.to_world(np.argwhere(fixed.array[0] > 0)[::7])
    back = found.transform.inverse().points(found.transform.points(brain))
    assert np.abs(back - brain).max() < 0.1 * min(fixed.spacing)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_falls_back_to_the_start_with_words(pair: tuple[Volume, Volume, Chain], method: str) -> None:
    fixed, moving, truth = pair
    config = FfdConfig.model_validate(
        {**SMALL, "method": method, "bending": 0.0, "stiffer": 1, "smallest_jacobian": 0.99, "iterations": 8}
    )
    found = register_ffd(fixed, moving, truth.transforms[-1], config=config)
    assert found.transform is truth.transforms[-1]
    assert not found.accepted
    assert found.warning is not None and "Jacobian" in found.warning
    assert found.ncc_after == found.ncc_before


@pytest.mark.parametrize("similarity", ["global", "local"])
@pytest.mark.parametrize("method", OWN)
def test_a_known_deformation_is_found(pair: tuple[Volume, Volume, Chain], method: str, similarity: str) -> None:
    fixed, moving, truth = pair
    config = FfdConfig.model_validate({**SMALL, "method": method, "similarity": similarity, "bending": 5.0})
    found = register_ffd(fixed, moving, truth.transforms[-1], config=config)
    assert found.ncc_after > 0.97
    assert mean_error_mm(fixed, found.transform, truth) < 0.9


def some_level(pair: tuple[Volume, Volume, Chain]) -> Level:
    fixed, moving, truth = pair
    return Level(fixed, moving, truth.transforms[-1], inside=fixed.array[0] > 0, sizes=(20.0, 5.0), config=FfdConfig())


@pytest.mark.parametrize("similarity", ["global", "local"])
def test_the_gradient_is_exact(pair: tuple[Volume, Volume, Chain], similarity: str) -> None:
    level = some_level(pair)
    cost = Cost(level, FfdConfig.model_validate({"similarity": similarity}), 40.0)
    rng = np.random.default_rng(0)
    at = rng.normal(0, 1.5, 3 * int(level.counts.prod()))
    gradient = cost(at)[1]
    for _ in range(3):
        direction = rng.normal(size=at.shape)
        numeric = (cost(at + 1e-5 * direction)[0] - cost(at - 1e-5 * direction)[0]) / 2e-5
        assert gradient @ direction == pytest.approx(numeric, rel=2e-4)


@pytest.mark.parametrize("kind", ["global", "local"])
def test_the_gradient_by_the_values_is_exact(pair: tuple[Volume, Volume, Chain], kind: str) -> None:
    level = some_level(pair)
    inside = level.fixed.ravel()[level.samples]
    measure = GlobalCorrelation(inside) if kind == "global" else LocalCorrelation(level, 3)
    rng = np.random.default_rng(1)
    values = inside + rng.normal(0, 200, inside.shape)
    gradient = measure(values)[1]
    for _ in range(3):
        direction = rng.normal(size=values.shape)
        numeric = (measure(values + 1e-3 * direction)[0] - measure(values - 1e-3 * direction)[0]) / 2e-3
        assert gradient @ direction == pytest.approx(numeric, rel=1e-5)


def windows_one_by_one(level: Level, values: NDArray[np.float64], reach: int) -> float:
    """Local correlation as its definition reads."""
    fixed, moving = np.full(level.grid.shape, np.nan), np.full(level.grid.shape, np.nan)
    scaled = []
    for image, given, own in ((fixed, level.fixed.ravel()[level.samples], level.fixed), (moving, values, level.moving)):
        sd = own.ravel()[level.samples].std()
        image.ravel()[level.samples] = given / sd
        scaled.append(image)
    total = []
    for place in np.argwhere(level.mask):
        box = tuple(slice(max(0, p - reach), p + reach + 1) for p in place)
        f, m = (image[box][np.isfinite(image[box])] for image in scaled)
        total.append(np.mean((f - f.mean()) * (m - m.mean())) / np.sqrt((f.var() + 0.03) * (m.var() + 0.03)))
    return float(np.mean(total))


def test_local_correlation_equals_its_definition(pair: tuple[Volume, Volume, Chain]) -> None:
    level = some_level(pair)
    values = level.moving.ravel()[level.samples]
    found = LocalCorrelation(level, 3)(values)[0]
    assert found == pytest.approx(windows_one_by_one(level, values, reach=1), abs=1e-9)


def test_windows_end_at_the_border() -> None:
    assert window_matrix(9, 5).sum(axis=1).tolist() == [3, 4, 5, 5, 5, 5, 5, 4, 3]
    assert window_matrix(5, 3).sum(axis=1).tolist() == [2, 3, 3, 3, 2]


def test_local_correlation_does_not_see_a_slow_gain(pair: tuple[Volume, Volume, Chain]) -> None:
    level = some_level(pair)
    inside = level.fixed.ravel()[level.samples]
    gain = 1 + 0.001 * level.axes[0][level.index[:, 0].astype(int)]
    measure = LocalCorrelation(level, 3)
    assert measure(inside)[0] > 0.85
    assert measure(inside * gain)[0] == pytest.approx(measure(inside)[0], abs=0.005)
    assert measure(3 * inside + 500)[0] > measure(inside)[0]


@pytest.mark.parametrize("similarity", ["global", "local"])
def test_torch_computes_the_same_cost_and_gradient(pair: tuple[Volume, Volume, Chain], similarity: str) -> None:
    level = some_level(pair)
    config = FfdConfig.model_validate({"similarity": similarity})
    at = np.random.default_rng(0).normal(0, 1.5, 3 * int(level.counts.prod()))
    ours, gradient = Cost(level, config, 40.0)(at)
    theirs, slope = TorchCost(level, config, 40.0, device=torch.device("cpu"))(at)
    assert theirs == pytest.approx(ours, rel=1e-4)
    assert np.abs(slope - gradient).max() < 2e-3 * np.abs(gradient).max()


def test_the_bending_energy_of_a_parabola_is_that_of_the_formula(pair: tuple[Volume, Volume, Chain]) -> None:
    level = some_level(pair)
    x, y, _ = (level.origin[i] + level.spacing[i] * np.arange(n) for i, n in enumerate(level.counts))
    field = np.broadcast_to((0.01 * x**2)[:, None, None] + 0.02 * np.outer(x, y)[:, :, None], level.counts)
    coefficients = np.stack([field, np.zeros_like(field), np.zeros_like(field)])
    # u_x has second derivatives xx: 0.02, xy: 0.02 and no others
    assert level.bending(coefficients)[0] == pytest.approx(0.02**2 + 2 * 0.02**2)


def test_a_finer_lattice_takes_over_what_the_coarse_one_found(pair: tuple[Volume, Volume, Chain]) -> None:
    fixed, moving, truth = pair
    fine = Level(fixed, moving, truth.transforms[-1], inside=fixed.array[0] > 0, sizes=(10.0, 5.0), config=FfdConfig())
    coarse = some_level(pair)
    rng = np.random.default_rng(0)
    ffd = coarse.ffd(rng.normal(0, 2, (3, *coarse.counts)))
    taken = fine.ffd(fine.coefficients(ffd))
    assert np.abs(taken.along(fine.axes) - ffd.along(fine.axes)).max() < 0.1


def test_a_fold_is_found_wherever_it_lies() -> None:
    coefficients = np.zeros((3, 6, 6, 6))
    coefficients[0, 0] = -40.0  # the displacement fades beyond the lattice faster than the points move apart
    ffd = Ffd([0, 0, 0], [10, 10, 10], coefficients)
    assert ffd.smallest_determinant() < 0
    assert Ffd([0] * 3, [10] * 3, np.zeros((3, 4, 4, 4))).smallest_determinant() == 1.0
    dense = [np.linspace(-20, 70, 91)] * 3
    smooth = Ffd([0] * 3, [10] * 3, np.random.default_rng(0).normal(0, 1.5, (3, 6, 6, 6)))
    assert smooth.smallest_determinant() == pytest.approx(smooth.determinants_along(dense).min(), abs=0.01)


def test_a_device_that_is_not_there_has_words(pair: tuple[Volume, Volume, Chain]) -> None:
    fixed, moving, truth = pair
    with pytest.raises(ConfigError, match="'warp'"):
        register_ffd(fixed, moving, truth, config=FfdConfig.model_validate({"method": "torch", "device": "warp"}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"grid_mm": (20.0,), "image_mm": (4.0, 2.0)}, "as many levels"),
        ({"window_voxels": 4}, "odd"),
        ({"method": "lbfgs", "device": "cuda"}, "needs 'torch'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FfdConfig.model_validate(fields)


def test_a_mask_too_thin_for_the_level_has_words(pair: tuple[Volume, Volume, Chain]) -> None:
    _, moving, truth = pair
    image = resample(moving, Grid((31, 31, 31), np.eye(4)), truth)
    mask = np.zeros((31, 31, 31), dtype=bool)
    mask[[6, 24]] = True  # two sheets, between the points of the coarse grid
    with pytest.raises(InputError, match="too thin"):
        register_ffd(image, moving, truth, config=FfdConfig(), fixed_mask=mask)


def test_an_image_against_itself_stays_nearly_where_it_is(pair: tuple[Volume, Volume, Chain]) -> None:
    moving = pair[1]
    found = register_ffd(moving, moving, Affine.identity(), config=FfdConfig(image_mm=(6.0, 4.0)))
    assert found.accepted
    assert found.ncc_after > 0.999
    assert mean_error_mm(moving, found.transform, Affine.identity()) < 0.15


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use")
def test_a_gpu_finds_what_the_cpu_finds(pair: tuple[Volume, Volume, Chain]) -> None:
    fixed, moving, truth = pair
    found = [
        register_ffd(
            fixed,
            moving,
            truth.transforms[-1],
            config=FfdConfig.model_validate({**SMALL, "method": "torch", "device": device, "bending": 5.0}),
        )
        for device in ("cpu", "cuda", "cuda")
    ]
    assert found[0].ncc_after == pytest.approx(found[1].ncc_after, abs=2e-3)
    brain = fixed.grid.to_world(np.argwhere(fixed.array[0] > 0))
    assert np.array_equal(found[1].transform.points(brain), found[2].transform.points(brain))


def cut(volume: Volume, first: int, last: int) -> Volume:
    """The slices from ``first`` to before ``last``."""
    grid = volume.grid.cropped((0, 0, first), (*volume.grid.shape[:2], last - first))
    return Volume(np.ascontiguousarray(volume.array[..., first:last]), grid)


def displacement_mm(volume: Volume, found: FfdRegistration) -> float:
    """Mean over the head's two slices at the face of the cut ball, where it is nearly at its widest."""
    index = np.argwhere(volume.array[0] > 0)
    near = volume.grid.to_world(index[(index[:, 2] >= CUT) & (index[:, 2] < CUT + 2)])
    return float(np.linalg.norm(found.transform.points(near) - near, axis=1).mean())


CUT = 10
"""The ball of 24 slices loses those below."""


@pytest.mark.parametrize("similarity", ["global", "local"])
@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_a_face_that_cuts_the_head_does_not_pull(side: str, similarity: str) -> None:
    whole = ball()
    part = cut(whole, CUT, whole.grid.shape[2])
    config = FfdConfig.model_validate({"image_mm": (6.0, 4.0), "similarity": similarity})
    uncut = register_ffd(whole, whole, Affine.identity(), config=config)
    fixed, moving = (part, whole) if side == "fixed" else (whole, part)
    found = register_ffd(fixed, moving, Affine.identity(), config=config)
    assert found.accepted
    # read as background, what lies behind the face pulls by 1.6 to 6 mm
    assert displacement_mm(whole, found) < displacement_mm(whole, uncut) + 0.5


@pytest.mark.parametrize("cut_off", [False, True])
def test_only_what_lies_behind_a_face_through_the_head_is_left_out(
    pair: tuple[Volume, Volume, Chain], monkeypatch: pytest.MonkeyPatch, cut_off: bool
) -> None:
    fixed, moving, truth = pair
    fixed = cut(fixed, CUT, fixed.grid.shape[2]) if cut_off else fixed
    config = FfdConfig.model_validate({**SMALL, "bending": 5.0, "mask_margin_mm": 6.0})
    now = register_ffd(fixed, moving, truth.transforms[-1], config=config).transform
    monkeypatch.setattr("neoseg.register.ffd_level.known", lambda _, __, grid, *___: np.ones(grid.shape, bool))
    before = register_ffd(fixed, moving, truth.transforms[-1], config=config).transform
    same = np.array_equal(now.transforms[0].coefficients, before.transforms[0].coefficients)  # type: ignore[attr-defined]
    assert same != cut_off


def test_heads_that_the_start_lays_apart_have_words(pair: tuple[Volume, Volume, Chain]) -> None:
    fixed, moving = pair[1], cut(pair[1], 8, 14)
    middle = (np.linalg.norm(grid_points(fixed.grid), axis=1) < 15).reshape(fixed.grid.shape)
    away = np.eye(4)
    away[:3, 3] = moving.grid.directions[:, 2] * 200
    config = FfdConfig.model_validate(SMALL)
    with pytest.raises(InputError, match="give one under which the heads overlap"):
        register_ffd(fixed, moving, Affine(away), config=config, fixed_mask=middle)
