"""Regions: from class indices to what a network learns and back, what is refused, and every loss beside its own."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from neoseg.config import RunConfig, config_from
from neoseg.errors import ConfigError
from neoseg.inference.configs import PostprocessConfig, WindowConfig
from neoseg.inference.ensemble import Ensemble, mean_of
from neoseg.inference.memory import MemoryUse
from neoseg.inference.postprocess import decide
from neoseg.inference.sliding_window import predict_probabilities
from neoseg.inference.uncertainty import entropy, range_ml, spread
from neoseg.labels import LabelSet
from neoseg.losses.build import build_loss
from neoseg.losses.configs import LossConfig
from neoseg.losses.registry import TERMS
from neoseg.networks.build import build_network
from neoseg.networks.configs import UNetPlusPlusConfig
from neoseg.prepare.standardise import Space
from neoseg.targets import Targets, inside
from neoseg.training.data import TrainingCase, TrainingData
from neoseg.training.validation import mean_dice, validate
from neoseg.volume import Grid
from neoseg.workspace import write_if_changed

LABELS = {"necrosis": 1, "oedema": 2, "enhancing": 3}
BRATS = {
    "whole_tumour": ["necrosis", "oedema", "enhancing"],
    "tumour_core": ["necrosis", "enhancing"],
    "enhancing_tumour": ["enhancing"],
}
TARGETS = Targets.of(LabelSet.of(LABELS), BRATS)
FLOAT32 = WindowConfig(precision="float32")
ANY_PATCH = UNetPlusPlusConfig(strides=((1, 1, 1),) * 2)
"""What an ensemble asks a plan's network for is the multiple of its patches."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_brats_by_hand() -> None:
    assert TARGETS.names == tuple(BRATS) and TARGETS.channels == 3 and TARGETS.overlapping
    assert TARGETS.painted == (2, 1, 3)
    # background, necrosis, oedema, enhancing; columns: whole, core, enhancing
    table = [[0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]]
    found = TARGETS.truth(torch.tensor([[0, 1, 2, 3]]))
    assert found.dtype == torch.bool and found.shape == (1, 3, 4)
    assert found[0].T.int().tolist() == table
    assert TARGETS.structures == {
        "whole_tumour": (1, 2, 3),
        "tumour_core": (1, 3),
        "enhancing_tumour": (3,),
        "necrosis": (1,),
        "oedema": (2,),
        "enhancing": (3,),
    }


def test_a_later_region_is_painted_over_an_earlier_one() -> None:
    inside_of = np.array(
        [[0.5, 0.9, 0.49, 0.1, 0.9], [0.1, 0.5, 0.1, 0.6, 0.49], [0.1, 0.1, 0.1, 0.7, 0.5]], np.float32
    )
    found = decide(inside_of, PostprocessConfig(threshold=0.9), TARGETS)
    assert found.tolist() == [2, 1, 0, 3, 3] and found.dtype == np.uint8
    logits = torch.logit(torch.from_numpy(inside_of), eps=1e-6)
    assert TARGETS.classes_of(logits[None], 1, logits=True)[0].tolist() == found.tolist()


@st.composite
def targets(draw: st.DrawFn) -> Targets:
    """Return any regions from which the classes follow: each has a class of its own, and any of the later ones."""
    names = [f"class{i}" for i in range(draw(st.integers(1, 6)))]
    order = draw(st.permutations(names))
    regions = {}
    for place, own in enumerate(order):
        others = draw(st.sets(st.sampled_from(order[place + 1 :]))) if order[place + 1 :] else set()
        regions[f"region{place}"] = draw(st.permutations([own, *sorted(others)]))
    return Targets.of(LabelSet.of({name: i + 1 for i, name in enumerate(names)}), regions)


@given(targets(), st.data())
@settings(deadline=None)
def test_painting_the_regions_of_classes_gives_the_classes(wanted: Targets, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 20))
    values = data.draw(st.lists(st.integers(0, len(wanted.classes)), min_size=size, max_size=size))
    classes = np.array(values, dtype=np.uint8)
    truth = wanted.truth(torch.from_numpy(classes)[None])[0]
    for channel, members in zip(truth, wanted.members, strict=True):
        np.testing.assert_array_equal(channel.numpy(), np.isin(classes, members))
        np.testing.assert_array_equal(inside(classes, members), np.isin(classes, members))
    np.testing.assert_array_equal(decide(truth.float().numpy(), PostprocessConfig(), wanted), classes)
    logits = 20 * truth.float() - 10
    np.testing.assert_array_equal(wanted.classes_of(logits, 0, logits=True).numpy(), classes)


