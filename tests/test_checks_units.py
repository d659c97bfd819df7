from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neoseg.data.units import UNITS_OF_ADC, adc_unit, channel_kind, factor_to_micro
from neoseg.errors import InputError


@given(st.floats(300, 3000))
def test_every_plausible_median_is_recognised_in_every_unit(micro: float) -> None:
    for unit in UNITS_OF_ADC:
        told = adc_unit(micro / factor_to_micro(unit))
        assert factor_to_micro(told) == factor_to_micro(unit)


@pytest.mark.parametrize("median", [0.0, -800.0, 20.0, 1e5, float("nan"), float("inf")])
def test_implausible_medians_have_no_unit(median: float) -> None:
    assert adc_unit(median) == ""


def test_factors() -> None:
    assert factor_to_micro("1e-6 mm2/s") == 1
    assert factor_to_micro("1e-3 mm2/s") == 1e3
    assert factor_to_micro("mm2/s") == 1e6
    with pytest.raises(InputError, match="'HU' is not one of an ADC map"):
        factor_to_micro("HU")


def test_kinds_of_channels() -> None:
    names = ("adc", "ADC", "zadc", "Z_ADC", "CT", "ct_portal", "T1w", "contrast", "image")
    assert [channel_kind(n) for n in names] == ["adc", "adc", "z", "z", "ct", "ct", "mr", "mr", "mr"]


@pytest.mark.parametrize("name", ["headcoil_t1", "broadcast", "deadcells", "badcase"])
def test_adc_within_a_word_is_none(name: str) -> None:
    assert channel_kind(name) == "mr"


@pytest.mark.parametrize("name", ["ADC", "adcmap", "dwi_adc", "meanADC", "adc2", "ss-adc_map"])
def test_adc_at_either_end_of_a_word_is_one(name: str) -> None:
    assert channel_kind(name) == "adc"
    assert channel_kind("ss_zadc") == channel_kind("ZADC") == "z"
