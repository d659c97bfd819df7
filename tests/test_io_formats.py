from __future__ import annotations

import subprocess
import sys
from itertools import pairwise, permutations, product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neoseg.errors import GeometryError, InputError
from neoseg.io import FORMATS, endings, read_grid, read_volume, strip_ending, volumes_in, write_volume
from neoseg.volume import Grid, Volume, canonical, same_grid, to_stored

DATA = Path(__file__).parents[2] / "shared" / "data"
REAL = {
    "isles22_case0001_unlabelled/sub-strokecase0001_ses-0001_adc.nii.gz": ((112, 112, 73), (2, 2, 2)),
    "ms_mni/patient07/consensus_gt.nii.gz": ((182, 218, 182), (1, 1, 1)),
    "totalseg_ct_mr/example_ct_sm.nii.gz": ((122, 101, 30), (3, 3, 3)),
    "totalseg_ct_mr/example_mr_sm.nii.gz": ((117, 91, 20), (3, 3, 3)),
    "msd_hippocampus/images/hippocampus_190.nii.gz": ((37, 52, 30), (1, 1, 1)),
    "dicom/prostate_adc_dcmqi/pm-example.nrrd": ((256, 256, 20), (0.7031, 0.7031, 2.99990)),
}
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not on this machine")
VOLUMES = endings(planar=False)
"""Pictures have tests of their own."""
DTYPES = (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64)


