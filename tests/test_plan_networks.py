"""Every kind of network gets a plan: shapes by the voxels, widths by the budget, and each decision with its reason."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from neoseg.errors import ConfigError, GeometryError, InputError
from neoseg.networks.configs import (
    NETWORKS,
    ConvUNet,
    DynUNetConfig,
    MedNeXtConfig,
    NetworkBase,
    SwinUnetrConfig,
    UNetConfig,
    UNetPlusPlusConfig,
    WideUNetConfig,
)
from neoseg.plan.budget import ENOUGH_STEPS, FEWEST_STEPS, PlanConfig, StepSettings
from neoseg.plan.candidates import PLANNERS
from neoseg.plan.conv_unet import feature_counts, unet_topology
from neoseg.plan.cost import LOSS_COPIES, step_flops, step_gib
from neoseg.plan.fingerprint import CaseFacts
from neoseg.plan.plan import Plan, make_plan, read_plan, write_plan
from test_plan import COHORT, facts


def planned(network: NetworkBase, cases: object = None, **budget: object) -> Plan:
    return make_plan(
        COHORT if cases is None else cases,  # type: ignore[arg-type]
        channels=("adc", "zadc"),
        network=network,
        normalise={},
        config=PlanConfig.model_validate(budget),
        step=StepSettings(),
        inputs="k",
    )


LIGHT = {"unet efficientnet_b0": UNetConfig(encoder="efficientnet_b0"),
         "unet_plus_plus mobilenet_v2": UNetPlusPlusConfig(encoder="mobilenet_v2")}  # fmt: skip


@pytest.fixture(params=[*NETWORKS, *LIGHT])
def network(request: pytest.FixtureRequest) -> NetworkBase:
    return LIGHT.get(request.param) or NETWORKS[request.param].config()


def test_every_kind_has_a_planner() -> None:
    assert set(PLANNERS) == set(NETWORKS)


def test_a_plan_is_complete_and_comes_back_from_its_file(network: NetworkBase, tmp_path: Path) -> None:
    plan = planned(network, memory_gib=4.0)
    assert plan.network.kind == network.kind
    assert all(p % m == 0 for p, m in zip(plan.patch, plan.network.multiple, strict=True))
    assert step_gib(plan.network, plan.patch, plan.batch) <= 4.0
    assert {r.what for r in plan.reasons} >= {"spacing", "patch", "batch", "memory", PLANNERS[network.kind].field}
    assert all(r.why and r.inputs and r.value for r in plan.reasons)
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan


def test_a_small_budget_takes_a_network_that_can_be_trained(network: NetworkBase) -> None:
    less, more = planned(network, core_minutes=20), planned(network, core_minutes=200)
    for plan in (less, more):
        assert plan.steps is not None and plan.steps >= FEWEST_STEPS[len(plan.patch)]
    assert step_flops(less.network, (96, 96, 96), 2) <= step_flops(more.network, (96, 96, 96), 2)
    with pytest.raises(ConfigError, match=r"plan\.memory_gib = .*allow at least that"):
        planned(network, memory_gib=1e-4)


@pytest.mark.parametrize("kind", ["unet", "unetr_pp"])
def test_a_wider_network_needs_enough_steps_and_only_the_narrowest_gets_a_shorter_patch_for_them(kind: str) -> None:
    network, (enough, fewest) = NETWORKS[kind].config(), (ENOUGH_STEPS, FEWEST_STEPS[3])
    field = PLANNERS[kind].field
    plans = [planned(network, core_minutes=2.0 * 1.2**i) for i in range(30)]
    widths = [getattr(plan.network, field) for plan in plans]
    narrowest = plans[: widths.count(widths[0])]
    assert enough > fewest and len(set(widths)) >= 3
    for plan in plans[len(narrowest) :]:
        assert plan.steps is not None and plan.steps >= enough
    assert len({plan.patch for plan in narrowest}) > 1
    for plan in narrowest:
        assert plan.steps is not None
        # the next longer patch would leave too few
        assert plan.patch == narrowest[-1].patch or fewest <= plan.steps < 3 * fewest
    assert any(fewest <= plan.steps < enough for plan in narrowest if plan.steps is not None)


@pytest.mark.parametrize("kind", [k for k, e in NETWORKS.items() if issubclass(e.config, ConvUNet)])
def test_strides_kernels_and_widths_are_those_of_nnunet(kind: str) -> None:
    config = NETWORKS[kind].config()
    assert isinstance(config, ConvUNet)
    thick = [facts(f"c{i}", (320, 260, 24), (0.8, 0.8, 5.0)) for i in range(3)]
    plan = planned(config.model_copy(update={"widths": None}), thick, memory_gib=200.0)
    topology = unet_topology((0.8, 0.8, 5.0), (320, 260, 24))
    got = plan.network
    assert isinstance(got, ConvUNet)
    assert got.strides == topology.strides[: len(got.strides or ())]
    assert got.strides is not None and got.strides[1] == (2, 2, 1)
    assert got.kernels is not None and got.kernels[0] == (3, 3, 1) and got.kernels[-1] == (3, 3, 3)
    assert got.widths == feature_counts(len(got.strides), 3)


def test_given_fields_stay() -> None:
    strides = ((1, 1, 1), (2, 2, 2), (2, 2, 1))
    plan = planned(UNetConfig(widths=(8, 16, 24), strides=strides))
    assert isinstance(plan.network, UNetConfig)
    assert (plan.network.widths, plan.network.strides, plan.network.kernels) == ((8, 16, 24), strides, None)
    assert next(r.why for r in plan.reasons if r.what == "widths") == "given as network.widths"
    assert all(p % m == 0 for p, m in zip(plan.patch, (4, 4, 2), strict=True))


def test_more_classes_take_more_memory_for_every_output(network: NetworkBase) -> None:
    made = planned(network, memory_gib=4.0).network
    two, three, more = (step_gib(made, (64,) * made.spatial_dims, 2, classes) for classes in (2, 3, 14))
    assert step_gib(made, (64,) * made.spatial_dims, 2) == step_gib(made, (64,) * made.spatial_dims, 2, 1) == two
    assert more - two == pytest.approx(12 * (three - two))
    single = 2 * 64**made.spatial_dims * 4 / 2**30
    outputs = (three - two) / single / LOSS_COPIES
    if isinstance(made, UNetPlusPlusConfig):
        assert outputs == pytest.approx(len(made.levels) - 1)  # all of full size
    else:
        assert 1.3 > outputs > 1 if made.deep_supervision else outputs == pytest.approx(1)


def test_widths_decide_the_levels() -> None:
    few, many = planned(UNetConfig(widths=(8, 16))), planned(UNetConfig(widths=(4,) * 7))
    assert [len(p.network.strides) for p in (few, many)] == [2, 7]  # type: ignore[union-attr,arg-type]
    assert math.prod(many.network.multiple) > math.prod(few.network.multiple)
    wide = planned(WideUNetConfig())
    assert isinstance(wide.network, WideUNetConfig)
    assert wide.network.widths == (35, 70, 140, 280, 560) and len(wide.network.strides or ()) == 5


def test_widths_that_a_network_refuses_are_not_planned() -> None:
    sizes = PLANNERS["dynunet"].sizes(
        DynUNetConfig(norm="group", strides=((1, 1, 1), (2, 2, 2), (2, 2, 2))), frozenset({"norm"})
    )
    assert [network.widths[0] for network in sizes] == [32, 24, 16, 8]


def planes(*shape: int) -> list[CaseFacts]:
    return [facts(f"c{i}", (shape[0] + i, shape[1]), (0.5, 0.5)) for i in range(5)]


@pytest.mark.parametrize("network", LIGHT.values(), ids=LIGHT)
def test_a_light_encoder_is_planned_for_planes(network: ConvUNet) -> None:
    plan = planned(network, planes(240, 200), memory_gib=4.0)
    made = plan.network
    assert isinstance(made, ConvUNet) and made.light == network.light
    assert (made.spatial_dims, made.multiple, made.norm) == (2, (32, 32), "batch")
    assert plan.patch == (256, 224)
    assert made.widths == made.light.widths  # type: ignore[union-attr]
    reasons = {r.what: r for r in plan.reasons}
    assert reasons["encoder"].value == made.light.name  # type: ignore[union-attr]
    assert "strides" not in reasons and "kernels" not in reasons
    step = step_gib(made, plan.patch, plan.batch)
    assert 0 < step <= 4.0
    # A U-Net as nnU-Net has it costs several times as much arithmetic and more memory.
    whole = planned(type(network)(), planes(240, 200), memory_gib=4.0).network
    assert step_flops(made, (256, 256), 2) < step_flops(whole, (256, 256), 2) / 5
    assert step_gib(made, (256, 256), 2) < step_gib(whole, (256, 256), 2)


@pytest.mark.parametrize("shape", [(60, 16), (12, 12)])
def test_images_that_are_too_small_for_a_light_encoder_are_told_what_would_fit(shape: tuple[int, int]) -> None:
    network = UNetConfig(encoder="efficientnet_b0")
    with pytest.raises(ConfigError, match=r"17 x 17 voxels or more.*encoder = 'plain'") as refused:
        planned(network, planes(*shape))
    spacing = json.loads(re.search(r"spacing_mm = (\[.*?\])", str(refused.value))[1])  # type: ignore[index]
    plan = planned(network, planes(*shape), spacing_mm=spacing)
    assert all(p % 32 == 0 for p in plan.patch)
    assert planned(UNetConfig(), planes(*shape)).patch


def test_a_patch_that_does_not_suit_a_light_encoder_is_refused() -> None:
    with pytest.raises(GeometryError, match="32x32: the nearest right patch is 96x96"):
        planned(UNetConfig(encoder="mobilenet_v2"), planes(240, 200), patch=(100, 100))


@pytest.mark.parametrize("network", [MedNeXtConfig(), SwinUnetrConfig()], ids=lambda network: network.kind)
def test_small_volumes_leave_enough_to_normalise(network: NetworkBase) -> None:
    size = network.multiple[0]
    tiny = [facts(f"c{i}", (size - 4, size - 2, size // 2), (1.0, 1.0, 1.0)) for i in range(3)]
    for memory in (6.0, 1.01 * step_gib(planned(network, tiny).network, (size, 2 * size, size), 2)):
        plan = planned(network, tiny, memory_gib=memory)
        assert plan.patch == (size, 2 * size, size)
    assert any("nothing to normalise" in r.inputs for r in plan.reasons if r.what == "patch")
    with pytest.raises(ConfigError, match=f"{size}.*{2 * size}.*{size} voxels, the smallest"):
        planned(network, tiny, memory_gib=1e-4)
    with pytest.raises(GeometryError, match="single voxel"):
        planned(network, tiny, patch=(size,) * 3)
    with pytest.raises(GeometryError, match="nearest right patch"):
        planned(network, tiny, patch=(size, size, size // 2))
    with pytest.raises(InputError, match="single slices"):
        planned(network, [facts("c", (64, 64, 1), (1.0, 1.0, 5.0))])


def test_a_budget_chooses_the_width_of_a_swin_unetr() -> None:
    plans = [planned(SwinUnetrConfig(), core_minutes=minutes) for minutes in (6, 20, 4000)]
    widths = [plan.network.feature_size for plan in plans]  # type: ignore[attr-defined]
    assert widths == sorted(widths) and len(set(widths)) > 1 and widths[-1] == 48
    assert planned(SwinUnetrConfig(feature_size=96), core_minutes=400).network.feature_size == 96  # type: ignore[union-attr]
    grouped = PLANNERS["swin_unetr"].sizes(SwinUnetrConfig(norm="group"), frozenset({"norm"}))
    assert [network.feature_size for network in grouped] == [48, 24]  # type: ignore[attr-defined]
