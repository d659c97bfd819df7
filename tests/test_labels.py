from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neoseg.errors import ConfigError, InputError
from neoseg.labels import LabelSet


def test_only_declared_values_are_mapped() -> None:
    labels = LabelSet.of({"core": [1, 255], "rim": 2})
    stored = np.array([[0, 1], [255, 2]], dtype=np.int16)
    np.testing.assert_array_equal(labels.encode(stored, "x.nii"), [[0, 1], [1, 2]])
    np.testing.assert_array_equal(labels.decode(labels.encode(stored, "x.nii")), [[0, 1], [1, 2]])
    assert labels.count == 3


@pytest.mark.parametrize("value", [255.0, 0.99999997, -1.0, float("nan"), 1.5])
def test_other_values_are_named_with_the_file(value: float) -> None:
    with pytest.raises(InputError, match=r"case7\.mha: the label holds the values"):
        LabelSet.of({"lesion": 1}).encode(np.array([0.0, 1.0, value]), "case7.mha")


def test_instances_are_one_class() -> None:
    labels = LabelSet.of({"nucleus": 255}, instances=True)
    np.testing.assert_array_equal(labels.encode(np.array([0, 1, 2, 700], np.uint16), "x"), [0, 1, 1, 1])
    np.testing.assert_array_equal(labels.decode(np.array([0, 1])), [0, 255])
    assert labels.unknown(np.array([0.0, 3.0, -1.0, 0.5, np.nan]))[:2] == [-1.0, 0.5]
    assert labels.unknown(np.array([0.0, 3.0, np.inf])) == [np.inf]
    with pytest.raises(InputError, match=r"a\.png: the label holds the values \[-1\.0\]"):
        labels.encode(np.array([-1, 1]), "a.png")
    with pytest.raises(ConfigError, match="label_instances = true every value is an instance of one class"):
        LabelSet.of({"a": 1, "b": 2}, instances=True)


def test_a_tolerance_takes_rounded_values() -> None:
    labels = LabelSet.of({"lesion": 1}, tolerance=1e-3)
    np.testing.assert_array_equal(labels.encode(np.array([0, 0.99999997, 1e-5, 1]), "x"), [0, 1, 0, 1])
    assert labels.unknown(np.array([0.99, 1.0])) == [0.99]


def test_values_above_255_are_written_as_uint16() -> None:
    assert LabelSet.of({"a": 255}).dtype is np.uint8
    labels = LabelSet.of({"a": 300})
    assert labels.decode(np.array([0, 1])).tolist() == [0, 300]
    assert labels.decode(np.array([1])).dtype == np.uint16


@pytest.mark.parametrize("mapping", [{}, {"a": 0}, {"a": 1, "b": 1}, {"a": [1, 2], "b": 2}, {"a": 1.5}, {"a": 70000}])
def test_bad_label_sets_are_refused(mapping: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        LabelSet.of(mapping)


@given(st.lists(st.integers(1, 65535), min_size=1, max_size=6, unique=True), st.integers(0, 2**31))
def test_decode_undoes_encode(values: list[int], seed: int) -> None:
    labels = LabelSet.of({f"c{v}": v for v in values})
    stored = np.random.default_rng(seed).choice([0, *values], size=(3, 4, 5))
    encoded = labels.encode(stored, "x")
    assert encoded.dtype == np.uint8
    np.testing.assert_array_equal(labels.decode(encoded), stored)
