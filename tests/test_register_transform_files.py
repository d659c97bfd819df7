"""Transforms on disk: our folders and ITK's files give back the same map; damage has words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from neoseg.errors import InputError, MachineError
from neoseg.register.itk import bspline_from_itk, bspline_to_itk, image_to_itk, lps, read_itk, write_itk
from neoseg.register.transform_files import load_transform, save_transform, transform_record
from neoseg.register.transforms import Affine, Chain, Ffd, Transform, resample
from neoseg.volume import Grid, Volume


def some_affine() -> Affine:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec([0.2, -0.1, 0.15]).as_matrix() @ np.diag([1.1, 0.95, 1.02])
    matrix[:3, 3] = [5, -7, 3]
    return Affine(matrix)


def some_ffd(seed: int = 0) -> Ffd:
    coefficients = np.random.default_rng(seed).normal(0, 2, (3, 6, 7, 5))
    return Ffd([-30, -36, -28], [12, 13, 14], coefficients)


def everywhere(count: int = 400) -> np.ndarray:
    return np.random.default_rng(9).uniform(-80, 80, (count, 3))


def by_itk(transform: object, xyz: np.ndarray) -> np.ndarray:
    return lps(np.array([transform.TransformPoint(p) for p in lps(xyz).tolist()]))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "transform",
    [some_affine(), some_ffd(), Chain([some_ffd(), some_affine(), some_ffd(1).inverse()]), Chain([])],
    ids=["affine", "ffd", "chain", "identity"],
)
def test_a_saved_transform_has_the_same_bits(tmp_path: Path, transform: Transform) -> None:
    save_transform(transform, tmp_path / "t", {"ncc": 0.9})
    back = load_transform(tmp_path / "t")
    xyz = everywhere() / 4
    assert np.array_equal(back.points(xyz), transform.points(xyz))
    record = json.loads((tmp_path / "t" / "transform.json").read_text())
    assert record["about"] == {"ncc": 0.9}
    assert record["units"] == "RAS mm"
    assert transform_record(back) == transform_record(transform)


def test_damaged_or_mixed_folders_have_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_transform(tmp_path / "nothing")
    save_transform(some_affine(), tmp_path / "a")
    save_transform(some_ffd(), tmp_path / "b")
    (tmp_path / "a" / "transform.npz").replace(tmp_path / "b" / "transform.npz")
    with pytest.raises(InputError, match="do not belong together"):
        load_transform(tmp_path / "b")
    (tmp_path / "b" / "transform.npz").write_bytes(b"PK no")
    with pytest.raises(InputError, match="cannot be read"):
        load_transform(tmp_path / "b")


def test_itk_moves_every_point_as_we_do() -> None:
    ffd = some_ffd()
    xyz = everywhere()
    assert np.abs(ffd.displacements(xyz)).max() > 1
    assert np.allclose(by_itk(bspline_to_itk(ffd), xyz), ffd.points(xyz), atol=1e-9)


def test_the_valid_region_of_itk_is_equal_without_zeros_around() -> None:
    ffd = some_ffd()
    low, high = ffd.origin + ffd.spacing, ffd.origin + ffd.spacing * (np.array(ffd.coefficients.shape[1:]) - 2)
    inside = np.random.default_rng(1).uniform(low + 1e-6, high - 1e-6, (300, 3))
    transform = bspline_to_itk(ffd, margin=0)
    assert np.allclose(by_itk(transform, inside), ffd.points(inside), atol=1e-9)
    back = bspline_from_itk(transform)
    assert isinstance(back, Ffd)
    assert np.allclose(back.coefficients, ffd.coefficients)


@pytest.mark.parametrize("turned", [False, True])
def test_a_lattice_of_itk_along_an_image_is_taken_over(turned: bool) -> None:
    affine = np.eye(4)
    turn = Rotation.from_rotvec([0.3, -0.2, 0.4] if turned else [0, 0, 0]).as_matrix()
    affine[:3, :3] = turn @ np.diag([2.0, 2.0, 3.0])
    grid = Grid((30, 28, 20), affine)
    image = image_to_itk(Volume(np.zeros((1, *grid.shape), np.float32), grid))
    transform = sitk.BSplineTransformInitializer(image, [4, 3, 5], 3)
    count = len(transform.GetParameters())
    transform.SetParameters(np.random.default_rng(0).normal(0, 2, count).tolist())
    index = np.random.default_rng(1).uniform(1, np.array(grid.shape) - 2, (200, 3))
    xyz = grid.to_world(index)
    assert np.allclose(bspline_from_itk(transform).points(xyz), by_itk(transform, xyz), atol=1e-9)


@pytest.mark.parametrize("ending", [".tfm", ".h5"])
def test_itk_files_come_back_as_the_same_map(tmp_path: Path, ending: str) -> None:
    chain = Chain([some_ffd(), some_affine()])
    path = tmp_path / f"chain{ending}"
    write_itk(chain, path)
    xyz = everywhere()
    assert np.allclose(by_itk(sitk.ReadTransform(str(path)), xyz), chain.points(xyz), atol=1e-8)
    back = read_itk(path)
    assert isinstance(back, Chain)
    assert len(back.transforms) == 2
    assert np.allclose(back.points(xyz), chain.points(xyz), atol=1e-8)


def test_a_program_of_itk_resamples_as_we_do(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = [-30, -28, -30]
    moving = Volume(rng.normal(size=(1, 31, 29, 21)).astype(np.float32), Grid((31, 29, 21), affine))
    other = affine.copy()
    other[:3, :3] = Rotation.from_rotvec([0.1, 0.2, -0.1]).as_matrix() @ np.diag([1.7, 1.7, 2.5])
    other[:3, 3] = -other[:3, :3] @ [14, 13, 9]
    fixed = Grid((29, 27, 19), other)
    shift = np.eye(4)
    shift[:3, 3] = [2, -1, 3]
    chain = Chain([some_ffd(), Affine(shift)])
    write_itk(chain, tmp_path / "t.tfm")
    like = image_to_itk(Volume(np.zeros((1, *fixed.shape), np.float32), fixed))
    theirs = sitk.Resample(
        image_to_itk(moving), like, sitk.ReadTransform(str(tmp_path / "t.tfm")), sitk.sitkLinear, 0.0
    )
    expected = sitk.GetArrayFromImage(theirs).transpose(2, 1, 0)
    assert (expected != 0).mean() > 0.5
    assert np.abs(resample(moving, fixed, chain).array[0] - expected).max() < 1e-3


def test_what_itk_cannot_say_has_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="numerical inverse"):
        write_itk(some_ffd().inverse(), tmp_path / "t.tfm")
    with pytest.raises(InputError, match=r"\.tfm"):
        write_itk(some_affine(), tmp_path / "t.mat")
    (tmp_path / "bad.tfm").write_text("no transform")
    with pytest.raises(InputError, match=r"bad\.tfm"):
        read_itk(tmp_path / "bad.tfm")
    field = sitk.DisplacementFieldTransform(sitk.Image([4, 4, 4], sitk.sitkVectorFloat64))
    sitk.WriteTransform(field, str(tmp_path / "field.tfm"))
    with pytest.raises(InputError, match="DisplacementField"):
        read_itk(tmp_path / "field.tfm")


@pytest.mark.parametrize("ending", [".tfm", ".h5"])
def test_an_itk_file_that_cannot_be_written_has_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write_itk(some_affine(), tmp_path / "file" / f"t{ending}")

    def refused(*_: object) -> None:
        raise RuntimeError("Exception thrown in SimpleITK WriteTransform:\nitk::ERROR: Error opening file")

    monkeypatch.setattr(sitk, "WriteTransform", refused)
    with pytest.raises(MachineError, match=rf"t{ending}: the disk did not take the whole file .*Error opening file"):
        write_itk(some_affine(), tmp_path / f"t{ending}")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
