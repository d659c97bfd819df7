"""nnU-Net's rules for convolutional U-Nets: equal to what nnU-Net 2.8.1 itself computes, number by number."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neoseg.errors import ConfigError
from neoseg.plan.comparison import compared_with_nnunet
from neoseg.plan.conv_unet import (
    PRESETS,
    Preset,
    conv_elements,
    feature_counts,
    first_patch,
    plan_unet,
    plan_unets,
    unet_topology,
)
from neoseg.plan.fingerprint import CaseFacts

REFERENCE: dict[str, Any] = json.loads((Path(__file__).parent / "references" / "nnunet_planning.json").read_text())
COHORTS = {(c["name"], preset): c for c in REFERENCE["cohorts"] for preset in c["plans"]}


def strides(stages: int, axes: int) -> list[tuple[int, ...]]:
    return [(1,) * axes] + [(2,) * axes] * (stages - 1)


def test_costs_that_were_measured() -> None:
    assert conv_elements((128, 128, 128), strides(6, 3), classes=2, deep_supervision=True) == 451_298_304
    assert conv_elements((512, 512), strides(7, 2), classes=2, deep_supervision=True) == 82_684_416


@pytest.mark.parametrize(
    ("spacing", "size", "pools", "patch", "kernel"),
    [
        ((2, 1.5, 1.5), (51, 81, 67), (3, 4, 4), (56, 96, 80), (3, 3, 3)),
        ((3, 1.5, 1.5), (32, 224, 224), (3, 5, 5), (32, 224, 224), (1, 3, 3)),
        ((5, 0.7, 0.7), (20, 320, 320), (2, 6, 6), (20, 320, 320), (1, 3, 3)),
        ((1, 1, 1), (128, 128, 128), (5, 5, 5), (128, 128, 128), (3, 3, 3)),
    ],
)
def test_topologies_that_were_measured(
    spacing: tuple[float, ...],
    size: tuple[int, ...],
    pools: tuple[int, ...],
    patch: tuple[int, ...],
    kernel: tuple[int, ...],
) -> None:
    found = unet_topology(spacing, size)
    assert (found.pools, found.patch, found.kernels[0]) == (pools, patch, kernel)
    assert found.kernels[-1] == (3, 3, 3)
    assert found.strides[0] == (1, 1, 1)


@pytest.mark.parametrize("row", REFERENCE["topologies"], ids=lambda r: f"{r['spacing']}-{r['size']}-{r['residual']}")
def test_topology_and_cost_are_those_of_nnunet(row: dict[str, Any]) -> None:
    found = unet_topology(row["spacing"], row["size"])
    assert list(found.pools) == row["pools"]
    assert list(found.patch) == row["patch"]
    assert [list(k) for k in found.kernels] == row["kernels"]
    cost = conv_elements(
        found.patch, found.strides, classes=row["classes"], residual=row["residual"], deep_supervision=True
    )
    assert cost == row["cost"]


@pytest.mark.parametrize(("name", "preset"), list(COHORTS))
def test_whole_plans_are_those_of_nnunet(name: str, preset: str) -> None:
    cohort = COHORTS[name, preset]
    expected = cohort["plans"][preset]
    # nnU-Net's lists run along z, y, x and then with the coarsest axis in front; ours along x, y, z
    found = plan_unets(
        [s[::-1] for s in cohort["spacings"]],
        [s[::-1] for s in cohort["shapes"]],
        classes=cohort["classes"],
        preset=PRESETS[preset],
    )
    assert set(found) == set(expected["configurations"])
    for key, theirs in expected["configurations"].items():
        ours = found[key]
        order = [ours.axes.index(2 - a) for a in expected["transpose"][3 - len(theirs["patch"]) :]]

        def along(values: tuple[Any, ...], order: list[int] = order) -> list[Any]:
            return [values[i] for i in order]

        assert along(ours.topology.patch) == theirs["patch"]
        assert [along(s) for s in ours.topology.strides] == theirs["strides"]
        assert [along(k) for k in ours.topology.kernels] == theirs["kernels"]
        assert along(ours.spacing_mm) == pytest.approx(theirs["spacing"], abs=1e-9)
        assert (ours.batch, ours.elements, list(ours.features)) == (theirs["batch"], theirs["cost"], theirs["features"])


@given(
    spacing=st.tuples(*[st.floats(0.3, 8)] * 3),
    size=st.tuples(*[st.integers(1, 400)] * 3),
    turn=st.permutations(range(3)),
)
def test_topology_keeps_its_promises_whatever_the_order_of_axes(
    spacing: tuple[float, ...], size: tuple[int, ...], turn: list[int]
) -> None:
    found = unet_topology(spacing, size)
    assert all(p % m == 0 and n <= p < n + m for p, m, n in zip(found.patch, found.multiple, size, strict=True))
    assert all(p // m >= 4 or n < 8 for p, m, n in zip(found.patch, found.multiple, size, strict=True))
    for axis in range(3):
        along = [kernel[axis] for kernel in found.kernels]
        assert along == sorted(along)
    turned = unet_topology([spacing[a] for a in turn], [size[a] for a in turn])
    assert turned.patch == tuple(found.patch[a] for a in turn)
    assert turned.pools == tuple(found.pools[a] for a in turn)


@given(st.floats(0.05, 40), st.sampled_from(list(PRESETS)))
def test_a_smaller_budget_never_gives_a_larger_patch(share: float, name: str) -> None:
    preset = PRESETS[name]
    less = Preset("less", preset.residual, 8, share * 1e8, 1e8, preset.dataset_share)
    more = Preset("more", preset.residual, 8, share * 1.3e8, 1e8, preset.dataset_share)
    sizes = []
    for budget in (less, more):
        found = plan_unet((1.0, 1.0, 1.0), (160, 190, 150), voxels=1e9, classes=2, preset=budget)
        assert found.elements <= found.allowed
        assert found.batch >= 2
        sizes.append(math.prod(found.topology.patch))
    assert sizes[0] <= sizes[1]


def test_a_batch_holds_at_most_a_twentieth_of_the_data() -> None:
    typical = (40, 56, 40)
    voxels = 182 * math.prod(typical)
    found = plan_unet((1.0, 1.0, 1.0), typical, voxels=voxels, classes=3, preset=PRESETS["plain"])
    assert found.batch == round(0.05 * voxels / math.prod(found.topology.patch)) == 9
    assert found.batch_bound == "data"
    few = plan_unet((1.0, 1.0, 1.0), typical, voxels=voxels / 10, classes=3, preset=PRESETS["plain"])
    assert (few.batch, few.batch_bound) == (2, "least")


def test_first_patch_is_a_cube_in_mm_within_the_typical_volume() -> None:
    assert first_patch((1, 1, 1), (400, 400, 400)) == (256, 256, 256)
    assert first_patch((4, 1, 1), (400, 1000, 1000)) == (102, 406, 406)
    assert first_patch((1, 1), (3000, 500)) == (2048, 500)


def test_widths_double_up_to_a_limit() -> None:
    assert feature_counts(7, 3) == (32, 64, 128, 256, 320, 320, 320)
    assert feature_counts(7, 2) == (32, 64, 128, 256, 512, 512, 512)


def test_a_budget_that_no_patch_keeps_within_is_told() -> None:
    tiny = Preset("tiny", False, 8, 10, 10, 0.05)
    with pytest.raises(ConfigError, match="cannot be cut below"):
        plan_unet((1.0, 1.0, 1.0), (64, 64, 64), voxels=1e8, classes=2, preset=tiny)


def test_the_comparison_says_what_nnunet_would_choose() -> None:
    cohort = COHORTS["abdomen CT", "plain"]
    facts = [
        CaseFacts(
            case=f"c{i}",
            shape=tuple(shape[::-1]),
            spacing_mm=tuple(spacing[::-1]),
            foreground_shape=tuple(shape[::-1]),
            nonzero_shape=tuple(shape[::-1]),
            foreground_ml=1000.0,
            label_ml=(1.0, 1.0),
            channels={},
            notes=(),
        )
        for i, (spacing, shape) in enumerate(zip(cohort["spacings"], cohort["shapes"], strict=True))
    ]
    told = {r.what: r for r in compared_with_nnunet(facts, classes=3)}
    plain = told["nnU-Net 3d_fullres (plain U-Net, 8 GB)"]
    patch = cohort["plans"]["plain"]["configurations"]["3d_fullres"]["patch"]
    assert plain.value.startswith(f"patch {patch[2]} x {patch[1]} x {patch[0]}, batch 2,")
    assert "560,000,000 allowed" in plain.inputs
    assert "nnU-Net 3d_lowres (plain U-Net, 8 GB)" in told
    assert "nnU-Net 3d_lowres (residual encoder L, 24 GB)" not in told
