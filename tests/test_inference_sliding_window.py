from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from neoseg.data.patches import cut
from neoseg.errors import ConfigError, GeometryError, InputError, StateError
from neoseg.inference import sliding_window
from neoseg.inference.configs import WindowConfig
from neoseg.inference.ensemble import Ensemble, mean_of
from neoseg.inference.memory import MemoryUse
from neoseg.inference.precision import resolve_precision
from neoseg.inference.scratch import Scratch
from neoseg.inference.sliding_window import (
    Unrefused,
    answer_of,
    gaussian_weights,
    predict_probabilities,
    window_grid,
    window_starts,
    windowed_planes,
)
from neoseg.networks.build import build_network
from neoseg.networks.configs import UNetConfig, UnetrPPConfig
from neoseg.targets import Targets
from neoseg.training.data import TrainingCase, TrainingData
from neoseg.training.validation import validate

FLOAT32 = WindowConfig(precision="float32")
TWO, THREE = Targets.of_classes(2), Targets.of_classes(3)
ANY_SIZE = UnetrPPConfig(
    dims=(8, 8, 8), depths=(1, 1, 1), proj=(4, 4, 4), decoder_proj=4, feature_size=8, stem=(2, 2, 1), size="free"
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Tiny(nn.Module):
    def __init__(self, dimensions: int = 3, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = conv(2, 4, 3, padding=1)
            self.last = conv(4, classes, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.last(torch.relu(self.first(x))),)


def image_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (2, *shape)).astype(np.float32)


@given(
    st.integers(1, 200),
    st.integers(2, 64),
    st.sampled_from([0.0, 0.25, 0.5, 0.75]),
)
@settings(max_examples=100, deadline=None)
def test_windows_cover_the_axis_evenly_with_the_overlap(n, p, overlap):
    starts = window_starts([n], [p], overlap)[0]
    assert starts[0] == 0
    if n <= p:
        assert starts == [0]
        return
    assert starts[-1] == n - p
    strides = np.diff(starts)
    limit = max(1, int(p * (1 - overlap)))
    assert strides.max() <= limit and np.ptp(strides) <= 1
    # one window fewer would be too far apart
    assert (n - p) / max(1, len(starts) - 2) > limit or len(starts) == 2


def test_weights_are_a_gaussian_of_an_eighth_of_the_patch():
    weights = gaussian_weights((16, 9)).numpy()
    assert weights.min() > 0
    assert weights[8, 4] / weights[8, 4 + 2] == pytest.approx(np.exp(0.5 * (2 / (9 / 8)) ** 2), rel=1e-5)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=1e-6)
    assert gaussian_weights((400,)).min() > 0


