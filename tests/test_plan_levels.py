"""Levels follow the patch: what is planned can be read, built and trained, for volumes and budgets of any size."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neoseg.errors import ConfigError, GeometryError
from neoseg.networks.build import build_network
from neoseg.networks.configs import (
    NETWORKS,
    AttentionUNetConfig,
    ConvUNet,
    DynUNetConfig,
    NetworkBase,
    UNetConfig,
    UNetPlusPlusConfig,
    UnetrPPConfig,
    WideUNetConfig,
    check_lowest,
    check_patch,
)
from neoseg.plan.budget import FEWEST_STEPS
from neoseg.plan.conv_unet import unet_topology
from neoseg.plan.plan import Plan, read_plan, write_plan
from neoseg.plan.scales import scaled_patches
from test_plan import facts
from test_plan_networks import planned

CONVOLUTIONAL = [kind for kind, entry in NETWORKS.items() if issubclass(entry.config, ConvUNet)]
HEADS = [facts(f"c{i}", (138 + 2 * i, 178 + 2 * i, 138 + 2 * i), (1.0, 1.0, 1.0)) for i in range(3)]


def like(shape: tuple[int, ...], spacing: tuple[float, ...]) -> list[Any]:
    return [facts(f"c{i}", shape, spacing) for i in range(3)]


def reason(plan: Plan, what: str) -> str:
    return next(r.told for r in plan.reasons if r.what == what)


def lowest(plan: Plan) -> tuple[int, ...]:
    return tuple(p // m for p, m in zip(plan.patch, plan.network.multiple, strict=True))


def takes(plan: Plan) -> None:
    """The planned network is built for the planned patch and trains on it; on no device, so sizes cost nothing."""
    with torch.device("meta"):
        network = build_network(plan.network, in_channels=2, classes=2, patch=plan.patch)
        outputs = network(torch.empty(2, 2, *plan.patch))
    assert outputs[0].shape == (2, 2, *plan.patch)


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
@pytest.mark.parametrize("budget", [{"memory_gib": 6.0}, {"memory_gib": 1.0}, {"core_minutes": 10.0}], ids=str)
def test_a_shortened_patch_gets_the_levels_that_nnunet_gives_it(kind: str, budget: dict[str, float]) -> None:
    plan = planned(NETWORKS[kind].config(), HEADS, **budget)
    network = plan.network
    assert isinstance(network, ConvUNet) and network.strides is not None and network.kernels is not None
    topology = unet_topology(plan.spacing_mm, [min(n, t) for n, t in zip(plan.patch, (140, 180, 140), strict=True)])
    levels = len(network.strides)
    assert network.strides == topology.strides[:levels]
    assert network.kernels[:-1] == topology.kernels[: levels - 1]
    assert levels == min(len(topology.strides), 5 if kind == "wide_unet" else 6)
    assert min(lowest(plan)) >= 4
    assert len(network.widths or ()) == levels
    assert "the lowest level keeps 4 voxels" in reason(plan, "strides")
    shortened = "shortened from" in reason(plan, "patch")
    assert (" x ".join(map(str, plan.patch)) in reason(plan, "strides")) == shortened
    assert shortened or kind == "wide_unet"


def test_heads_of_a_millimetre_in_six_gib() -> None:
    plan = planned(UNetConfig(), HEADS)
    assert (plan.patch, plan.network.multiple) == ((80, 112, 80), (16, 16, 16))
    assert len([r for r in plan.reasons if r.what == "strides"]) == 1


def test_levels_of_unetr_pp_follow_the_patch() -> None:
    plan = planned(UnetrPPConfig(), HEADS)
    assert isinstance(plan.network, UnetrPPConfig)
    assert (plan.network.stem, len(plan.network.dims)) == ((4, 4, 4), 3)
    assert min(lowest(plan)) >= 4
    assert "tokens in the patch" in reason(plan, "levels")
    whole = planned(UnetrPPConfig(), HEADS, memory_gib=100.0)
    assert isinstance(whole.network, UnetrPPConfig) and len(whole.network.dims) == 4
    assert "tokens in the typical volume" in reason(whole, "levels")


@pytest.mark.parametrize(
    "network",
    [
        UNetConfig(widths=(8, 16, 32, 64, 64, 64)),
        UNetConfig(kernels=((3, 3, 3),) * 6),
        UNetConfig(encoder_blocks=(1,) * 6),
        UNetConfig(strides=((1, 1, 1), *[(2, 2, 2)] * 5)),
        UnetrPPConfig(dims=(32, 64, 128, 256)),
    ],
    ids=lambda n: str(sorted(n.model_fields_set)),
)
def test_levels_that_are_given_stay(network: NetworkBase) -> None:
    plan = planned(network, HEADS, memory_gib=2.0)
    assert plan.network.multiple == (32, 32, 32)
    assert "shortened" in reason(plan, "patch")
    for name in network.model_fields_set - {"kind"}:
        assert getattr(plan.network, name) == getattr(network, name)
    takes(plan)


def test_a_given_patch_gets_its_levels() -> None:
    plan = planned(UNetConfig(), HEADS, patch=(64, 96, 40))
    assert (plan.patch, plan.network.multiple) == ((64, 96, 40), (16, 16, 8))
    assert "a patch of 64 x 96 x 40 voxels" in reason(plan, "strides")
    with pytest.raises(GeometryError, match="nearest right patch is 64x96x40"):
        planned(UNetConfig(), HEADS, patch=(64, 96, 41))
    with pytest.raises(GeometryError, match="nearest right patch"):
        planned(UNetConfig(widths=(8,) * 6), HEADS, patch=(64, 96, 40))


def test_an_axis_that_is_no_longer_halved_lets_a_coarser_one_be() -> None:
    # x is finer than half of the others, so it is halved alone, and they are left whole once it has under 12 voxels.
    cases = like((40, 62, 62), (0.4, 1.7, 1.7))
    plans = [planned(UNetConfig(), cases, memory_gib=gib) for gib in (2.0 * 0.85**i for i in range(28))]
    multiples = [plan.network.multiple[1] for plan in plans]
    assert any(a < b for a, b in pairwise(multiples))
    for plan in plans:
        check_patch(plan.network, plan.patch)
    for more, less in pairwise(plans):
        assert all(a >= b for a, b in zip(more.patch, less.patch, strict=True))


@pytest.mark.parametrize("kind", ["unet", "wide_unet", "unet_plus_plus", "attention_unet", "dynunet"])
@pytest.mark.parametrize("shape", [(7, 6, 5), (15, 14, 13), (2, 2, 2), (11, 4, 4), (3, 3)], ids=str)
def test_tiny_images_get_the_fewest_levels(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    plan = planned(NETWORKS[kind].config(), like(shape, (1.0,) * len(shape)))
    network = plan.network
    assert isinstance(network, ConvUNet)
    assert len(network.strides or ()) >= (3 if kind == "dynunet" else 2)
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    takes(plan)
    if max(shape) < 8:
        assert "the fewest levels that this network may have" in reason(plan, "strides")


def test_a_pruned_network_keeps_the_levels_it_is_pruned_to() -> None:
    plan = planned(UNetPlusPlusConfig(prune=3), like((12, 12, 12), (1.0, 1.0, 1.0)))
    assert isinstance(plan.network, UNetPlusPlusConfig) and len(plan.network.strides or ()) == 4
    takes(plan)
    shortened = planned(UNetPlusPlusConfig(prune=4), HEADS, memory_gib=0.6)
    assert "shortened" in reason(shortened, "patch")
    assert len(shortened.network.strides or ()) == 5  # type: ignore[union-attr]
    takes(shortened)


def test_a_network_that_contradicts_itself_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match=r"network.*strides has 3 entries and kernels 4|kernels has 4"):
        planned(UNetConfig(strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)), kernels=((3, 3, 3),) * 4))
    with pytest.raises(ConfigError, match=r"network\.widths: .*at least 2"):
        planned(UNetConfig(strides=((1, 1, 1),)))
    with pytest.raises(ConfigError, match="prune = 4, but 3 widths"):
        planned(UNetPlusPlusConfig(prune=4, strides=((1, 1, 1), (2, 2, 2), (2, 2, 2))))


def test_sizes_of_unetr_pp_that_its_heads_do_not_divide_are_left_out() -> None:
    for minutes in (2.0, 4.0, 20.0):
        plan = planned(UnetrPPConfig(heads=32), core_minutes=minutes)
        assert isinstance(plan.network, UnetrPPConfig)
        assert all(dim % 32 == 0 for dim in plan.network.dims)


SINGLE = {
    "unet": UNetConfig(strides=((1, 1, 1), *[(2, 2, 2)] * 4)),
    "wide_unet": WideUNetConfig(strides=((1, 1, 1), *[(2, 2, 2)] * 4)),
    "unet_plus_plus": UNetPlusPlusConfig(strides=((1, 1, 1), *[(2, 2, 2)] * 4)),
    "attention_unet": AttentionUNetConfig(strides=((1, 1, 1), *[(2, 2, 2)] * 4)),
    "dynunet": DynUNetConfig(strides=((1, 1, 1), *[(2, 2, 2)] * 4)),
    "unet light": UNetConfig(encoder="mobilenet_v2", norm="instance"),
    "unetr_pp": UnetrPPConfig(dims=(8, 16, 32, 64), stem=(2, 2, 2), norm="instance"),
}


@pytest.mark.parametrize("name", SINGLE)
def test_the_lowest_level_never_has_a_single_voxel(name: str, tmp_path: Path) -> None:
    network = SINGLE[name]
    side = 32 if name == "unet light" else 16
    # Small heads are doubled, large ones on a small budget are not shortened to it.
    for cases, budget in ((like((side - 4, side - 2, side - 6), (1.0,) * 3), {}), (HEADS, {"core_minutes": 4.0})):
        plan = planned(network, cases, **budget)
        assert math.prod(lowest(plan)) >= 2
        takes(plan)
    single = (side,) * 3
    with pytest.raises(GeometryError, match=r"single voxel.*norm = 'group'"):
        planned(network, HEADS, patch=single)
    twice = planned(network, HEADS, patch=(2 * side, side, side))
    with pytest.raises(GeometryError, match="single voxel"):
        scaled_patches(twice.network, twice.patch, (0.5, 1))
    write_plan(twice, tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text().replace(f"{2 * side},", f"{side},", 1)
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ConfigError, match="single voxel"):
        read_plan(tmp_path / "plan.json")
    grouped = network.model_copy(update={"norm": "group"})
    assert planned(grouped, HEADS, patch=single).patch == single


def test_a_pruned_network_ends_above_the_single_voxel() -> None:
    strides = ((1, 1, 1), *[(2, 2, 2)] * 4)
    whole, pruned = UNetPlusPlusConfig(strides=strides), UNetPlusPlusConfig(strides=strides, prune=3)
    assert (whole.lowest_voxels, pruned.lowest_voxels) == (2, 1)
    assert UNetPlusPlusConfig(strides=strides, prune=4).lowest_voxels == 2
    plan = planned(pruned, HEADS, patch=(16, 16, 16))
    takes(plan)


def test_a_budget_narrows_a_wide_unet_unless_its_widths_are_given() -> None:
    plans = [planned(WideUNetConfig(), core_minutes=minutes) for minutes in (2, 10, 60, 4000)]
    widths = [plan.network.widths for plan in plans]  # type: ignore[union-attr]
    first = [w[0] for w in widths if w is not None]
    assert first == sorted(first) and first[0] < 20 and first[-1] == 35
    for plan in plans:
        assert plan.steps is not None and plan.steps >= FEWEST_STEPS[len(plan.patch)]
        made = plan.network.widths or ()  # type: ignore[union-attr]
        assert all(abs(b - 2 * a) <= 1 for a, b in pairwise(made))
    assert "of 5 sizes" in reason(plans[0], "widths")
    given = planned(WideUNetConfig(widths=(35, 70, 140, 280, 560)), core_minutes=10)
    assert given.network.widths == (35, 70, 140, 280, 560)  # type: ignore[union-attr]
    assert "given as network.widths" in reason(given, "widths")


NORMS = ["instance", "batch", "group", None]


@settings(deadline=None, max_examples=30)
@given(
    kind=st.sampled_from(sorted(NETWORKS)),
    norm=st.sampled_from(NORMS),
    shape=st.lists(st.integers(2, 200), min_size=2, max_size=3),
    spacing=st.lists(st.sampled_from([0.4, 0.8, 1.0, 1.5, 2.2, 5.0]), min_size=3, max_size=3),
    grow=st.floats(1.0, 1.3),
    budget=st.one_of(
        st.fixed_dictionaries({"memory_gib": st.floats(0.3, 20)}),
        st.fixed_dictionaries({"core_minutes": st.floats(1, 300)}),
    ),
)
def test_what_is_planned_can_be_read_built_and_trained(
    kind: str, norm: str | None, shape: list[int], spacing: list[float], grow: float, budget: dict[str, float]
) -> None:
    fields = {"norm": norm} if norm is not None and "norm" in NETWORKS[kind].config.model_fields else {}
    size, voxel = tuple(shape), tuple(spacing[: len(shape)])
    cases = [*like(size, voxel), facts("large", tuple(int(n * grow) for n in size), voxel)]
    network = NETWORKS[kind].config.model_validate(fields)
    try:
        plan = planned(network, cases, **budget)
    except ConfigError as error:
        assert "allow at least that" in str(error)
        return
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    check_patch(plan.network, plan.patch)
    check_lowest(plan.network, plan.patch)
    if norm == "instance" and fields and kind != "unetr":
        assert math.prod(lowest(plan)) >= 2
    if isinstance(plan.network, ConvUNet) and "halved while" in reason(plan, "strides"):
        assert all(n >= 4 or m == 1 for n, m in zip(lowest(plan), plan.network.multiple, strict=True))
    if kind == "unetr_pp" and len(plan.network.dims) > 3:  # type: ignore[union-attr]
        assert min(lowest(plan)) >= 4
    # The other networks are large, and their levels do not follow the patch.
    if kind in CONVOLUTIONAL and math.prod(plan.network.multiple) < 2048:
        takes(plan)


@settings(deadline=None, max_examples=25)
@given(
    kind=st.sampled_from([*CONVOLUTIONAL, "unetr_pp"]),
    shape=st.tuples(*[st.integers(4, 200)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.4, 0.8, 1.0, 1.5, 2.2, 5.0])] * 3),
    memory=st.floats(0.3, 8),
)
def test_less_memory_makes_no_axis_longer(
    kind: str, shape: tuple[int, ...], spacing: tuple[float, ...], memory: float
) -> None:
    try:
        less, more = (
            planned(NETWORKS[kind].config(), like(shape, spacing), memory_gib=m) for m in (memory, 1.7 * memory)
        )
    except ConfigError:
        return
    width = [(p.network.widths or ()) if isinstance(p.network, ConvUNet) else p.network.dims for p in (less, more)]  # type: ignore[union-attr]
    assert width[0][0] <= width[1][0]
    if width[0][0] == width[1][0]:
        assert all(a <= b for a, b in zip(less.patch, more.patch, strict=True))
