"""Parameters and multiply-adds of any network, counted without weights."""

from __future__ import annotations

import pytest

from neoseg.networks.configs import PUBLISHED, UnetrPPConfig
from neoseg.networks.cost import network_cost
from neoseg.networks.counts import rearranged_macs

TOLERANCE = 0.015
"""The count by hand leaves out zeros that are multiplied all the same, and products that do not grow with the tokens"""

FORMS = {
    "flex": {"size": "flex"},
    "free": {"size": "free"},
    "printed": {"as_printed": True, "heads": 1, "fusion": "sum"},
    "spatial": {"branches": "spatial"},
}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_multiply_adds_are_those_of_the_count_by_hand(variant: str) -> None:
    preset = PUBLISHED[variant]
    size = {"in_channels": preset.in_channels, "classes": preset.classes, "patch": preset.patch}
    parts = rearranged_macs(preset.config, **size)
    expected = sum(parts.values()) - parts["normalisations"]
    assert network_cost(preset.config, **size).multiply_adds == pytest.approx(expected, rel=TOLERANCE)


def test_parameters_are_those_of_the_published_network() -> None:
    preset = PUBLISHED["synapse"]
    found = network_cost(preset.config, in_channels=1, classes=14, patch=preset.patch)
    assert found.parameters == 42_952_850


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_counted(form: str) -> None:
    config = UnetrPPConfig.model_validate(
        {"stem": (2, 2, 1), "dims": (8, 16, 32), "depths": (1, 1, 1), "proj": (8, 8, 8), **FORMS[form]}
    )
    found = network_cost(config, in_channels=1, classes=2, patch=(16, 16, 8))
    assert found.multiply_adds > 16 * 16 * 8 * 27 * config.feature_size


def test_planes_are_counted() -> None:
    config = UnetrPPConfig(spatial_dims=2, stem=(2, 2), dims=(8, 16, 32), depths=(1, 1, 1), proj=(8, 8, 8))
    assert network_cost(config, in_channels=1, classes=2, patch=(32, 32)).multiply_adds > 0