@pytest.mark.parametrize(("shape", "patch"), [((17, 13, 11), (8, 8, 6)), ((20, 5, 9), (8, 8, 8)), ((19, 14), (8, 8))])
@pytest.mark.parametrize("batch", [1, 3])
def test_it_equals_a_naive_sum_over_windows(shape, patch, batch):
    network, image = Tiny(len(shape)).eval(), image_of(*shape)
    config = WindowConfig(precision="float32", batch=batch)
    found = predict_probabilities(network, image, patch=patch, targets=THREE, config=config, fill=0.5)

    pads = [max(0, p - n) for n, p in zip(shape, patch, strict=True)]
    before = [(n + 1) // 2 for n in pads]
    padded = np.pad(image, [(0, 0)] + [(b, n - b) for b, n in zip(before, pads, strict=True)], constant_values=0.5)
    grid = window_starts(padded.shape[1:], patch, 0.5)
    total, norm = np.zeros((3, *padded.shape[1:])), np.zeros(padded.shape[1:])
    for index in np.ndindex(*map(len, grid)):
        place = tuple(slice(grid[a][i], grid[a][i] + patch[a]) for a, i in enumerate(index))
        with torch.no_grad():
            part = torch.softmax(network(torch.from_numpy(padded[(slice(None), *place)])[None])[0][0], 0).numpy()
        offsets = np.meshgrid(*[np.arange(p) - (p - 1) / 2 for p in patch], indexing="ij")
        weight = np.exp(-0.5 * sum((o / (p / 8)) ** 2 for o, p in zip(offsets, patch, strict=True)))
        total[(slice(None), *place)] += part * weight
        norm[place] += weight
    inner = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
    np.testing.assert_allclose(found.numpy(), (total / norm)[(slice(None), *inner)], atol=2e-6)
    assert found.shape == (3, *shape) and found.dtype == torch.float32
    np.testing.assert_allclose(found.sum(dim=0).numpy(), 1, atol=1e-5)


def test_a_constant_network_gives_a_constant_result():
    def constant(batch):
        return (torch.tensor([0.0, 1.0, -2.0]).reshape(1, 3, 1, 1, 1).expand(len(batch), 3, *batch.shape[2:]),)

    found = predict_probabilities(constant, image_of(30, 21, 10), patch=(12, 12, 8), targets=THREE, config=FLOAT32)
    wanted = torch.softmax(torch.tensor([0.0, 1.0, -2.0]), 0).reshape(3, 1, 1, 1).expand_as(found)
    torch.testing.assert_close(found, wanted)


def test_it_equals_monai_in_the_interior():
    from monai.inferers import sliding_window_inference

    # sizes at which both libraries place the same windows
    network, image = Tiny().eval(), image_of(40, 16, 8)
    found = predict_probabilities(network, image, patch=(16, 16, 8), targets=THREE, config=FLOAT32)
    with torch.no_grad():
        wanted = sliding_window_inference(
            torch.from_numpy(image)[None],
            (16, 16, 8),
            2,
            lambda x: torch.softmax(network(x)[0], 1),
            overlap=0.5,
            mode="gaussian",
            sigma_scale=0.125,
        )[0]
    # MONAI lifts all weights to 0.001, so away from the windows' middle line its mean is a little flatter
    middle = (slice(None), slice(None), slice(6, 10), slice(3, 5))
    torch.testing.assert_close(found[middle], wanted[middle], atol=5e-4, rtol=0)


def test_a_volume_inside_the_patch_is_one_pass_and_equals_the_network():
    calls = []
    network, image = Tiny().eval(), image_of(8, 8, 6)

    def counted(batch):
        calls.append(tuple(batch.shape))
        return network(batch)

    found = predict_probabilities(counted, image, patch=(8, 8, 6), targets=THREE, config=FLOAT32)
    with torch.no_grad():
        torch.testing.assert_close(found, torch.softmax(network(torch.from_numpy(image)[None])[0][0], 0))
    predict_probabilities(counted, image[:, :5, :, :3], patch=(8, 8, 6), targets=THREE, config=FLOAT32)
    assert calls == [(1, 2, 8, 8, 6)] * 2


def test_mirroring_averages_over_every_combination_of_axes():
    network, image = Tiny().eval(), image_of(8, 8, 6)
    config = WindowConfig(precision="float32", mirror_axes=(0, 2))
    found = predict_probabilities(network, image, patch=(8, 8, 6), targets=THREE, config=config)
    with torch.no_grad():
        x = torch.from_numpy(image)[None]
        parts = [torch.softmax(network(x.flip(a))[0], 1).flip(a) for a in ([], [2], [4], [2, 4])]
    torch.testing.assert_close(found, torch.stack(parts).mean(dim=0)[0])
    flipped = predict_probabilities(network, image[:, ::-1], patch=(8, 8, 6), targets=THREE, config=config)
    torch.testing.assert_close(flipped.flip(1), found)


def test_an_ensemble_is_the_mean_of_probabilities():
    networks = [Tiny(seed=i).eval() for i in range(3)]
    image = image_of(14, 10, 9)
    each = [predict_probabilities(n, image, patch=(8, 8, 8), targets=THREE, config=FLOAT32) for n in networks]
    found = predict_probabilities(mean_of(networks, THREE), image, patch=(8, 8, 8), targets=THREE, config=FLOAT32)
    torch.testing.assert_close(found, torch.stack(each).mean(dim=0))
    assert mean_of(networks[:1], THREE) is networks[0]
    with pytest.raises(ConfigError, match="at least one network"):
        mean_of([], THREE)


def test_a_read_only_memory_map_and_a_tensor_give_the_same(tmp_path):
    network, image = Tiny().eval(), image_of(14, 10, 9)
    np.save(tmp_path / "image.npy", image)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    found = [
        predict_probabilities(network, x, patch=(8, 8, 8), targets=THREE, config=FLOAT32)
        for x in (mapped, torch.from_numpy(image))
    ]
    assert torch.equal(*found)
    assert not found[0].is_inference()


def test_bfloat16_stays_near_float32():
    network, image = Tiny().eval(), image_of(14, 10, 9)
    found = [
        predict_probabilities(network, image, patch=(8, 8, 8), targets=THREE, config=WindowConfig(precision=p))
        for p in ("float32", "bfloat16")
    ]
    assert found[1].dtype == torch.float32
    assert 0 < (found[0] - found[1]).abs().max() < 0.02


def test_precision_is_taken_as_asked():
    cpu = torch.device("cpu")
    assert resolve_precision("float32", cpu) == torch.float32
    assert resolve_precision("bfloat16", cpu) == torch.bfloat16
    assert resolve_precision("auto", cpu) in (torch.float32, torch.bfloat16)


def test_windows_without_content_are_not_computed_and_change_nothing_where_there_is_some():
    image = np.zeros((2, 40, 24, 12), dtype=np.float32)
    image[:, 14:22, 9:15, 2:9] = image_of(8, 6, 7)
    network, sizes = Tiny().eval(), []

    def counted(batch):
        sizes.append(len(batch))
        return network(batch)

    found = {}
    for skip in (True, False):
        sizes.clear()
        config = WindowConfig(precision="float32", skip_background=skip, batch=3)
        found[skip] = predict_probabilities(counted, image, patch=(8, 8, 8), targets=THREE, config=config)
        found[f"{skip} windows"] = sum(sizes)
    grid = window_grid((40, 24, 12), (8, 8, 8), 0.5)
    wanted = sum(bool(image[:, a : a + 8, b : b + 8, c : c + 8].any()) for a, b, c in grid)
    assert (found["False windows"], found["True windows"]) == (len(grid), wanted)
    assert 0 < wanted < len(grid) / 2
    content = (image != 0).any(axis=0)
    np.testing.assert_allclose(found[True].numpy()[:, content], found[False].numpy()[:, content], rtol=0, atol=1e-6)
    far = found[True][:, 30:]
    assert (far[0] == 1).all() and not far[1:].any()
    assert not torch.equal(found[False][:, 30:], far)
    torch.testing.assert_close(found[True].sum(dim=0), torch.ones(40, 24, 12))


def test_planes_between_two_far_contents_come_in_parts_no_thicker_than_a_window():
    image = np.zeros((1, 90, 9, 8), dtype=np.float32)
    image[:, 3:7] = image[:, 80:83] = 1.0

    def answer(batch):
        return torch.full((len(batch), 2, *batch.shape[2:]), 0.5)

    parts = list(windowed_planes(answer, image, patch=(8, 8, 8), outside=(1.0, 0.0), config=FLOAT32))
    assert max(planes.shape[1] for _, planes in parts) == 8
    assert [start for start, _ in parts] == list(np.cumsum([0, *(planes.shape[1] for _, planes in parts[:-1])]))
    found = torch.cat([planes for _, planes in parts], dim=1)
    assert found.shape == (2, 90, 9, 8)
    assert (found[:, 3:7] == 0.5).all() and (found[0, 20:70] == 1).all() and not found[1, 20:70].any()


def test_the_ripples_of_a_resampled_image_are_no_content_and_an_empty_image_is_background():
    image = np.full((1, 30, 8, 8), 1e-9, dtype=np.float32)
    image[:, :6] = 1.0
    sizes = []

    def counted(batch):
        sizes.append(len(batch))
        return (torch.zeros(len(batch), 2, *batch.shape[2:]),)

    found = predict_probabilities(counted, image, patch=(8, 8, 8), targets=TWO, config=FLOAT32)
    assert sum(sizes) == 2
    assert (found[1, :12] == 0.5).all() and not found[1, 12:].any()
    sizes.clear()
    empty = predict_probabilities(counted, np.zeros_like(image), patch=(8, 8, 8), targets=TWO, config=FLOAT32)
    assert not sizes and (empty[0] == 1).all() and not empty[1].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0), (5, 5, 5)])
