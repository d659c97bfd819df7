"""The planner: nnU-Net's spacing rule on its examples, stems, patches, budgets, and a plan.json that may be edited."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neoseg.errors import ConfigError
from neoseg.networks.configs import UnetrPPConfig, required_multiple
from neoseg.plan.cost import step_flops, step_gib
from neoseg.plan.fingerprint import CaseFacts, ChannelFacts, pooled_statistics
from neoseg.plan.plan import PlanConfig, make_plan, read_plan, write_plan
from neoseg.plan.topology import levels_for, patch_for, stem_for, target_spacing


def facts(case: str, shape: tuple[int, ...], spacing: tuple[float, ...], unit: str = "1e-6 mm2/s") -> CaseFacts:
    adc = ChannelFacts(unit=unit, count=1000, mean=1400.0, sd=300.0, low=600.0, high=2800.0)
    return CaseFacts(
        case=case,
        shape=shape,
        spacing_mm=spacing,
        foreground_shape=shape,
        foreground_ml=400.0,
        label_ml=(2.0,),
        channels={"adc": adc},
        notes=(),
    )


COHORT = [facts(f"c{i}", (76 + i, 62 + i, 26 + i % 5), (1.4, 1.4, 2.0 + 0.4 * (i % 5))) for i in range(10)]


def test_spacing_is_the_median_unless_one_axis_is_very_coarse() -> None:
    assert target_spacing([(1, 1, 2), (1, 1, 3), (2, 1, 3)], [(50, 50, 20)] * 3) == (1.0, 1.0, 3.0)
    # 5 mm slices on 0.7 mm pixels: more than 3 times coarser and fewer than a third of the voxels -> 10th percentile
    spacings = [(0.7, 0.7, z) for z in (2.0, 3.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0)]
    assert target_spacing(spacings, [(320, 320, 20)] * 11) == (0.7, 0.7, 3.0)


@pytest.mark.parametrize(
    ("spacing", "shape", "stem"),
    [
        ((1.0, 1.0, 1.0), (35, 50, 36), (2, 2, 2)),
        ((1.4, 1.4, 2.2), (80, 64, 20), (2, 2, 1)),
        ((1.4, 1.4, 2.2), (80, 64, 30), (4, 4, 2)),
        ((1.0, 1.0, 1.0), (128, 128, 128), (4, 4, 4)),
        ((0.76, 0.76, 3.0), (320, 260, 60), (4, 4, 1)),
    ],
)
def test_stem_makes_tokens_near_to_cubes(
    spacing: tuple[float, ...], shape: tuple[int, ...], stem: tuple[int, ...]
) -> None:
    assert stem_for(spacing, shape) == stem


@given(
    largest=st.tuples(*[st.integers(1, 300)] * 3),
    multiple=st.tuples(*[st.sampled_from([8, 16, 32])] * 3),
    budget=st.integers(10_000, 3_000_000),
)
def test_patch_is_a_multiple_within_the_budget_and_whole_when_it_can_be(
    largest: tuple[int, int, int], multiple: tuple[int, int, int], budget: int
) -> None:
    patch, whole = patch_for(largest, largest, multiple, budget)
    assert all(p % m == 0 for p, m in zip(patch, multiple, strict=True))
    smallest = patch == multiple
    assert patch[0] * patch[1] * patch[2] <= budget or smallest
    assert not whole or all(p >= n for p, n in zip(patch, largest, strict=True))


def planned(**budget: object) -> object:
    return make_plan(
        COHORT,
        channels=("adc", "zadc"),
        network=UnetrPPConfig(),
        normalise={},
        config=PlanConfig.model_validate(budget),
        batch=None,
        inputs="k",
    )


def test_plan_covers_the_head_and_fits_the_network() -> None:
    plan = planned(memory_gib=20.0)
    assert plan.patch == (96, 80, 40)
    assert all(p % m == 0 for p, m in zip(plan.patch, required_multiple(plan.network), strict=True))
    assert plan.rules == {"adc": "dataset", "zadc": "none"}
    assert plan.statistics["adc"].mean == 1400.0
    assert {r.what for r in plan.reasons} >= {"spacing", "stem", "patch", "batch", "dims", "levels"}


def test_more_budget_buys_more_steps_or_a_wider_network() -> None:
    small, large = planned(core_minutes=1.0), planned(core_minutes=500.0)
    assert large.network.dims[0] > small.network.dims[0]
    assert large.steps * step_flops(large.network, large.patch, 2) > 100 * small.steps * step_flops(
        small.network, small.patch, 2
    )
    assert planned().steps is None
    assert planned().network.dims == (32, 64, 128)


def test_a_budget_shows_several_patches_a_step() -> None:
    plan = planned(core_minutes=2.0)
    assert plan.batch >= 6
    assert plan.batch * plan.patch[0] * plan.patch[1] * plan.patch[2] <= 400_000


def test_levels_keep_four_tokens_an_axis_at_the_bottom() -> None:
    assert levels_for((4, 4, 4), (128, 128, 128)) == 4
    assert levels_for((2, 2, 2), (35, 50, 36)) == 3
    assert levels_for((2, 4, 4), (64, 128, 128)) == 4


def test_memory_bounds_the_patch() -> None:
    tight, wide = planned(memory_gib=0.3), planned(memory_gib=20.0)
    assert step_gib(tight.network, tight.patch, 1) <= 0.3
    assert wide.patch == (96, 80, 40)


def test_cost_grows_with_size() -> None:
    config = UnetrPPConfig(stem=(2, 4, 4))
    # The published network counts 47.9 G multiply-adds for one forward pass of its patch.
    assert step_flops(config, (64, 128, 128), 1) / 6 == pytest.approx(47.9e9, rel=0.1)


def test_an_edited_plan_is_obeyed_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_plan(planned(), path)
    tree = json.loads(path.read_text())
    tree["batch"] = 7
    path.write_text(json.dumps(tree))
    assert read_plan(path).batch == 7
    tree["batchsize"] = 3
    path.write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match="batchsize"):
        read_plan(path)


def test_wrong_number_of_axes_is_named() -> None:
    with pytest.raises(ConfigError, match=r"plan\.patch: 2 numbers"):
        planned(patch=(64, 64))


def test_pooled_statistics_are_those_of_all_voxels() -> None:
    def with_stats(count: int, mean: float, sd: float) -> CaseFacts:
        channel = ChannelFacts(unit="", count=count, mean=mean, sd=sd, low=0, high=1)
        return COHORT[0].model_copy(update={"channels": {"t1": channel}})

    # 3 voxels of value 1 and 1 voxel of value 5: mean 2, sd sqrt(3)
    mean, sd = pooled_statistics([with_stats(3, 1.0, 0.0), with_stats(1, 5.0, 0.0)], "t1")
    assert (mean, sd) == pytest.approx((2.0, 3**0.5))