def test_without_regions_the_classes_are_the_targets() -> None:
    plain = Targets.of(LabelSet.of(LABELS))
    assert not plain.overlapping and plain.channels == 4 and plain.names == tuple(LABELS)
    assert plain.members == ((1,), (2,), (3,)) and plain.structures == {
        "necrosis": (1,),
        "oedema": (2,),
        "enhancing": (3,),
    }
    classes = torch.tensor([[0, 3, 1]])
    assert plain.truth(classes) is classes


def changed(**regions: list[str]) -> dict[str, Any]:
    return {"labels": LABELS, "regions": {**BRATS, **regions}}


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        (
            changed(tumour_core=["necrosis", "enhancin"]),
            r"regions\.tumour_core: 'enhancin' is not .*mean 'enhancing'\?",
        ),
        (changed(tumour_core=[]), r"regions\.tumour_core: the region holds no class"),
        (changed(tumour_core=["enhancing", "necrosis", "enhancing"]), r"regions\.tumour_core: it names a class twice"),
        (changed(again=["enhancing"]), r"regions\.again: it holds the same classes as regions\.enhancing_tumour"),
        (changed(necrosis=["necrosis", "oedema"]), r"regions\.necrosis: a class has this name too"),
        (changed(**{"a/b": ["oedema"]}), r"regions: 'a/b' becomes part of files' names"),
        (changed(**{"a\nb": ["oedema"]}), r"regions: 'a\\nb' becomes part of files' names; give the region another"),
        ({"labels": {**LABELS, "cyst": 4}, "regions": BRATS}, r"the class 'cyst' of \[labels\] lies in no region"),
        (
            {"labels": LABELS, "regions": {"whole": list(LABELS), "active": ["enhancing"]}},
            r"regions\.whole: .*but 'necrosis', 'oedema' are left; add a region",
        ),
        (
            {"labels": LABELS, "regions": dict(reversed(BRATS.items()))},
            r"regions\.enhancing_tumour: .*none is left; order the regions from the largest",
        ),
        ({"labels": LABELS, "regions": {}}, r"regions: the table names no region"),
        ({"labels": LABELS, "regions": {"whole": 3}}, r"regions\.whole"),
        (
            changed() | {"postprocess": {"keep_largest": [0, 1]}},
            r"postprocess\.keep_largest has no use with \[regions\]",
        ),
        (changed() | {"postprocess": {"thresholds": [0.4]}}, r"postprocess\.thresholds has no use with \[regions\]"),
        (changed() | {"postprocess": {"minimum_lesion_mm3": [9.0]}}, r"postprocess\.minimum_lesion_mm3 has no use"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(tree: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        config_from(tree, "run.toml")
    assert str(caught.value).startswith("run.toml: ") and "\n" not in str(caught.value)


def test_a_region_may_have_the_name_of_its_only_class() -> None:
    wanted = Targets.of(LabelSet.of({"kidney": 1, "tumour": 2}), {"all": ["kidney", "tumour"], "tumour": ["tumour"]})
    assert wanted.structures == {"all": (1, 2), "tumour": (2,), "kidney": (1,)}
    assert wanted.painted == (1, 2)


# ---- losses


def example(size: tuple[int, ...] = (6, 8, 5)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randint(0, 4, (2, 1, *(-(-n // 2) for n in size)), generator=generator).double()
    target = functional.interpolate(coarse, scale_factor=2.0, mode="nearest")[:, 0].long()
    target = target[(slice(None), *(slice(n) for n in size))]
    return 2 * torch.randn(2, 3, *size, dtype=torch.float64, generator=generator), target


def two_class_mean(config: LossConfig, logits: list[Tensor], target: Tensor) -> float:
    """Return the mean over regions of the loss of a softmax over (0, logit) and the region as class 1."""
    found = []
    for index, members in enumerate([(1, 2, 3), (1, 3), (3,)]):
        pairs = [torch.stack([torch.zeros_like(one[:, index]), one[:, index]], dim=1) for one in logits]
        region = sum((target == m).long() for m in members)
        found.append(build_loss(config)(pairs, region).item())
    return sum(found) / 3


ONLY = {"dice_weight": 0.0, "cross_entropy_weight": 0.0}
CONFIGS: list[dict[str, Any]] = [
    {},
    {"dice_weight": 0.0},
    *({"cross_entropy_weight": 0.0, "dice": {"pooling": p, "denominator": d, "foreground_only": f}}
      for p in ("batch", "sample") for d in ("squared", "summed") for f in (True, False)),
    *({**ONLY, "terms": [{"kind": kind}]} for kind in TERMS),
    {**ONLY, "terms": [{"kind": "focal", "alpha": 0.25, "gamma": 1.5}]},
    {**ONLY, "terms": [{"kind": "tversky", "pooling": "sample", "foreground_only": False}]},
    {**ONLY, "terms": [{"kind": "focal_tversky", "pooling": "sample", "foreground_only": False}]},
    {**ONLY, "terms": [{"kind": "jaccard", "pooling": "sample", "foreground_only": False}]},
    {"dice_weight": 0.5, "terms": [{"kind": kind, "weight": 0.3} for kind in TERMS]},
]  # fmt: skip


@pytest.mark.parametrize("tree", CONFIGS, ids=str)
def test_every_loss_is_the_mean_over_regions_of_two_class_problems(tree: dict[str, Any]) -> None:
    config = LossConfig.model_validate(tree)
    logits, target = example()
    heads = [logits, logits[..., ::2, ::2, ::2] / 2]  # deep supervision
    for given_heads in (heads[:1], heads):
        found = build_loss(config, TARGETS)(given_heads, target).item()
        assert found == pytest.approx(two_class_mean(config, given_heads, target), rel=1e-6)
        assert found > 0.01


def test_the_logarithm_of_the_hausdorff_term_is_that_of_the_mean() -> None:
    logits, target = example()
    plain, logarithm = (
        LossConfig.model_validate({**ONLY, "terms": [{"kind": "hausdorff", "logarithm": on}]}) for on in (False, True)
    )
    mean = two_class_mean(plain, [logits], target)
    assert build_loss(logarithm, TARGETS)([logits], target).item() == pytest.approx(math.log1p(mean))


def test_dice_and_cross_entropy_of_regions_written_out() -> None:
    logits, target = example()
    p = 1 / (1 + np.exp(-logits.numpy()))
    classes = target.numpy()
    dices, surprises = [], []
    for index, members in enumerate([(1, 2, 3), (1, 3), (3,)]):
        g = np.isin(classes, members).astype(float)
        q = p[:, index]
        dices.append((2 * (q * g).sum() + 1) / ((q**2).sum() + (g**2).sum() + 1))
        surprises.append(-(g * np.log(q) + (1 - g) * np.log(1 - q)).mean())
    expected = 1 - np.mean(dices) + np.mean(surprises)
    assert build_loss(LossConfig(), TARGETS)([logits], target).item() == pytest.approx(expected)


@pytest.mark.parametrize("tree", CONFIGS, ids=str)
def test_the_truth_itself_costs_nothing_and_gradients_are_finite(tree: dict[str, Any]) -> None:
    loss = build_loss(LossConfig.model_validate(tree), TARGETS)
    _, target = example()
    perfect = 80 * (2 * TARGETS.truth(target).float() - 1)
    assert loss([perfect], target).item() == pytest.approx(0, abs=1e-5)
    for classes in (target, torch.zeros_like(target)):
        for sign in (1, -1):
            logits = (sign * perfect).requires_grad_()
            loss([logits], classes).backward()
            assert logits.grad is not None and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_without_regions_losses_keep_their_bits(dtype: torch.dtype) -> None:
    logits, target = example()
    logits = torch.cat((logits, logits.flip(2)[:, :1]), dim=1).to(dtype)
    wide = logits.to(torch.promote_types(dtype, torch.float32))
    p = torch.softmax(wide, dim=1)
    g = torch.zeros_like(p).scatter_(1, target.unsqueeze(1), 1.0)
    p, g = p[:, 1:].flatten(2), g[:, 1:].flatten(2)
    dice = (2 * (p * g).sum((0, 2)) + 1.0) / (p.square().sum((0, 2)) + g.sum((0, 2)) + 1.0)
    expected = 1.0 * (1 - dice.mean()) + 1.0 * functional.cross_entropy(wide, target)
    plain = Targets.of(LabelSet.of(LABELS))
    for loss in (build_loss(LossConfig()), build_loss(LossConfig(), plain)):
        assert torch.equal(loss([logits], target), torch.stack([1.0 * expected]).sum())


def test_without_regions_configurations_hash_as_before() -> None:
    plain = RunConfig.model_validate({"labels": LABELS})
    assert plain.regions_key == [] and plain.regions is None
    one, other = ({"core": ["a"], "rim": ["b"]}, {"rim": ["b"], "core": ["a"]})
    keys = [
        RunConfig.model_validate({"labels": {"a": 1, "b": 2}, "regions": tree}).regions_key for tree in (one, other)
    ]
    assert keys[0] != keys[1]  # the order is that of the channels


def test_a_record_whose_order_changed_is_written_again(tmp_path: Any) -> None:
    path = tmp_path / "config.json"
    write_if_changed(path, {"regions": {"a": 1, "b": 2}})
    before = path.stat().st_mtime_ns
    write_if_changed(path, {"regions": {"a": 1, "b": 2}})
    assert path.stat().st_mtime_ns == before
    write_if_changed(path, {"regions": {"b": 2, "a": 1}})
    assert path.read_text().index('"b"') < path.read_text().index('"a"')


# ---- networks and inference


class Tiny(nn.Module):
    def __init__(self, seed: int = 0, channels: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first, self.last = nn.Conv3d(2, 4, 3, padding=1), nn.Conv3d(4, channels, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (3 * self.last(torch.relu(self.first(x))),)


def image_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (2, *shape)).astype(np.float32)


def sigmoids(network: nn.Module, image: np.ndarray) -> Tensor:
    with torch.inference_mode():
        return torch.sigmoid(network(torch.from_numpy(image)[None])[0][0])


@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_one_window_is_the_sigmoid_and_mirrors_and_folds_are_means(average: str) -> None:
    config, image = FLOAT32.model_copy(update={"average": average}), image_of(8, 8, 8)
    networks = [Tiny(seed).eval() for seed in range(3)]
    first = predict_probabilities(networks[0], image, patch=(8, 8, 8), targets=TARGETS, config=config)
    torch.testing.assert_close(first, sigmoids(networks[0], image))
    assert not torch.allclose(first.sum(0), torch.ones(()), atol=0.1)

    def mean(parts: list[Tensor]) -> Tensor:
        whole = torch.stack(parts)
        return whole.mean(0) if average == "softmax" else torch.logit(whole).mean(0).sigmoid()

    mirrored = config.model_copy(update={"mirror_axes": (0,)})
    found = predict_probabilities(networks[0], image, patch=(8, 8, 8), targets=TARGETS, config=mirrored)
    flipped = sigmoids(networks[0], image[:, ::-1].copy()).flip(1)
    torch.testing.assert_close(found, mean([first, flipped]), atol=1e-5, rtol=1e-4)

    plan = SimpleNamespace(patch=(8, 8, 8), network=ANY_PATCH)
    ensemble = Ensemble(networks, plan, TARGETS, config.model_copy(), "cpu")
    each = [sigmoids(network, image) for network in networks]
    for use in (None, MemoryUse(networks=2)):
        sets = ensemble.prepared(image, members=True, use=use)
        assert sets.shape == (4, 3, 8, 8, 8)
        torch.testing.assert_close(torch.from_numpy(sets[0]), mean(each), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(torch.from_numpy(sets[1:]), torch.stack(each), atol=1e-5, rtol=1e-4)
    if average == "softmax":
        call = mean_of(networks, TARGETS)
        together = predict_probabilities(call, image, patch=(8, 8, 8), targets=TARGETS, config=config)
        torch.testing.assert_close(together, mean(each), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_where_no_window_is_computed_there_is_no_region(average: str) -> None:
    image = image_of(40, 8, 8)
    image[:, 12:] = 0
    config = FLOAT32.model_copy(update={"average": average})
    found = predict_probabilities(Tiny().eval(), image, patch=(8, 8, 8), targets=TARGETS, config=config)
    assert float(found[:, 24:].max()) < 1e-9 and float(found[:, :12].min()) > 1e-4
    grid = Grid((40, 8, 8), np.eye(4))
    wider = Grid((44, 8, 8), np.eye(4))
    plan = SimpleNamespace(patch=(8, 8, 8), network=ANY_PATCH)
    native = Ensemble([Tiny().eval()], plan, TARGETS, config, "cpu").probabilities(image, Space(grid, None), wider)
    assert not native[:, 40:].any() and native[:, :12].min() > 1e-4


def test_the_mean_head_of_unet_plus_plus_is_that_of_the_sigmoids() -> None:
    config = UNetPlusPlusConfig(spatial_dims=2, widths=(4, 4, 8), strides=((1, 1), (2, 2), (2, 2)))
    network = build_network(
        config, in_channels=1, classes=1, patch=(16, 16), overlapping=True, generator=torch.Generator().manual_seed(0)
    ).eval()
    with torch.no_grad():
        first, *heads = network(torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 5)
    assert len(heads) > 1
    torch.testing.assert_close(torch.sigmoid(first), torch.stack([torch.sigmoid(h) for h in heads]).mean(0))


def test_logits_of_probabilities_stay_finite() -> None:
    p = torch.tensor([0.0, 1e-9, 0.25, 0.5, 1.0])
    found = TARGETS.logits(p, 1e-7)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(torch.sigmoid(found), p, atol=2e-7, rtol=0)


def test_entropy_and_spread_of_regions_by_hand() -> None:
    p = np.array([[0.5, 1.0, 0.9], [0.5, 0.0, 0.2], [0.5, 1.0, 0.0]], dtype=np.float32)

    def bits(q: float) -> float:
        return -(q * math.log2(q) + (1 - q) * math.log2(1 - q))

    np.testing.assert_allclose(entropy(p, TARGETS), [1.0, 0.0, (bits(0.9) + bits(0.2)) / 3], atol=1e-6)
    other = np.array([[0.1, 1.0, 0.3], [0.2, 0.0, 0.4], [0.0, 0.0, 0.1]], dtype=np.float32)
    wanted = [np.std([0.5, 0.2], ddof=1), 0.0, np.std([0.9, 0.4], ddof=1)]
    np.testing.assert_allclose(spread(np.stack([p, other]), TARGETS), wanted, atol=1e-6)
    masks = [np.array([0, 1, 2, 3], np.uint8), np.array([2, 2, 2, 2], np.uint8)]
    assert range_ml(masks, TARGETS.structures["whole_tumour"], 0.5) == (1.5, 2.0)
    assert range_ml(masks, TARGETS.structures["tumour_core"], 0.5) == (0.0, 1.0)


def test_the_training_judges_regions() -> None:
    truth = torch.tensor([0, 1, 2, 2, 3], dtype=torch.uint8)
    found = torch.tensor([2, 1, 2, 1, 1])
    # whole: 4 of 5 and 4; core: {1, 3, 4} for {1, 4}; enhancing: none of one
    assert mean_dice(found, truth, TARGETS) == pytest.approx((8 / 9 + 4 / 5 + 0) / 3)
    without = torch.tensor([0, 1, 2, 2, 1])
    assert mean_dice(found, without, TARGETS) == pytest.approx((8 / 9 + 4 / 5) / 2)
    assert mean_dice(found, torch.zeros(5), TARGETS) is None


def test_the_validation_of_a_case_is_that_of_its_painted_mask() -> None:
    generator = np.random.default_rng(1)
    label = generator.integers(0, 4, (8, 8, 8)).astype(np.uint8)
    image = image_of(8, 8, 8)
    data = TrainingData(
        train=[TrainingCase("t", image, label)],
        validation=[TrainingCase("v", image, label)],
        spacing_mm=(1.0, 1.0, 1.0),
        targets=TARGETS,
        patch=(8, 8, 8),
    )
    network = Tiny().eval()
    loss = build_loss(LossConfig(), TARGETS)
    scores = validate(network, loss, data, FLOAT32, torch.device("cpu"))
    p = sigmoids(network, image).numpy()
    mask = np.zeros(label.shape, np.uint8)
    for region, value in zip(p, (2, 1, 3), strict=True):
        mask[region >= 0.5] = value
    dices = []
    for members in ((1, 2, 3), (1, 3), (3,)):
        a, b = np.isin(mask, members), np.isin(label, members)
        dices.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert scores.dice == pytest.approx(np.mean(dices))
    with torch.no_grad():
        expected = loss(network(torch.from_numpy(image)[None]), torch.from_numpy(label)[None].long()).item()
    assert scores.loss == pytest.approx(expected, rel=1e-5)