def stored_volume(
    seed: int, *, shape: tuple[int, ...] = (3, 4, 5), dtype: type = np.float32, near: float = 0
) -> Volume:
    """A volume as if read from a file with random orthonormal (or nearly so) axes of random order and direction."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = (q + near * rng.uniform(-1, 1, (3, 3))) * rng.uniform(0.5, 5, 3)
    affine[:3, 3] = rng.uniform(-150, 150, 3)
    array = rng.normal(1000, 300, (1, *shape)).astype(dtype) if dtype is not np.int8 else np.ones((1, *shape), dtype)
    return canonical(array, affine, file_format="made", name="x")


def at(folder: str | Path, ending: str) -> Path:
    return Path(folder) / f"case_1.5{ending}"


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), dtype=st.sampled_from(DTYPES), shape=st.tuples(*[st.integers(1, 6)] * 3))
@pytest.mark.parametrize("ending", VOLUMES)
def test_written_then_read_is_the_same(ending: str, seed: int, dtype: type, shape: tuple[int, ...]) -> None:
    volume = stored_volume(seed, shape=shape, dtype=dtype)
    with TemporaryDirectory() as folder:
        path = at(folder, ending)
        write_volume(volume, path)
        again = read_volume(path)
        grid = read_grid(path)
    if dtype is np.float64:
        np.testing.assert_array_equal(again.array, volume.array.astype(np.float32))
    else:
        assert again.array.dtype == dtype
        np.testing.assert_array_equal(again.array, volume.array)
    # NIfTI holds float32: 1e-7 of the numbers in it, which are below 200 mm.
    tolerance = 5e-5 if ".nii" in ending else 1e-10
    np.testing.assert_allclose(again.grid.affine, volume.grid.affine, atol=tolerance)
    np.testing.assert_allclose(again.grid.stored.affine, volume.grid.stored.affine, atol=tolerance)
    assert (grid.shape, grid.stored.axes) == (again.grid.shape, again.grid.stored.axes)
    np.testing.assert_array_equal(grid.affine, again.grid.affine)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), near=st.sampled_from([0.0, 1e-4, 2e-3]))
@pytest.mark.parametrize("ending", VOLUMES)
def test_a_result_goes_back_to_exactly_the_files_grid(ending: str, seed: int, near: float) -> None:
    with TemporaryDirectory() as folder:
        image = at(folder, ending)
        write_volume(stored_volume(seed, near=near), image)
        volume = read_volume(image)
        np.testing.assert_allclose(volume.grid.directions.T @ volume.grid.directions, np.eye(3), atol=1e-9)
        mask = Volume((volume.array > 1000).astype(np.uint8), volume.grid)
        write_volume(mask, Path(folder) / f"mask{ending}")
        again = read_volume(Path(folder) / f"mask{ending}")
    np.testing.assert_array_equal(again.array, mask.array)
    # NRRD keeps spacing times direction, so its reader divides again: the last bit may differ there.
    np.testing.assert_allclose(again.grid.stored.affine, volume.grid.stored.affine, rtol=0, atol=1e-12)
    if ending not in (".nrrd", ".nhdr"):
        assert dict(again.grid.stored.header) == dict(volume.grid.stored.header)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_all_formats_hold_the_same_world(seed: int) -> None:
    volume = stored_volume(seed)
    with TemporaryDirectory() as folder:
        for ending in VOLUMES:
            write_volume(volume, at(folder, ending))
        read = [read_volume(at(folder, ending)) for ending in VOLUMES]
        for first, second in pairwise(VOLUMES):
            crossed = Path(folder) / f"crossed{second}"
            write_volume(read_volume(at(folder, first)), crossed)
            read.append(read_volume(crossed))
    for other in read:
        np.testing.assert_array_equal(other.array, volume.array)
        assert same_grid(other.grid, volume.grid, 1e-4)
        assert other.grid.stored.axes == volume.grid.stored.axes


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_one_scan_stored_in_any_order_is_one_volume(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(5)
    array, base = rng.random((1, 3, 4, 5)).astype(np.float32), np.diag([1.5, 2.0, 3.0, 1.0])
    base[:3, 3] = (-10, 20, 5)
    first = None
    for order in permutations(range(3)):
        for flips in product((False, True), repeat=3):
            moved = np.transpose(array, (0, *(o + 1 for o in order)))
            to_base = np.zeros((4, 4))
            to_base[3, 3] = 1
            for axis, (o, flip) in enumerate(zip(order, flips, strict=True)):
                to_base[o, axis] = -1 if flip else 1
                to_base[o, 3] = array.shape[o + 1] - 1 if flip else 0
            moved = np.flip(moved, [a + 1 for a, flip in enumerate(flips) if flip])
            volume = canonical(moved, base @ to_base, file_format="made", name="x")
            write_volume(volume, tmp_path / f"x{ending}")
            again = read_volume(tmp_path / f"x{ending}")
            np.testing.assert_array_equal(to_stored(again), moved)
            first = first or again
            np.testing.assert_array_equal(again.array, first.array)
            np.testing.assert_allclose(again.grid.affine, first.grid.affine, atol=1e-6)
    np.testing.assert_array_equal(first.array, array)


@pytest.mark.parametrize("ending", VOLUMES)
def test_nan_and_infinity_are_kept(tmp_path: Path, ending: str) -> None:
    array = np.zeros((1, 2, 3, 4), np.float32)
    array[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    write_volume(Volume(array, Grid.of_spacing((2, 3, 4), (1, 1, 2))), at(tmp_path, ending))
    np.testing.assert_array_equal(read_volume(at(tmp_path, ending)).array, array)


@pytest.mark.parametrize("ending", VOLUMES)
def test_label_values_are_not_rounded(tmp_path: Path, ending: str) -> None:
    array = np.zeros((1, 2, 3, 4), np.float64)
    array[0, 0, 0, :2] = 0.99999997, 1.0
    write_volume(Volume(array, Grid.of_spacing((2, 3, 4), (1, 1, 2))), at(tmp_path, ending))
    assert float(read_volume(at(tmp_path, ending)).array[0, 0, 0, 0]) == 0.99999997
    array[0, 0, 0, 2] = 1e300
    write_volume(Volume(array, Grid.of_spacing((2, 3, 4), (1, 1, 2))), at(tmp_path, ending))
    assert float(read_volume(at(tmp_path, ending)).array.max()) == 1e300


@pytest.mark.parametrize("ending", VOLUMES)
def test_several_volumes_are_refused_in_words_and_read_one_by_one(tmp_path: Path, ending: str) -> None:
    path = at(tmp_path, ending)
    base = stored_volume(3)
    array = np.concatenate([base.array, base.array * 2, base.array * 3])
    write_volume(Volume(array, base.grid), path)
    assert volumes_in(path) == 3
    with pytest.raises(InputError, match=r"holds 3 volumes.*choose one"):
        read_volume(path)
    for index in range(3):
        np.testing.assert_array_equal(read_volume(path, volume_index=index).array, array[index : index + 1])
    with pytest.raises(InputError, match="volume 3 was asked for, but the file holds 3"):
        read_volume(path, volume_index=3)
    mask = Volume(np.ones((1, *base.grid.shape), np.uint8), read_volume(path, volume_index=1).grid)
    write_volume(mask, tmp_path / f"mask{ending}")
    again = read_volume(tmp_path / f"mask{ending}")
    assert volumes_in(tmp_path / f"mask{ending}") == 1
    np.testing.assert_allclose(again.grid.stored.affine, mask.grid.stored.affine, atol=1e-12)


@pytest.mark.parametrize("ending", VOLUMES)
def test_files_of_another_kind_are_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str) -> None:
    path = at(tmp_path, ending)
    for content, told in ((b"", "is empty"), (b"case;value\n1;2\n" * 100, "not"), (b"\x1f\x8b\x08" + b"x" * 400, ": ")):
        path.write_bytes(content)
        for read in (read_volume, read_grid, volumes_in):
            with pytest.raises(InputError, match=told) as caught:
                read(path)
            assert str(caught.value).startswith(f"{path}: ")
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < len(str(path)) + 250
    assert capfd.readouterr() == ("", "")
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        read_volume(path)
    path.symlink_to(tmp_path / "annex" / "object")
    with pytest.raises(InputError, match="link to a file that is not there"):
        read_volume(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_truncated_files_are_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str, share: float
) -> None:
    path = at(tmp_path, ending)
    write_volume(stored_volume(1, shape=(12, 12, 12)), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"truncated|damaged") as caught:
        read_volume(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_detached_voxels_that_are_gone_are_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str
) -> None:
    path = at(tmp_path, ending)
    write_volume(stored_volume(1), path)
    (voxels,) = (f for f in tmp_path.iterdir() if f != path)
    voxels.unlink()
    with pytest.raises(InputError) as caught:
        read_volume(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", VOLUMES)
def test_sheared_files_are_refused(tmp_path: Path, ending: str) -> None:
    path = at(tmp_path, ending)
    matrix = np.eye(4)
    matrix[1, 2] = 0.3
    if ".nii" in ending:
        import nibabel

        nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), matrix), path)
    else:
        import SimpleITK

        image = SimpleITK.GetImageFromArray(np.zeros((5, 4, 3), np.float32))
        image.SetDirection(matrix[:3, :3].ravel())
        SimpleITK.WriteImage(image, str(path))
    with pytest.raises(GeometryError, match="from right angles"):
        read_volume(path)
    with pytest.raises(GeometryError, match="from right angles"):
        read_grid(path)


def test_unknown_endings_name_the_known_ones(tmp_path: Path) -> None:
    for name in ("a.gif", "a.nii.zip", "a"):
        with pytest.raises(InputError, match=r"\.nii\.gz, \.nii, \.mha"):
            read_volume(tmp_path / name)
        with pytest.raises(InputError, match=r"\.nii\.gz, \.nii, \.mha"):
            write_volume(stored_volume(1), tmp_path / name)


def test_endings_are_known_in_any_case() -> None:
    assert strip_ending("a.b.NII.GZ") == "a.b"
    assert strip_ending("x.mha") == "x"
    assert strip_ending("x.PNG") == "x"
    assert strip_ending("x.gif") is None
    assert len(set(endings())) == sum(len(f.endings) for f in FORMATS)


@pytest.mark.parametrize("ending", VOLUMES)
def test_writing_is_whole_or_nothing(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    write_volume(stored_volume(1), path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    with pytest.raises(InputError, match="cannot be written"):
        write_volume(Volume(np.zeros((1, 2, 2, 2), np.complex64), Grid.of_spacing((2, 2, 2), (1, 1, 1))), path)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before
    write_volume(stored_volume(1), path)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before  # the same bits each time
    write_volume(Volume(np.ones((1, 2, 2, 2), bool), Grid.of_spacing((2, 2, 2), (1, 1, 1))), path)
    assert read_volume(path).array.dtype == np.uint8
    assert set(before) == {f.name for f in tmp_path.iterdir()}


def test_like_must_be_the_same_lattice(tmp_path: Path) -> None:
    volume = stored_volume(4)
    write_volume(volume, tmp_path / "a.nii.gz")
    like = read_grid(tmp_path / "a.nii.gz")
    bare = Volume(volume.array, Grid(volume.grid.shape, volume.grid.affine))
    write_volume(bare, tmp_path / "b.nii.gz", like=like)
    np.testing.assert_array_equal(read_grid(tmp_path / "b.nii.gz").stored.affine, like.stored.affine)
    moved = Volume(volume.array, Grid(volume.grid.shape, volume.grid.affine + np.diag([0, 0, 0.5, 0])))
    with pytest.raises(GeometryError, match="another grid"):
        write_volume(moved, tmp_path / "c.nii.gz", like=like)
    assert not (tmp_path / "c.nii.gz").exists()


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_planes_keep_two_axes(tmp_path: Path, ending: str) -> None:
    affine = np.array([[0, -2.0, 5], [1.5, 0, -3], [0, 0, 1]])
    array = np.random.default_rng(0).random((1, 3, 4)).astype(np.float32)
    volume = canonical(array, affine, file_format="made", name="x")
    write_volume(volume, tmp_path / f"x{ending}")
    again = read_volume(tmp_path / f"x{ending}")
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.grid.stored.affine, affine)


def test_importing_io_loads_no_reader() -> None:
    readers = "('torch', 'nibabel', 'SimpleITK', 'scipy', 'PIL')"
    code = f"import sys, neoseg.io; print([m for m in {readers} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@needs_data
@pytest.mark.parametrize("name", REAL)
def test_real_scans_round_trip_in_every_format(tmp_path: Path, name: str) -> None:
    shape, spacing = REAL[name]
    volume = read_volume(DATA / name)
    assert volume.array.shape == (1, *shape)
    np.testing.assert_allclose(volume.spacing, spacing, rtol=1e-4)
    for ending in (".nii", ".mha", ".nrrd"):
        write_volume(volume, tmp_path / f"x{ending}")
        again = read_volume(tmp_path / f"x{ending}")
        assert again.array.dtype == volume.array.dtype
        np.testing.assert_array_equal(again.array, volume.array)
        assert same_grid(again.grid, volume.grid, 1e-4)
        (tmp_path / f"x{ending}").unlink()
