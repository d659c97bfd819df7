"""Against SimpleITK, which reads and writes the same files independently."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from neoseg.errors import InputError
from neoseg.io import read_grid, read_volume, volumes_in, write_volume
from neoseg.volume import Volume, same_grid


def image_of(seed: int, shape: tuple[int, ...] = (3, 4, 5)) -> SimpleITK.Image:
    rng = np.random.default_rng(seed)
    image = SimpleITK.GetImageFromArray(rng.normal(size=shape[::-1]).astype(np.float32))
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    image.SetSpacing([float(v) for v in rng.uniform(0.5, 4, 3)])
    image.SetOrigin([float(v) for v in rng.uniform(-100, 100, 3)])
    image.SetDirection([float(v) for v in q.ravel()])
    return image


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("seed", range(3))
def test_world_positions_are_itks_with_x_and_y_turned(tmp_path: Path, ending: str, seed: int) -> None:
    image = image_of(seed)
    SimpleITK.WriteImage(image, str(tmp_path / f"a{ending}"))
    volume = read_volume(tmp_path / f"a{ending}")
    for index in ((0, 0, 0), (2, 1, 4), (1, 3, 2)):
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        i, j, k = np.rint(volume.grid.to_index(np.array([-x, -y, z]))).astype(int)
        assert volume.array[0, i, j, k] == image[index]
        np.testing.assert_allclose(volume.grid.to_world(np.array([i, j, k])), [-x, -y, z], atol=1e-9)


@pytest.mark.parametrize("ending", [".mha", ".mhd"])
def test_metaimage_geometry_is_exact(tmp_path: Path, ending: str) -> None:
    image = image_of(7)
    rounded = np.round(np.array(image.GetDirection()), 4)
    image.SetDirection([float(v) for v in rounded])
    SimpleITK.WriteImage(image, str(tmp_path / f"a{ending}"))
    volume = read_volume(tmp_path / f"a{ending}")
    write_volume(Volume((volume.array > 0).astype(np.uint8), volume.grid), tmp_path / f"b{ending}")
    result = SimpleITK.ReadImage(str(tmp_path / f"b{ending}"))
    assert result.GetPixelID() == SimpleITK.sitkUInt8
    assert (result.GetOrigin(), result.GetSpacing()) == (image.GetOrigin(), image.GetSpacing())
    assert result.GetDirection() == tuple(rounded)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(result), SimpleITK.GetArrayFromImage(image) > 0)


def test_fourth_axes_and_vectors(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((2, 5, 4, 3)).astype(np.float32)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=False), str(tmp_path / "four.mha"))
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.moveaxis(array, 0, -1), isVector=True), str(tmp_path / "v.nrrd")
    )
    for name in ("four.mha", "v.nrrd"):
        assert volumes_in(tmp_path / name) == 2
        with pytest.raises(InputError, match="holds 2 volumes"):
            read_volume(tmp_path / name)
        second = read_volume(tmp_path / name, volume_index=1)
        # ITK's identity is LPS, so the canonical array runs against x and y.
        np.testing.assert_array_equal(second.array[0, ::-1, ::-1], array[1].T)
    one = SimpleITK.GetImageFromArray(array[:1], isVector=False)
    SimpleITK.WriteImage(one, str(tmp_path / "one.mha"))
    write_volume(read_volume(tmp_path / "one.mha"), tmp_path / "again.mha")
    assert SimpleITK.ReadImage(str(tmp_path / "again.mha")).GetSize() == one.GetSize()


def test_global_warnings_are_left_as_they_were(tmp_path: Path) -> None:
    SimpleITK.WriteImage(image_of(1), str(tmp_path / "a.mha"))
    before = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    read_grid(tmp_path / "a.mha")
    assert SimpleITK.ProcessObject.GetGlobalWarningDisplay() == before


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("DimSize = 3 4 5", "DimSize = 3 4 x", "2 to 4 axes"),
        ("DimSize = 3 4 5", "DimSize = 3 4", "2 to 4 axes"),
        ("DimSize = 3 4 5", "DimSize = 3 4 0", "2 to 4 axes"),
        ("ElementType = MET_FLOAT\n", "", "lacks ElementType"),
        ("DimSize = 3 4 5", "DimSize = 3 4 500", "truncated"),
        ("DimSize = 3 4 5", "DimSize = 3 4 5\nNDims = 2", "has NDims twice"),
        ("NDims = 3", "NDims = -1\nNDims = 3", "has NDims twice"),
    ],
)
def test_damaged_metaimage_headers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], old: str, new: str, told: str
) -> None:
    SimpleITK.WriteImage(image_of(1), str(tmp_path / "a.mha"), False)
    content = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(content.replace(old.encode(), new.encode()))
    with pytest.raises(InputError, match=told):
        read_volume(tmp_path / "a.mha")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sign", [(1, 1, -2), (-1, 1, -2)])
def test_a_negative_size_of_voxels_is_an_axis_that_runs_the_other_way(tmp_path: Path, sign: tuple[int, ...]) -> None:
    image = image_of(1)
    image.SetSpacing([1.5, 2.5, 3.5])
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"), False)
    content = (tmp_path / "a.mha").read_bytes()
    spacing = " ".join(str(abs(n) * np.sign(m)) for n, m in zip((1.5, 2.5, 3.5), sign, strict=True))
    turned = content.replace(b"ElementSpacing = 1.5 2.5 3.5", f"ElementSpacing = {spacing}".encode())
    assert turned != content
    (tmp_path / "b.mha").write_bytes(turned)
    found = read_volume(tmp_path / "b.mha")
    write_volume(found, tmp_path / "c.mha")
    again = read_volume(tmp_path / "c.mha")
    assert same_grid(found.grid, again.grid)
    np.testing.assert_array_equal(found.array, again.array)
    stored = found.grid.stored
    plain = read_volume(tmp_path / "a.mha").grid.stored
    columns = plain.affine[:3, :3] * np.sign(sign)
    np.testing.assert_allclose(stored.affine[:3, :3], columns)


@pytest.mark.parametrize("word", ["T", "true", "1"])
def test_compressed_voxels_under_any_spelling(tmp_path: Path, word: str) -> None:
    SimpleITK.WriteImage(image_of(1), str(tmp_path / "a.mha"), True)
    content = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "b.mha").write_bytes(content.replace(b"CompressedData = True", f"CompressedData = {word}".encode()))
    np.testing.assert_array_equal(read_volume(tmp_path / "b.mha").array, read_volume(tmp_path / "a.mha").array)


@pytest.mark.parametrize("detached", [False, True])
def test_a_metaimage_of_text_is_read_and_its_numbers_are_counted(tmp_path: Path, detached: bool) -> None:
    values = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = False\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 2\nDimSize = 3 4 5\n"
        f"ElementType = MET_FLOAT\nElementDataFile = {'a.raw' if detached else 'LOCAL'}\n"
    )
    path = tmp_path / ("a.mhd" if detached else "a.mha")
    for text, whole in ((" ".join(map(str, values.ravel())), True), (" ".join(map(str, values.ravel()[:-1])), False)):
        text += "\n"  # MetaIO reads one character more
        path.write_text(head + ("" if detached else text))
        if detached:
            (tmp_path / "a.raw").write_text(text)
        if whole:
            array = read_volume(path).array[0]
            np.testing.assert_array_equal(np.sort(array.ravel()), np.arange(60))
            reference = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
            np.testing.assert_array_equal(array, reference.T[::-1, ::-1])
        else:
            with pytest.raises(InputError, match="60 numbers are promised, but there are 59"):
                read_volume(path)


@pytest.mark.parametrize("name", ["A.MHA", "A.MHD", "A.NRRD", "A.NHDR", "A.Mha"])
def test_endings_in_capitals_are_written_too(tmp_path: Path, name: str) -> None:
    SimpleITK.WriteImage(image_of(0), str(tmp_path / f"a{Path(name).suffix.lower()}"))
    volume = read_volume(tmp_path / f"a{Path(name).suffix.lower()}")
    (tmp_path / "out").mkdir()
    write_volume(volume, tmp_path / "out" / name)
    again = read_volume(tmp_path / "out" / name)
    np.testing.assert_array_equal(again.array, volume.array)
    left = {file.name for file in (tmp_path / "out").iterdir()}
    assert name in left and not [file for file in left if file.startswith(".")] and len(left) <= 2


def test_vectors_of_one_volume_are_chosen_by_component(tmp_path: Path) -> None:
    array = np.arange(72, dtype=np.float32).reshape(1, 4, 3, 2, 3)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=True), str(tmp_path / "v.mha"))
    for component in range(3):
        found = read_volume(tmp_path / "v.mha", volume_index=component).array[0]
        assert sorted(found.ravel()) == sorted(array[..., component].ravel())


@pytest.mark.parametrize(
    "line", ["ElementToIntensityFunctionSlope = 2", "ElementToIntensityFunctionOffset = 5", "DistanceUnits = um"]
)
def test_what_metaimage_readers_leave_out_is_refused(tmp_path: Path, line: str) -> None:
    SimpleITK.WriteImage(image_of(0), str(tmp_path / "a.mha"))
    data = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(data.replace(b"ElementType", f"{line}\nElementType".encode(), 1))
    with pytest.raises(InputError, match=line.split(" = ")[0]):
        read_volume(tmp_path / "a.mha")


@pytest.mark.parametrize(("line", "read"), [
    ('space units: "mm" "mm" "mm"', True), ('units: "mm" "" "???"', True), ('space units: "um" "um" "um"', False),
    ('units: "mm" "mm" "Meter"', False), ('space units: "\u00b5m" "\u00b5m" "\u00b5m"', False)])  # fmt: skip
def test_a_nrrd_in_other_units_of_length_is_refused(tmp_path: Path, line: str, read: bool) -> None:
    path = tmp_path / "a.nrrd"
    head = "NRRD0004\ntype: uint8\ndimension: 3\n"
    place = f"spacings: 1 1 1\n{line}\n"
    if line.startswith("space"):
        place = f"space: LPS\n{line}\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
    path.write_bytes(f"{head}sizes: 2 3 4\n{place}encoding: raw\n\n".encode() + bytes(24))
    for reader in (read_volume, read_grid):
        if read:
            reader(path)
        else:
            with pytest.raises(InputError, match=r"units: .* but mm are read; export"):
                reader(path)


@pytest.mark.parametrize(("sizes", "spacings", "read"), [
    ("2 3 4", "nan nan nan", False), ("2 3 4", "1 1 NaN", False), ("2 3 4", "1 1 1", True),
    ("2 2 3 2", "NaN 1 1 1", True), ("2 2 3 2", "nan 1 1 nan", False), ("3 4 2", "NaN 1 1", False),
])  # fmt: skip
def test_a_nrrd_with_axes_without_a_length_is_refused(tmp_path: Path, sizes: str, spacings: str, read: bool) -> None:
    path = tmp_path / "a.nrrd"
    head = f"NRRD0004\ntype: uint8\ndimension: {len(sizes.split())}\nsizes: {sizes}\nspacings: {spacings}\n"
    kinds = "kinds: vector domain domain domain\n" if len(sizes) > 5 else ""
    path.write_bytes(f"{head}{kinds}encoding: raw\n\n".encode() + bytes(24))
    if read:
        assert read_grid(path).spacing == (1, 1, 1)
    else:
        with pytest.raises(InputError, match=r"spacings: .*, but a length in mm is wanted for each axis"):
            read_grid(path)


def test_a_packed_nrrd_of_several_members_is_whole(tmp_path: Path) -> None:
    raw = np.arange(24, dtype=np.int16).tobytes()
    head = b"NRRD0004\ntype: int16\ndimension: 3\nsizes: 2 3 4\nendian: little\nencoding: gzip\n\n"
    (tmp_path / "a.nrrd").write_bytes(head + gzip.compress(raw[:20]) + gzip.compress(raw[20:]))
    assert read_volume(tmp_path / "a.nrrd").array.sum() == 276
    (tmp_path / "a.nrrd").write_bytes(head + gzip.compress(raw[:20]))
    with pytest.raises(InputError, match=r"truncated or damaged \(20 of 48 bytes\)"):
        read_volume(tmp_path / "a.nrrd")
