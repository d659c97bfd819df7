"""The planner: spacing, stems, patches, budgets, statistics, and a plan.json that may be edited."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neoseg.errors import ConfigError, GeometryError, InputError
from neoseg.networks.configs import SwinUnetrConfig, UnetrConfig, UnetrPPConfig, required_multiple
from neoseg.plan.budget import FEWEST_STEPS, PATCHES_ON_A_BUDGET, StepSettings
from neoseg.plan.cost import step_core_seconds, step_flops, step_gib
from neoseg.plan.fingerprint import LEVELS, CaseFacts, ChannelFacts
from neoseg.plan.intensity import NormaliseConfig
from neoseg.plan.plan import Plan, PlanConfig, make_plan, read_plan, write_plan
from neoseg.plan.topology import (
    LARGEST_IF,
    finer_for_small_objects,
    levels_for,
    patch_for,
    stem_for,
    target_spacing,
    whole_patch,
)

ADC = ChannelFacts(unit="1e-6 mm2/s", count=1000, mean=1400.0, sd=300.0, low=600.0, high=2800.0)


def facts(case: str, shape: tuple[int, ...], spacing: tuple[float, ...], adc: ChannelFacts = ADC) -> CaseFacts:
    return CaseFacts(
        case=case,
        shape=shape,
        spacing_mm=spacing,
        foreground_shape=shape,
        nonzero_shape=shape,
        foreground_ml=400.0,
        label_ml=(2.0,),
        channels={"adc": adc},
        notes=(),
    )


COHORT = [facts(f"c{i}", (76 + i, 62 + i, 26 + i % 5), (1.4, 1.4, 2.0 + 0.4 * (i % 5))) for i in range(10)]


def planned(
    cases: list[CaseFacts] = COHORT,
    network: UnetrPPConfig | None = None,
    batch: int | None = None,
    normalise: dict[str, NormaliseConfig] | None = None,
    step: StepSettings | None = None,
    **budget: object,
) -> Plan:
    return make_plan(
        cases,
        channels=("adc", "zadc"),
        network=network or UnetrPPConfig(),
        normalise=normalise or {},
        config=PlanConfig.model_validate(budget),
        step=step or StepSettings(batch),
        inputs="k",
    )


def test_spacing_is_the_median_unless_one_axis_is_very_coarse() -> None:
    assert target_spacing([(1, 1, 2), (1, 1, 3), (2, 1, 3)], [(50, 50, 20)] * 3) == (1.0, 1.0, 3.0)
    # 5 mm slices on 0.7 mm pixels: more than 3 times coarser and fewer than a third of the voxels -> 10th percentile
    spacings = [(0.7, 0.7, z) for z in (2.0, 3.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0)]
    assert target_spacing(spacings, [(320, 320, 20)] * 11) == (0.7, 0.7, 3.0)
    # where the 10th percentile is finer than the other axes, the coarsest of them counts
    fine = [(0.7, 0.7, z) for z in (0.3, 0.3, 5.0, 5.0, 5.0)]
    assert target_spacing(fine, [(320, 320, 20)] * 5) == pytest.approx((0.7, 0.7, 0.7), abs=1e-4)


def test_pictures_with_small_objects_get_pixels_of_half_the_side() -> None:
    assert finer_for_small_objects((1, 1), (256, 320), [12.0, 30.0, 40.0, 50.0, 50.0, 19.0]) is None
    assert finer_for_small_objects((1, 0.9), (256, 320), [12.0, 19.0, 18.0, 50.0, 50.0]) == (0.5, 0.45)
    assert finer_for_small_objects((1, 1), (512, 513), [12.0]) is None, "too large"
    assert finer_for_small_objects((1, 1), (256, 256), []) is None, "no labels"
    pictures = [
        facts(f"p{i}", (256, 320), (2.0, 2.0)).model_copy(update={"unit": "px", "object_px": width})
        for i, width in enumerate((9.0, 15.0, 80.0, 80.0))
    ]
    plan = planned(pictures)
    assert plan.spacing_mm == (1.0, 1.0)
    assert [r.value for r in plan.reasons if r.what.endswith("spacing")] == ["2 x 2", "1 x 1"]
    assert planned(pictures, spacing_mm=(2.0, 2.0)).spacing_mm == (2.0, 2.0)
    # diameters count in pixels of the grid that the plan would have: 30 of half the side are 15 of these
    mixed = [f.model_copy(update={"object_px": 30.0}) for f in (*pictures, pictures[0])]
    fine = [f.model_copy(update={"spacing_mm": (1.0, 1.0)}) for f in mixed[:2]]
    assert planned(mixed).spacing_mm == (2.0, 2.0)
    assert planned([*fine, *mixed[2:]]).spacing_mm == (1.0, 1.0)


@pytest.mark.parametrize(
    ("spacing", "shape", "stem"),
    [
        ((1.0, 1.0, 1.0), (35, 50, 36), (2, 2, 2)),
        ((1.4, 1.4, 2.2), (80, 64, 20), (2, 2, 1)),
        ((1.4, 1.4, 2.2), (80, 64, 30), (4, 4, 2)),
        ((1.0, 1.0, 1.0), (128, 128, 128), (4, 4, 4)),
        ((0.76, 0.76, 3.0), (320, 260, 60), (4, 4, 1)),
        ((1.0, 1.0), (128, 128), (2, 2)),
        ((1.0, 1.0), (256, 256), (4, 4)),
        ((0.5, 2.0), (256, 64), (4, 1)),
    ],
)
def test_stem_makes_tokens_near_to_cubes(
    spacing: tuple[float, ...], shape: tuple[int, ...], stem: tuple[int, ...]
) -> None:
    assert stem_for(spacing, shape) == stem


@pytest.mark.parametrize(
    ("typical", "largest", "multiple", "patch", "whole"),
    [
        # newborn heads: the largest costs 1.2 times the typical one
        ((80, 66, 40), (85, 71, 40), (16, 16, 8), (96, 80, 40), True),
        # 1 mm hippocampus crops: 1.65 times
        ((35, 50, 35), (43, 59, 46), (8, 8, 8), (40, 56, 40), False),
        # one giant among small volumes
        ((40, 40, 40), (400, 400, 400), (8, 8, 8), (40, 40, 40), False),
        # all alike
        ((64, 64, 64), (64, 64, 64), (16, 16, 16), (64, 64, 64), True),
        ((3, 3, 1), (3, 3, 2), (16, 16, 8), (16, 16, 8), True),
    ],
)
def test_the_largest_volume_is_covered_where_that_costs_little(
    typical: tuple[int, ...], largest: tuple[int, ...], multiple: tuple[int, ...], patch: tuple[int, ...], whole: bool
) -> None:
    assert whole_patch(largest, typical, multiple) == (patch, whole)
    assert math.prod(patch) <= LARGEST_IF * math.prod(
        math.ceil(t / m) * m for t, m in zip(typical, multiple, strict=True)
    )


@given(
    typical=st.tuples(*[st.integers(1, 300)] * 3),
    grow=st.tuples(*[st.floats(1, 2)] * 3),
    multiple=st.tuples(*[st.sampled_from([8, 16, 32])] * 3),
    budget=st.integers(10_000, 3_000_000),
)
def test_patch_is_a_multiple_within_the_budget(
    typical: tuple[int, int, int],
    grow: tuple[float, float, float],
    multiple: tuple[int, int, int],
    budget: int,
) -> None:
    largest = tuple(int(n * g) for n, g in zip(typical, grow, strict=True))
    wanted, whole = whole_patch(largest, typical, multiple)
    assert all(p >= n for p, n in zip(wanted, largest if whole else typical, strict=True))
    patch = patch_for(wanted, typical, multiple, budget)
    assert all(p % m == 0 and m <= p <= w for p, m, w in zip(patch, multiple, wanted, strict=True))
    assert math.prod(patch) <= budget or patch == multiple
    less = patch_for(wanted, typical, multiple, budget * 0.7)
    assert all(a <= b for a, b in zip(less, patch, strict=True))


def test_plan_covers_the_head_and_fits_the_network() -> None:
    plan = planned(memory_gib=20.0)
    # the typical head has 80 x 66 x 28 voxels; the largest, 85 x 71 x 39, would cost 1.5 times as much
    assert plan.patch == (80, 80, 32)
    assert all(p % m == 0 for p, m in zip(plan.patch, required_multiple(plan.network), strict=True))
    assert plan.rules == {"adc": "dataset", "zadc": "none"}
    assert plan.statistics["adc"].mean == 1400.0
    assert {r.what for r in plan.reasons} >= {"spacing", "stem", "patch", "batch", "memory", "dims", "levels"}
    assert all(r.why and r.inputs for r in plan.reasons)


def test_demo_and_hippocampus_get_the_patches_that_were_measured() -> None:
    heads = [
        facts(f"c{i}", shape, (1.375, 1.375, 2.65))
        for i, shape in enumerate([(59, 71, 30), (64, 78, 33), (64, 79, 33), (69, 86, 36)])
    ]
    assert planned(heads, core_minutes=3.5).patch == (48, 48, 24)
    crops = [facts(f"c{i}", s, (1.0, 1.0, 1.0)) for i, s in enumerate([(35, 50, 35), (34, 49, 35), (43, 59, 46)])]
    small = UnetrPPConfig(dims=(32, 64, 128), depths=(1, 1, 1), proj=(32, 32, 32), decoder_proj=32)
    assert planned(crops, small, batch=4).patch == (40, 56, 40)


def test_more_budget_buys_more_steps_or_a_wider_network() -> None:
    small, large = planned(core_minutes=1.0), planned(core_minutes=500.0)
    assert small.steps is not None and large.steps is not None
    assert large.network.dims[0] > small.network.dims[0]
    assert large.steps * step_flops(large.network, large.patch, 2) > 100 * small.steps * step_flops(
        small.network, small.patch, 2
    )
    assert planned().steps is None
    assert planned().network.dims == (32, 64, 128)


def test_a_budget_shows_several_patches_a_step() -> None:
    plan = planned(core_minutes=2.0)
    assert plan.batch >= PATCHES_ON_A_BUDGET
    assert plan.batch * math.prod(plan.patch) <= 400_000


def test_levels_keep_four_tokens_an_axis_at_the_bottom() -> None:
    assert levels_for((4, 4, 4), (128, 128, 128)) == 4
    assert levels_for((2, 2, 2), (35, 50, 36)) == 3
    assert levels_for((2, 4, 4), (64, 128, 128)) == 4


@settings(deadline=None)
@given(memory=st.floats(0.1, 8), batch=st.sampled_from([None, 1, 4]))
def test_memory_bounds_the_whole_step(memory: float, batch: int | None) -> None:
    less, more = planned(memory_gib=memory, batch=batch), planned(memory_gib=memory * 1.5, batch=batch)
    for plan, bound in ((less, memory), (more, memory * 1.5)):
        assert step_gib(plan.network, plan.patch, plan.batch) <= bound
        assert plan.batch == batch or (batch is None and plan.batch >= 2)
    assert_no_larger(less, more)


@settings(deadline=None)
@given(minutes=st.floats(0.05, 300))
def test_core_minutes_bound_network_and_patch(minutes: float) -> None:
    less, more = planned(core_minutes=minutes), planned(core_minutes=minutes * 1.5)
    for plan, budget in ((less, minutes), (more, minutes * 1.5)):
        assert plan.steps is not None and plan.steps >= FEWEST_STEPS[len(plan.patch)]
        seconds = plan.steps * step_core_seconds(plan.network, plan.patch, 2, plan.batch)
        assert seconds <= 60 * budget * 1.0001
    assert_no_larger(less, more)


def assert_no_larger(less: Plan, more: Plan) -> None:
    """A smaller budget gives a smaller network, or the same network and a patch that is nowhere longer."""
    size_less, size_more = (step_flops(p.network, (64, 64, 64), 2) for p in (less, more))
    assert size_less <= size_more
    if size_less == size_more:
        assert all(a <= b for a, b in zip(less.patch, more.patch, strict=True))


def test_float32_gets_less_for_the_same_core_minutes() -> None:
    fast, slow = (planned(core_minutes=60, step=StepSettings(2, b)) for b in (True, False))
    assert fast.steps is not None and slow.steps is not None
    assert fast.network == slow.network
    assert 1.8 < fast.steps / slow.steps < 3.0
    assert_no_larger(planned(core_minutes=3.5, step=StepSettings(None, False)), planned(core_minutes=3.5))


def test_very_little_time_gives_a_smaller_patch() -> None:
    assert math.prod(planned(core_minutes=0.05).patch) < math.prod(planned(core_minutes=3.5).patch)


@pytest.mark.parametrize(("key", "value"), [("memory_gib", 0.001), ("core_minutes", 1e-4)])
def test_too_small_a_budget_is_told_with_the_least_that_would_do(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"plan\.{key} = .*allow at least that") as caught:
        planned(**{key: value})
    unit = "GiB" if key == "memory_gib" else "core-minutes"
    least = float(str(caught.value).split(f" {unit}")[0].split()[-1])
    plan = planned(**{key: least})
    assert plan.patch == required_multiple(plan.network)
    with pytest.raises(ConfigError, match="allow at least that"):
        planned(**{key: least * 0.85})


def test_a_given_patch_beyond_the_memory_is_said() -> None:
    plan = planned(patch=(96, 80, 40), memory_gib=0.5)
    assert plan.patch == (96, 80, 40)
    memory = next(r for r in plan.reasons if r.what == "memory")
    assert memory.value.endswith(" GiB, over plan.memory_gib = 0.5")
    assert "more than that" in memory.why


def test_cost_grows_with_size() -> None:
    config = UnetrPPConfig(stem=(2, 4, 4))
    # The published network counts 47.9 G multiply-adds for one forward pass of its patch.
    assert step_flops(config, (64, 128, 128), 1) / 6 == pytest.approx(47.9e9, rel=0.1)


def test_cost_of_a_plane_is_that_of_its_network() -> None:
    from neoseg.networks.counts import published_macs

    config = UnetrPPConfig(spatial_dims=2, stem=(2, 2), dims=(16, 32, 64), depths=(2, 2, 2), proj=(32, 32, 32))
    counted = sum(published_macs(config, in_channels=3, classes=2, patch=(64, 96)).values())
    assert step_flops(config, (64, 96), 3) / 6 == pytest.approx(counted, rel=0.1)


def test_a_ct_channel_gets_its_window_and_its_reason() -> None:
    labelled = {"mean": 60.0, "sd": 20.0, "percentiles": tuple(np.linspace(0, 120, len(LEVELS)))}
    ct = ChannelFacts.model_validate({**ADC.model_dump(), "unit": "HU", "labelled": labelled})
    cases = [facts(f"c{i}", (80, 80, 40), (1.4, 1.4, 2.0), ct) for i in range(4)]
    plan = planned(cases)
    assert plan.rules["adc"] == "ct"
    assert plan.statistics["adc"].low is not None
    assert "clipped to" in next(r.inputs for r in plan.reasons if r.what == "normalise adc")
    with pytest.raises(InputError, match="labelled voxels"):
        planned(normalise={"adc": NormaliseConfig(rule="ct")})


def test_volumes_and_channels_that_tell_nothing_are_named() -> None:
    with pytest.raises(
        InputError, match=r"single slices: at 1 x 1 x 5 mm .*80 x 80 x 1 voxels.*PNG, TIFF, or 2-D \.mha"
    ):
        planned([facts(f"c{i}", (80, 80, 1), (1.0, 1.0, 5.0)) for i in range(4)])
    with pytest.raises(InputError, match=r"single rows or columns: at 1 x 1 mm .*900 x 1 pixels.*give larger pictures"):
        planned([facts(f"c{i}", (900, 1), (1.0, 1.0)) for i in range(4)])
    flat = ADC.model_copy(update={"sd": 0.0})
    with pytest.raises(InputError, match="'adc' has the value 1400"):
        planned([facts(f"c{i}", (80, 80, 40), (1.4, 1.4, 2.0), flat) for i in range(4)])


def test_an_edited_plan_is_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_plan(planned(), path)
    tree = json.loads(path.read_text())
    tree["batch"] = 7
    path.write_text(json.dumps(tree))
    assert read_plan(path).batch == 7


EDITS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({"batchsize": 3}, r"'batchsize' is not known \(did you mean 'batch'"),
    "a patch that does not suit": ({"patch": [50, 48, 24]}, "nearest right patch is 48x48x24"),
    "a patch of two axes": ({"patch": [48, 48]}, "spacing_mm has 3 axes and patch has 2"),
    "half a voxel": ({"patch": [48, 48, 24.5]}, "patch.2"),
    "no spacing": ({"spacing_mm": [1.4, 1.4, 0.0]}, "spacing_mm.2"),
    "NaN": ({"spacing_mm": [1.4, 1.4, float("nan")]}, "spacing_mm.2"),
    "a word for a number": ({"batch": "many"}, "batch"),
    "no batch": ({"batch": 0}, "batch"),
    "a channel without a rule": ({"channels": ["adc", "zadc", "t2"]}, "name the same"),
    "a rule that does not exist": ({"rules": {"adc": "zscore", "zadc": "none"}}, "rules.adc"),
    "a rule to be decided": ({"rules": {"adc": "auto", "zadc": "none"}}, "'auto' is decided"),
    "a rule without statistics": ({"rules": {"adc": "dataset", "zadc": "dataset"}}, "statistics.zadc"),
    "a window without ends": ({"rules": {"adc": "ct", "zadc": "none"}}, "low and high"),
    "no spread": ({"statistics": {"adc": {"mean": 1.0, "sd": 0.0}}}, "statistics.adc.sd"),
    "a network without a stem": ({"network": {"kind": "unetr_pp"}}, "network.stem"),
    "a network of another kind": ({"network": {"kind": "unet"}}, "network"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_wrong_edit_is_named(tmp_path: Path, edit: str) -> None:
    change, words = EDITS[edit]
    path = tmp_path / "plan.json"
    write_plan(planned(), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=words) as caught:
        read_plan(path)
    assert str(path) in str(caught.value)
    assert "delete the file" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "3", "\x00"])
def test_a_plan_that_is_no_plan_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"plan\.json"):
        read_plan(path)


def test_wrong_overrules_are_named() -> None:
    with pytest.raises(ConfigError, match=r"plan\.patch: 2 numbers"):
        planned(patch=(64, 64))
    with pytest.raises(ConfigError, match=r"plan\.spacing_mm: 2 numbers"):
        planned(spacing_mm=(1.0, 1.0))
    with pytest.raises(GeometryError, match="nearest right patch"):
        planned(patch=(64, 64, 63))


def test_more_classes_never_give_a_larger_patch() -> None:
    counts = (1, 2, 3, 14, 40, 120)
    plans = [planned(memory_gib=1.0, step=StepSettings(2, classes=count)) for count in counts]
    for plan, count in zip(plans, counts, strict=True):
        assert step_gib(plan.network, plan.patch, plan.batch, count) <= 1.0
    assert plans[0].decisions() == plans[1].decisions()
    for fewer, more in pairwise(plans):
        assert all(a >= b for a, b in zip(fewer.patch, more.patch, strict=True))
    assert math.prod(plans[-1].patch) < math.prod(plans[0].patch)


@pytest.mark.parametrize(
    "config",
    [UnetrPPConfig(stem=(2, 4, 4)), UnetrConfig(patch_size=(16, 16, 16)), SwinUnetrConfig()],
    ids=lambda config: config.kind,
)
def test_checkpointing_takes_less_memory_and_no_less_time(config: Any) -> None:
    forms = [config.model_copy(update={"checkpointing": form}) for form in ("none", "full_size", "all")]
    gib = [step_gib(form, (96, 96, 96), 2) for form in forms]
    assert gib[0] > gib[1] > gib[2] > 0.1 * gib[0]
    assert len({step_core_seconds(form, (96, 96, 96), 1, 2) for form in forms}) == 1
