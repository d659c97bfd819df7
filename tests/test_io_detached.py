"""Header files with their voxels elsewhere: which files those are, and that a change in them is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses

from neoseg.data.cases import Case
from neoseg.errors import InputError
from neoseg.io import detached_files, read_volume
from neoseg.pipeline.session import Session


def names(path: Path) -> list[str]:
    return [file.name for file in detached_files(path)]


def write(path: Path, value: int = 0) -> None:
    array = np.full((3, 4, 5), value, dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


@pytest.mark.parametrize(("ending", "expected"), [("mhd", ["a.raw"]), ("nhdr", ["a.raw"]), ("mha", []), ("nrrd", [])])
def test_the_files_that_itk_writes(tmp_path: Path, ending: str, expected: list[str]) -> None:
    write(tmp_path / f"a.{ending}")
    assert names(tmp_path / f"a.{ending}") == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([f"a.{ending}", *expected])


@pytest.mark.parametrize(
    ("name", "header", "expected"),
    [
        ("a.mhd", "NDims = 3\nElementDataFile = my voxels.raw\n", ["my voxels.raw"]),
        ("a.mhd", "NDims = 3\nElementDataFile = LIST 2D\ns1.raw\ns2.raw\n", ["s1.raw", "s2.raw"]),
        ("a.mhd", "NDims = 3\nElementDataFile = s%02d.raw 1 5 2\n", ["s01.raw", "s03.raw", "s05.raw"]),
        ("a.mha", "NDims = 3\nElementDataFile = LOCAL\nElementDataFile = x.raw\n", []),
        ("a.nhdr", "NRRD0004\n# data file: no\ndimension: 3\ndata file: a b.raw.gz\n\n", ["a b.raw.gz"]),
        ("a.nhdr", "NRRD0004\ndatafile: sub/x.raw\n", ["x.raw"]),
        ("a.nhdr", "NRRD0004\ndata file: LIST 2\ns1.raw\ns2.raw\n", ["s1.raw", "s2.raw"]),
        ("a.nhdr", "NRRD0004\ndata file: s%d.raw 3 1 -1 2\n", ["s3.raw", "s2.raw", "s1.raw"]),
        ("a.nrrd", "NRRD0004\ndimension: 3\n\ndata file: voxels that look like a header\n", []),
        ("a.nhdr", "hello\ndata file: x.raw\n", []),
        ("a.mhd", "hello\n", []),
        ("a.mhd", "NDims = 3\nElementDataFile = s%s%s.raw 1 5 1\n", []),
        ("a.mhd", "NDims = 3\nElementDataFile = s%d.raw 1 5 0\n", []),
        ("a.nii", "ElementDataFile = x.raw\n", []),
    ],
)
def test_the_forms_of_a_header(tmp_path: Path, name: str, header: str, expected: list[str]) -> None:
    (tmp_path / name).write_text(header)
    assert names(tmp_path / name) == expected


def session(tmp_path: Path) -> Session:
    """A session without a configuration, as far as hashing files needs one."""
    found = object.__new__(Session)
    found.__dict__["_known_digests"] = {}
    return found


@pytest.mark.parametrize("ending", ["mhd", "nhdr"])
def test_changed_voxels_beside_an_unchanged_header_are_noticed(tmp_path: Path, ending: str) -> None:
    path, voxels = tmp_path / f"a.{ending}", tmp_path / "a.raw"
    write(path, 1)
    case, at_work = Case(case="a", subject="a", images={"adc": path}), session(tmp_path)
    first = at_work.digests(case)
    assert at_work.digests(case) == first
    header = path.read_bytes()
    voxels.write_bytes(bytes([2]) * 60)
    assert path.read_bytes() == header and read_volume(path).array.max() == 2
    second = at_work.digests(case)
    assert second != first
    assert session(tmp_path).digests(case) == second
    voxels.unlink()
    with pytest.raises(InputError, match=rf"a\.raw: .*a\.{ending} names it"):
        at_work.digests(case)


def test_a_file_without_others_has_the_hash_that_it_had(tmp_path: Path) -> None:
    from neoseg.data.store import file_digest

    write(tmp_path / "a.mha", 1)
    found = session(tmp_path).digests(Case(case="a", subject="a", images={"adc": tmp_path / "a.mha"}))
    assert found["files"] == {"adc": file_digest(tmp_path / "a.mha")}
