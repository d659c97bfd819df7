"""The front door: a recorded list of names, each importable, none of them loaded before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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


def test_paths_may_be_text(tmp_path: Path, blobs: Callable[[Path, int, int], None]) -> None:
    blobs(tmp_path / "data", 3, 0)
    imported = neoseg.import_folder(str(tmp_path / "data"), str(tmp_path / "work"))
    config = neoseg.load_config(str(imported.config), workspace=str(tmp_path / "work"))
    assert config == neoseg.load_config(imported.config)
    cases = neoseg.read_cases(str(config.cases))
    neoseg.write_cases(cases, str(tmp_path / "work" / "again.csv"))
    assert neoseg.read_cases(tmp_path / "work" / "again.csv") == cases
    image = neoseg.read_volume(str(next(iter(cases[0].images.values()))))
    neoseg.write_volume(image, str(tmp_path / "a.mha"))
    assert (neoseg.read_volume(tmp_path / "a.mha").array == image.array).all()
    labels = str(tmp_path / "data" / "labels")
    found = neoseg.evaluate_folders(labels, labels, output=str(tmp_path / "scores.csv"))
    assert len(found["cases"]) == 3
    assert (tmp_path / "scores.csv").is_file()
    with pytest.raises(neoseg.StateError, match="finished run"):
        neoseg.load_predictor(str(tmp_path))
    with pytest.raises(neoseg.StateError, match="finished run"):
        neoseg.predict_scans(str(tmp_path), str(tmp_path / "data"), str(tmp_path / "out"))
