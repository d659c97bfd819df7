"""The front door: a recorded list of names, each importable, none of them loaded before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import neoseg


@pytest.mark.parametrize("name", neoseg.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(neoseg, name)
    assert name == "__version__" or value.__doc__


def test_the_list_is_complete_and_sorted() -> None:
    assert sorted(neoseg.__all__) == neoseg.__all__ == dir(neoseg)
    assert set(neoseg._HOME_OF) | {"__version__"} == set(neoseg.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="predict_scan"):
        _ = neoseg.predict_scan


def test_importing_loads_none_of_the_heavy_libraries() -> None:
    code = "import sys, neoseg; assert not {'torch', 'numpy', 'scipy', 'pydantic'} & set(sys.modules), sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