@pytest.mark.parametrize("skips", [True, False])
def test_an_image_that_is_not_finite_is_refused_wherever_it_is_not(value, place, skips):
    image = np.ones((1, 8, 8, 8), dtype=np.float32)
    image[(0, *place)] = value
    config = FLOAT32.model_copy(update={"skip_background": skips})
    with pytest.raises(InputError, match="NaN or infinite voxels"):
        predict_probabilities(lambda x: (x.new_zeros(len(x), 2, 4, 4, 4),), image, patch=(4, 4, 4), targets=TWO,
                              config=config)  # fmt: skip


@pytest.mark.parametrize("kind", [np.int8, np.int16])
def test_the_least_integer_is_content(kind):
    image = np.zeros((1, 8, 8, 8), dtype=kind)
    image[:, :4] = np.iinfo(kind).min
    asked = []

    def counted(batch):
        asked.append(len(batch))
        return (batch.new_zeros(len(batch), 2, *batch.shape[2:]),)

    predict_probabilities(counted, image, patch=(4, 4, 4), targets=TWO, config=FLOAT32)
    assert sum(asked) > 0


@pytest.mark.parametrize("patch", [(4, 4), (4, 4, 0), (-4, 4, 4), (4, 4, 2.5)])
def test_a_patch_has_a_whole_number_of_voxels_an_axis(patch):
    with pytest.raises(GeometryError, match="one whole number of voxels for each axis"):
        predict_probabilities(lambda x: (x,), np.ones((1, 8, 8, 8), np.float32), patch=patch, targets=TWO)


