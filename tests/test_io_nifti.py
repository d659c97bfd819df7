"""Against nibabel and SimpleITK, which read the same files independently."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.quaternions import quat2mat

from neoseg.errors import GeometryError, InputError
from neoseg.io import read_grid, read_volume, volumes_in, write_volume
from neoseg.volume import Volume

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not on this machine")
GEOMETRY = (
    "dim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "pixdim", "srow_x", "srow_y", "srow_z", "xyzt_units", "descrip",
)  # fmt: skip


def affine_of(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = q * rng.uniform(0.5, 4, 3)
    affine[:3, 3] = rng.uniform(-100, 100, 3)
    return affine


def save(path: Path, array: np.ndarray, affine: np.ndarray, *, sform: int, qform: int, **fields: object) -> None:
    image = nibabel.Nifti1Image(array, affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    for key, value in fields.items():
        image.header[key] = value
    image.to_filename(path)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), sform=st.integers(0, 4), qform=st.integers(0, 4))
def test_a_mask_gets_every_geometry_field_of_its_image(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sform: int, qform: int
) -> None:
    folder = tmp_path_factory.mktemp("x")
    array = np.random.default_rng(seed).normal(size=(3, 4, 5)).astype(np.float32)
    save(folder / "a.nii.gz", array, affine_of(seed), sform=sform, qform=qform, descrip=b"made by Zo\xeb")
    volume = read_volume(folder / "a.nii.gz")
    mask = Volume((volume.array > 0).astype(np.uint8), volume.grid)
    write_volume(mask, folder / "b.nii.gz")
    image, result = nibabel.load(folder / "a.nii.gz"), nibabel.load(folder / "b.nii.gz")
    for key in GEOMETRY:
        assert image.header[key].tobytes() == result.header[key].tobytes(), key
    np.testing.assert_array_equal(image.affine, result.affine)
    np.testing.assert_array_equal(np.asarray(result.dataobj), array > 0)
    assert result.get_data_dtype() == np.uint8
    assert result.header.get_slope_inter() in ((1.0, 0.0), (None, None))
    np.testing.assert_allclose(volume.grid.stored.affine, image.affine)


@pytest.mark.parametrize(
    ("sform", "qform", "form"), [(1, 1, "sform"), (2, 0, "sform"), (0, 1, "qform"), (0, 0, "pixdim")]
)
def test_which_form_counts(tmp_path: Path, sform: int, qform: int, form: str) -> None:
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), None)
    image.header.set_zooms((1, 2, 3))
    image.header.set_sform(np.diag([1, 2, 3, 1]) + np.diag([0, 0, 0], 1) * 0, sform)
    image.header.set_qform(np.diag([-1, -2, 3, 1]), qform)
    image.to_filename(tmp_path / "a.nii")
    stored = read_grid(tmp_path / "a.nii").stored
    assert stored.header["form"] == form
    np.testing.assert_allclose(stored.affine, nibabel.load(tmp_path / "a.nii").affine)


def test_only_codes_above_0_count_in_the_exact_numbers(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", np.zeros((3, 4, 5), np.float32), affine_of(1), sform=0, qform=1)
    header = nibabel.load(tmp_path / "a.nii").header
    rotation = quat2mat([np.sqrt(1 - sum(float(header[f"quatern_{c}"]) ** 2 for c in "bcd"))] + [
        float(header[f"quatern_{c}"]) for c in "bcd"])  # fmt: skip
    rotation[:, 2] *= float(header["pixdim"][0])
    affine = read_grid(tmp_path / "a.nii").stored.affine
    np.testing.assert_allclose(affine[:3, :3], rotation * header["pixdim"][1:4], atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 4, 5, 1), (3, 4, 5, 1, 1), (3, 4), (3, 4, 1)])
def test_singleton_axes_come_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    save(tmp_path / "a.nii.gz", array, np.diag([2.0, 2, 3, 1]), sform=1, qform=1)
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.array.ndim == 4
    assert volumes_in(tmp_path / "a.nii.gz") == 1
    write_volume(volume, tmp_path / "b.nii.gz")
    again = nibabel.load(tmp_path / "b.nii.gz")
    assert again.shape == nibabel.load(tmp_path / "a.nii.gz").shape
    np.testing.assert_array_equal(np.asarray(again.dataobj).ravel(), array.ravel())


@pytest.mark.parametrize(
    ("dtype", "expected"), [(np.int16, np.float32), (np.uint8, np.float32), (np.int32, np.float64)]
)
def test_scaled_integers(tmp_path: Path, dtype: type, expected: type) -> None:
    raw = np.array([0, 1, 100, 2**25 + 1 if dtype is np.int32 else 127], dtype).reshape(1, 2, 2)
    header = nibabel.Nifti1Header()
    header.set_data_shape(raw.shape)
    header.set_data_dtype(dtype)
    header["scl_slope"], header["scl_inter"], header["vox_offset"], header["magic"] = 0.5, -3, 352, b"n+1"
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4) + raw.tobytes(order="F"))
    volume = read_volume(tmp_path / "a.nii")
    assert volume.array.dtype == expected
    np.testing.assert_array_equal(np.sort(volume.array.ravel()), np.sort(raw.ravel()) * 0.5 - 3)
    np.testing.assert_array_equal(volume.array.min(), nibabel.load(tmp_path / "a.nii").get_fdata().min())
    write_volume(volume, tmp_path / "b.nii")
    np.testing.assert_array_equal(
        nibabel.load(tmp_path / "b.nii").get_fdata(), nibabel.load(tmp_path / "a.nii").get_fdata()
    )


def test_other_byte_order_nifti2_and_other_lengths_of_unit(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 1000, (3, 4, 5)).astype(np.int16)
    header = nibabel.Nifti1Header(endianness=">")
    big = nibabel.Nifti1Image(array, np.diag([1.0, 2, 3, 1]), header)
    big.set_data_dtype(np.int16)
    big.to_filename(tmp_path / "big.nii")
    second = nibabel.Nifti2Image(array, np.diag([1.0, 2, 3, 1]))
    second.to_filename(tmp_path / "two.nii.gz")
    for name in ("big.nii", "two.nii.gz"):
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.array[0], array)
        assert volume.array.dtype.isnative
        write_volume(volume, tmp_path / f"again_{name}")
        again = nibabel.load(tmp_path / f"again_{name}")
        assert type(again) is type(nibabel.load(tmp_path / name))
        np.testing.assert_array_equal(np.asarray(again.dataobj), array)
    save(tmp_path / "um.nii", array, np.diag([1000.0, 2000, 3000, 1]), sform=1, qform=1, xyzt_units=3)
    assert read_grid(tmp_path / "um.nii").spacing == pytest.approx((1, 2, 3))
    write_volume(read_volume(tmp_path / "um.nii"), tmp_path / "um_again.nii")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "um_again.nii").affine, np.diag([1000.0, 2000, 3000, 1]))


def test_colour_and_complex_voxels_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros((2, 2, 2), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.Nifti1Image(rgb, np.eye(4)).to_filename(tmp_path / "rgb.nii")
    nibabel.Nifti1Image(np.zeros((2, 2, 2), np.complex64), np.eye(4)).to_filename(tmp_path / "complex.nii")
    for name in ("rgb.nii", "complex.nii"):
        with pytest.raises(InputError, match="one real number a voxel is wanted"):
            read_volume(tmp_path / name)


def test_damage_inside_the_compressed_stream_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    array = np.random.default_rng(0).integers(0, 9, (20, 20, 20)).astype(np.uint8)
    save(path, array, np.eye(4), sform=1, qform=1)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # the checksum
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii\.gz: the compressed file is truncated or damaged"):
        read_volume(path)


def test_names_that_lie_about_compression(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", np.zeros((2, 2, 2), np.uint8), np.eye(4), sform=1, qform=1)
    (tmp_path / "a.nii").rename(tmp_path / "plain.nii.gz")
    with pytest.raises(InputError, match=r"plain\.nii\.gz: the name says that the file is compressed"):
        read_volume(tmp_path / "plain.nii.gz")
    (tmp_path / "packed.nii").write_bytes(gzip.compress(b"x" * 500))
    with pytest.raises(InputError, match=r"packed\.nii: the name says that the file is not compressed"):
        read_volume(tmp_path / "packed.nii")


@pytest.mark.parametrize("field", ["dim", "datatype", "magic"])
def test_damaged_headers(tmp_path: Path, field: str) -> None:
    save(tmp_path / "a.nii", np.zeros((2, 2, 2), np.uint8), np.eye(4), sform=1, qform=1)
    content = bytearray((tmp_path / "a.nii").read_bytes())
    start = {"dim": 40, "datatype": 70, "magic": 344}[field]
    content[start : start + 2] = b"\x77\x77"
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii: "):
        read_volume(tmp_path / "a.nii")


def test_a_qform_that_is_no_rotation_is_refused_only_when_it_counts(tmp_path: Path) -> None:
    for sform, name in ((1, "used.nii"), (0, "needed.nii")):
        save(tmp_path / name, np.zeros((2, 2, 2), np.uint8), np.eye(4), sform=sform, qform=1)
        content = bytearray((tmp_path / name).read_bytes())
        content[256:268] = np.array([0.9, 0.9, 0.9], np.float32).tobytes()
        (tmp_path / name).write_bytes(content)
    assert read_grid(tmp_path / "used.nii").stored.header["form"] == "sform"
    with pytest.raises(GeometryError, match=r"needed\.nii: the qform"):
        read_grid(tmp_path / "needed.nii")


@needs_data
@pytest.mark.parametrize(
    "name",
    [
        "isles22_case0001_unlabelled/sub-strokecase0001_ses-0001_adc.nii.gz",
        "ms_mni/patient19/FLAIR.nii.gz",
        "totalseg_ct_mr/example_mr_sm.nii.gz",
        "totalseg_ct_mr/example_ct_sm.nii.gz",
    ],
)
def test_real_headers_and_values_agree_with_nibabel(tmp_path: Path, name: str) -> None:
    volume, image = read_volume(DATA / name), nibabel.load(DATA / name)
    np.testing.assert_array_equal(volume.grid.stored.affine, image.affine)
    expected = nibabel.as_closest_canonical(image)
    np.testing.assert_allclose(volume.array[0], expected.get_fdata(), rtol=1e-6)
    np.testing.assert_allclose(volume.grid.affine, expected.affine, atol=1e-4)
    write_volume(volume.with_array((volume.array > 1).astype(np.uint8)), tmp_path / "mask.nii.gz")
    result = nibabel.load(tmp_path / "mask.nii.gz")
    for key in GEOMETRY:
        assert image.header[key].tobytes() == result.header[key].tobytes(), key