def test_the_black_of_a_picture_is_computed_and_that_around_a_head_is_not():
    def answer(batch):
        return (torch.stack([torch.zeros_like(batch[:, 0]), torch.full_like(batch[:, 0], 3.0)], dim=1),)

    picture, volume = np.zeros((1, 40, 24), np.float32), np.zeros((1, 40, 24, 8), np.float32)
    picture[:, :8, :8] = volume[:, :8, :8] = 1
    found = predict_probabilities(answer, picture, patch=(8, 8), targets=TWO, config=FLOAT32)
    assert (found[1] > 0.9).all()
    assert (predict_probabilities(answer, 0 * picture, patch=(8, 8), targets=TWO, config=FLOAT32)[1] > 0.9).all()
    found = predict_probabilities(answer, volume, patch=(8, 8, 8), targets=TWO, config=FLOAT32)
    assert (found[1, :8, :8] > 0.9).all() and not found[1, 16:].any()


def test_a_lone_bright_voxel_does_not_make_the_rest_of_an_image_background():
    image = image_of(24, 8, 8)
    image[:, 2, 2, 2] = 1e4
    config = WindowConfig(precision="float32", skip_background=False)
    found = [
        predict_probabilities(Tiny().eval(), image, patch=(8, 8, 8), targets=THREE, config=c) for c in (FLOAT32, config)
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("shape", [(21, 10, 9), (5, 10, 9)])
def test_logits_are_averaged_before_the_softmax(shape):
    network, image = Tiny().eval(), image_of(*shape)
    config = WindowConfig(precision="float32", average="logits", mirror_axes=(1,))
    found = predict_probabilities(network, image, patch=(8, 8, 8), targets=THREE, config=config)
    # a network whose softmax is the identity: the weighted mean of logits is what the other mode gives for it
    answer = answer_of(network, config, THREE)
    parts = windowed_planes(answer, image, patch=(8, 8, 8), outside=[0, 0, 0], config=config)
    logits = torch.cat([planes for _, planes in parts], dim=1)
    torch.testing.assert_close(found, torch.softmax(logits, dim=0))
    softmax = predict_probabilities(
        network, image, patch=(8, 8, 8), targets=THREE, config=config.model_copy(update={"average": "softmax"})
    )
    assert 1e-4 < (softmax - found).abs().max() < 0.3


def test_planes_come_in_order_once_and_only_a_patch_of_them_is_kept():
    network, image = Tiny().eval(), image_of(50, 8, 8)
    parts = list(
        windowed_planes(answer_of(network, FLOAT32, THREE), image, patch=(8, 8, 8), outside=[1, 0, 0], config=FLOAT32)
    )
    places = [i for first, planes in parts for i in range(first, first + planes.shape[1])]
    assert places == list(range(50))
    assert max(planes.shape[1] for _, planes in parts) <= 8


def plan_of(patch):
    """What an ensemble asks of a plan."""
    return SimpleNamespace(patch=patch, network=ANY_SIZE)


@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_an_ensemble_gives_its_members_too_and_fewer_at_a_time_change_only_rounding(average, tmp_path):
    image, config = image_of(14, 10, 9), WindowConfig(precision="float32", average=average, batch=4)
    networks = [Tiny(seed=i).eval() for i in range(3)]
    ensemble = Ensemble(networks, plan_of((8, 8, 8)), THREE, config, "cpu")
    alone = ensemble.prepared(image)
    found = ensemble.prepared(image, members=True)
    assert alone.shape == (1, 3, 14, 10, 9) and found.shape == (4, 3, 14, 10, 9)
    np.testing.assert_array_equal(alone[0], found[0])
    for i, network in enumerate(networks):
        one = predict_probabilities(network, image, patch=(8, 8, 8), targets=THREE, config=config)
        np.testing.assert_allclose(found[1 + i], one.numpy(), atol=1e-6)
    members = found[1:].astype(np.float64)
    if average == "logits":
        geometric = np.exp(np.log(members).mean(axis=0))
        # over one window the mean of logits is the geometric mean; over several it is so before the softmax
        assert np.abs(found[0] - geometric / geometric.sum(axis=0)).max() < 0.05
    else:
        np.testing.assert_allclose(found[0], members.mean(axis=0), atol=1e-6)
    for use in (MemoryUse(batch=1), MemoryUse(batch=1, networks=2, on_disk=True), MemoryUse(networks=1)):
        for members_too in (False, True):
            scratch = Scratch(tmp_path if use.on_disk else None)
            again = ensemble.prepared(image, members=members_too, use=use, scratch=scratch)
            np.testing.assert_allclose(again, found if members_too else alone, atol=1e-6)
    assert not list(tmp_path.iterdir())


def test_each_window_is_cut_once_for_all_networks(monkeypatch):
    cuts = []
    monkeypatch.setattr(sliding_window, "cut", lambda *a: cuts.append(a[1]) or cut(*a))
    networks = [Tiny(seed=i).eval() for i in range(3)]
    Ensemble(networks, plan_of((8, 8, 8)), THREE, FLOAT32, "cpu").prepared(image_of(14, 10, 9), members=True)
    assert len(cuts) == len(set(cuts)) == len(window_grid((14, 10, 9), (8, 8, 8), 0.5))


@pytest.mark.parametrize(
    "voxels, wanted", [((8, 8, 8), 256), ((64, 64, 32), 1), ((65, 64, 32), 1), ((128, 128, 128), 1)]
)
def test_small_windows_go_through_the_network_together(voxels, wanted):
    assert WindowConfig().windows_at_once(voxels) == wanted
    assert WindowConfig(batch=3).windows_at_once(voxels) == 3


def test_a_volume_goes_whole_through_a_network_that_takes_any_size():
    generator = torch.Generator().manual_seed(0)
    network = build_network(ANY_SIZE, in_channels=2, classes=3, patch=(16, 16, 8), generator=generator).eval()
    image = image_of(21, 30, 9)
    shapes = []
    network.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape)))
    window = WindowConfig(precision="float32", whole=True)
    found = Ensemble([network], plan_of((16, 16, 8)), THREE, window, "cpu").prepared(image)[0]
    assert shapes == [(1, 2, 24, 32, 12)]
    padded = torch.zeros(1, 2, 24, 32, 12)
    start = [-((n - p) // 2) for n, p in zip(image.shape[1:], padded.shape[2:], strict=True)]
    place = tuple(slice(s, s + n) for s, n in zip(start, image.shape[1:], strict=True))
    padded[(0, slice(None), *place)] = torch.from_numpy(image)
    with torch.inference_mode():
        expected = torch.softmax(network(padded)[0], dim=1)[(0, slice(None), *place)]
    torch.testing.assert_close(torch.from_numpy(found), expected)
    windowed = Ensemble([network], plan_of((16, 16, 8)), THREE, FLOAT32, "cpu").prepared(image)[0]
    assert np.abs(windowed - found).max() > 1e-3


@pytest.mark.parametrize(
    ("shape", "multiple", "lowest", "wanted"),
    [
        ((60, 60), (64, 64), 2, (128, 64)),
        ((50, 60), (64, 64), 2, (64, 128)),
        ((60, 65), (64, 64), 2, (64, 128)),
        ((60, 60), (64, 64), 1, (64, 64)),
        ((10, 14, 9), (16, 16, 16), 2, (16, 32, 16)),
        ((30, 30, 3), (16, 16, 4), 2, (32, 32, 4)),
    ],
)
def test_a_whole_small_image_leaves_enough_voxels_at_the_lowest_level(shape, multiple, lowest, wanted):
    whole = WindowConfig(whole=True)
    assert whole.patch_for(shape, (256, 256, 8)[: len(shape)], multiple, lowest) == wanted
    assert WindowConfig().patch_for(shape, (8,) * len(shape), multiple, lowest) == (8,) * len(shape)


@given(
    st.lists(st.integers(1, 300), min_size=2, max_size=3),
    st.lists(st.sampled_from([1, 2, 4, 16]), min_size=3, max_size=3),
    st.integers(1, 5),
    st.integers(2, 200_000),
)
def test_volumes_beyond_the_limit_are_covered_by_windows_that_keep_it_or_are_patches(shape, multiple, times, limit):
    multiple = multiple[: len(shape)]
    patch = [m * times for m in multiple]
    whole = WindowConfig(whole=True).patch_for(shape, patch, multiple)
    found = WindowConfig(whole=limit).patch_for(shape, patch, multiple)
    assert all(n % m == 0 and n <= w for n, m, w in zip(found, multiple, whole, strict=True))
    assert all(n >= min(p, w) for n, p, w in zip(found, patch, whole, strict=True))
    small_enough = np.prod(found) <= limit
    assert small_enough or all(n <= p for n, p in zip(found, patch, strict=True))
    if found != whole:  # the window twice as long would not have been allowed, but for the rounding
        assert 2 * np.prod([n + m for n, m in zip(found, multiple, strict=True)]) > limit


@pytest.mark.parametrize("wrong", [0, 1, -5, "all", 2.5, [64, 64]])
def test_whole_is_yes_no_or_a_number_of_voxels(wrong):
    with pytest.raises(ValidationError, match="true, false or a number of voxels of 2 or more is wanted"):
        WindowConfig.model_validate({"whole": wrong})
    assert [WindowConfig.model_validate({"whole": right}).whole for right in (True, False, 64)] == [True, False, 64]


def test_a_small_picture_goes_whole_through_a_network_that_cannot_normalise_a_single_voxel():
    config = UNetConfig(widths=(4, 4, 4), strides=((1, 1), (2, 2), (2, 2)), norm="instance", spatial_dims=2)
    network = build_network(config, in_channels=2, classes=3, patch=(16, 16)).eval()
    with pytest.raises(GeometryError, match="leaves a single voxel at the lowest level"):
        network(torch.zeros(1, 2, 3, 4))
    plan, window = SimpleNamespace(patch=(16, 16), network=config), WindowConfig(precision="float32", whole=True)
    found = Ensemble([network], plan, THREE, window, "cpu").prepared(image_of(3, 4))
    assert found.shape == (1, 3, 3, 4) and np.isfinite(found).all()


@pytest.mark.parametrize("axes", [(0, 1, 2), (2,)])
def test_pictures_are_not_mirrored_along_an_axis_that_they_do_not_have(axes):
    config = WindowConfig(precision="float32", mirror_axes=axes)
    with pytest.raises(ConfigError, match=r"window\.mirror_axes = .*the images have 2 axes, counted from 0 to 1"):
        Ensemble([Tiny(2).eval()], plan_of((8, 8)), THREE, config, "cpu")
    Ensemble([Tiny().eval()], plan_of((8, 8, 8)), THREE, config, "cpu")


class Loud(nn.Module):
    """Its first answer is beyond float16 where the image is not dark, and is scaled back at once."""

    def __init__(self, overlapping: bool = False) -> None:
        super().__init__()
        self.up, self.down = nn.Conv3d(2, 4, 1), nn.Conv3d(4, 2 if overlapping else 3, 1)
        with torch.no_grad():
            for values in (self.up.weight, self.down.weight):
                values.copy_(torch.linspace(-1, 1, values.numel()).reshape(values.shape))
            self.up.weight.mul_(3e4)
            self.down.weight.mul_(3e-5)
            self.up.bias.zero_()
            self.down.bias.zero_()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.down(self.up(x)),)


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic of float16, which is for GPUs, on the CPU."""
    monkeypatch.setattr(sliding_window, "resolve_precision", lambda *_: torch.float16)


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("average", ["softmax", "logits"])
@pytest.mark.usefixtures("half")
def test_a_window_that_overflows_float16_is_computed_again_in_float32(overlapping, average, monkeypatch):
    image = image_of(24, 8, 8)
    image[:, 8:] *= 1e-3
    targets = Targets(("a", "b"), (("whole", (1, 2)), ("inner", (2,)))) if overlapping else THREE
    network, formats = Loud(overlapping).eval(), []

    def call(batch):
        found = network(batch)
        formats.append((len(batch), found[0].dtype))
        return found

    config = WindowConfig(average=average, mirror_axes=(1,), batch=5)
    found = predict_probabilities(call, image, patch=(8, 8, 8), targets=targets, config=config)
    assert torch.isfinite(found).all()
    # of the five windows two see the bright part; each of them again, alone, for either mirroring
    assert formats == 2 * [(5, torch.float16), (1, torch.float32), (1, torch.float32)]
    monkeypatch.setattr(sliding_window, "resolve_precision", lambda *_: torch.float32)
    wanted = predict_probabilities(network, image, patch=(8, 8, 8), targets=targets, config=config)
    torch.testing.assert_close(found[:, :6], wanted[:, :6])
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)


@pytest.mark.usefixtures("half")
def test_an_ensemble_answers_in_float32_where_a_member_overflows(monkeypatch):
    networks, image = [Tiny().eval(), Loud().eval()], image_of(14, 10, 9)
    ensemble = Ensemble(networks, plan_of((8, 8, 8)), THREE, WindowConfig(), "cpu")
    found = [ensemble.prepared(image, members=True)]
    mean = [predict_probabilities(mean_of(networks, THREE), image, patch=(8, 8, 8), targets=THREE)]
    monkeypatch.setattr(sliding_window, "resolve_precision", lambda *_: torch.float32)
    found.append(ensemble.prepared(image, members=True))
    mean.append(predict_probabilities(mean_of(networks, THREE), image, patch=(8, 8, 8), targets=THREE))
    np.testing.assert_allclose(found[0], found[1], atol=5e-3)
    np.testing.assert_array_equal(found[0][2], found[1][2])
    torch.testing.assert_close(*mean, atol=5e-3, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_weights_that_are_not_finite_are_told_and_no_empty_mask_is_made(precision, average):
    networks = [Tiny().eval(), Tiny().eval()]
    with torch.no_grad():
        networks[1].last.bias[1] = torch.nan
    config = WindowConfig(precision=precision, average=average)
    ensemble = Ensemble(networks, plan_of((8, 8, 8)), THREE, config, "cpu")
    with pytest.raises(StateError, match=r"Network 2 of 2 has weights that are not finite \(last\.bias\).*train this"):
        ensemble.prepared(image_of(14, 10, 9))
    with pytest.raises(StateError, match=r"The network has weights that are not finite \(last\.bias\)"):
        predict_probabilities(networks[1], image_of(8, 8, 8), patch=(8, 8, 8), targets=THREE, config=config)
    with pytest.raises(StateError, match=r"The network has weights"):
        predict_probabilities(mean_of(networks, THREE), image_of(8, 8, 8), patch=(8, 8, 8), targets=THREE)


@pytest.mark.parametrize("overlapping", [False, True])
def test_an_extreme_image_is_told_with_its_values(overlapping):
    image = image_of(20, 8, 8)
    image[0, 15, 3, 3] = 3e38
    targets = Targets(("a", "b"), (("whole", (1, 2)), ("inner", (2,)))) if overlapping else THREE
    with pytest.raises(InputError, match=r"not finite, in float32 too, .* reach from -.* to 3e\+38"):
        predict_probabilities(Loud(overlapping), image, patch=(8, 8, 8), targets=targets, config=FLOAT32)


def test_a_training_passes_through_a_network_that_is_not_finite():
    network = Tiny().eval()
    with torch.no_grad():
        network.last.bias[1] = torch.nan
    image = image_of(8, 8, 8)
    found = predict_probabilities(Unrefused(network), image, patch=(8, 8, 8), targets=THREE, config=FLOAT32)
    assert torch.isnan(found).all()
    case = TrainingCase("one", image, np.ones((8, 8, 8), np.uint8))
    data = TrainingData(train=[], validation=[case], spacing_mm=(1, 1, 1), targets=THREE, patch=(8, 8, 8))
    scores = validate(network, lambda logits, _: logits[0].sum(), data, FLOAT32, torch.device("cpu"))
    assert scores.dice == 0 and np.isnan(scores.loss)


def test_validation_cases_are_seen_in_the_windows_that_are_asked_for():
    seen = []

    class Watched(nn.Module):
        def forward(self, batch):
            seen.extend([tuple(batch.shape[2:])] * len(batch))
            return (torch.zeros(len(batch), 3, *batch.shape[2:]),)

    cases = [TrainingCase(str(n), image_of(n, 8, 8), np.ones((n, 8, 8), np.uint8)) for n in (8, 20)]
    data = TrainingData(train=[], validation=cases, spacing_mm=(1, 1, 1), targets=THREE, patch=(8, 8, 8))
    whole = partial(WindowConfig(whole=True).patch_for, patch=data.patch, multiple=(16, 4, 4))
    for asked in (data, replace(data, window_for=whole)):
        validate(Watched(), lambda logits, _: logits[0].sum(), asked, FLOAT32, torch.device("cpu"))
    assert seen == [(8, 8, 8)] * (1 + 4) + [(16, 8, 8), (32, 8, 8)]


def test_large_logits_whose_sum_overflows_are_finite():
    def call(batch):
        return (torch.full((len(batch), 3, 8, 8, 8), 3e38),)

    found = predict_probabilities(call, image_of(8, 8, 8), patch=(8, 8, 8), targets=THREE, config=FLOAT32)
    torch.testing.assert_close(found, torch.full((3, 8, 8, 8), 1 / 3))
