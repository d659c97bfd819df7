"""Which brain mask belongs to which new scan."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from neoseg.errors import InputError
from neoseg.pipeline.scan_files import scans_in
from neoseg.pipeline.scan_masks import with_masks

ONE, TWO = ("adc",), ("adc", "t1")


def write(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        nib.save(nib.Nifti1Image(np.ones((3, 4, 5), dtype=np.float32), np.eye(4)), folder / name)


def given(source: Path, masks: Path, channels: tuple[str, ...] = ONE) -> dict[str, str | None]:
    files = with_masks(scans_in(source, channels), masks, channels)
    return {scan.case: scan.mask.name if scan.mask is not None else None for scan in files.scans}


def test_masks_among_the_scans_are_masks_and_no_scans(tmp_path: Path) -> None:
    write(tmp_path, "a.nii.gz", "a_mask.nii.gz", "b_adc.nii.gz", "b_mask.nii.gz", "c.nii.gz")
    assert given(tmp_path, tmp_path) == {"a": "a_mask.nii.gz", "b_adc": "b_mask.nii.gz", "c": None}


def test_a_folder_of_masks_may_use_the_names_of_the_scans(tmp_path: Path) -> None:
    write(tmp_path / "in", "a.nii.gz", "b_adc.nii.gz", "c_adc.nii.gz")
    write(tmp_path / "masks", "a.nii.gz", "b.nii.gz", "c_adc_mask.nii", "c_mask.nii.gz", "z.nii.gz")
    assert given(tmp_path / "in", tmp_path / "masks") == {
        "a": "a.nii.gz",
        "b_adc": "b.nii.gz",
        "c_adc": "c_adc_mask.nii",
    }


def test_scans_of_several_channels_have_one_mask(tmp_path: Path) -> None:
    write(tmp_path, "a_adc.nii.gz", "a_t1.nii.gz", "a_mask.nii.gz", "note.nii.gz")
    files = with_masks(scans_in(tmp_path, TWO), tmp_path, TWO)
    assert [(s.case, s.mask) for s in files.scans] == [("a", tmp_path / "a_mask.nii.gz")]
    assert list(files.left_out) == ["note.nii.gz"]


def test_one_mask_for_a_whole_scan_and_one_that_lacks_a_channel_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a_adc.nii.gz", "b_adc.nii.gz", "b_t1.nii.gz", "brain.nii.gz")
    with pytest.raises(InputError, match="one mask was given for 2 scans"):
        given(tmp_path, tmp_path / "brain.nii.gz", TWO)


def test_one_file_is_the_mask_of_one_scan(tmp_path: Path) -> None:
    write(tmp_path, "a.nii.gz", "brain.nii.gz")
    assert given(tmp_path / "a.nii.gz", tmp_path / "brain.nii.gz") == {"a": "brain.nii.gz"}
    assert given(tmp_path, tmp_path / "brain.nii.gz") == {"a": "brain.nii.gz"}


def test_mistakes_have_one_sentence(tmp_path: Path) -> None:
    write(tmp_path / "in", "a.nii.gz", "b.nii.gz")
    write(tmp_path / "masks", "z_mask.nii.gz")
    write(tmp_path / "twice", "a_mask.nii.gz", "a_mask.nii")
    (tmp_path / "notes.txt").write_text("no image")
    for masks, words in [
        (tmp_path / "masks", r"no mask here belongs to a scan; call that of a a_mask"),
        (tmp_path / "in", r"no mask here belongs to a scan"),
        (tmp_path / "masks" / "z_mask.nii.gz", r"one mask was given for 2 scans.*a_mask"),
        (tmp_path / "twice", r"is a mask of a too"),
        (tmp_path / "nowhere", r"no such file or folder; correct --mask"),
        (tmp_path / "notes.txt", r"no image of a known format"),
    ]:
        with pytest.raises(InputError, match=words):
            given(tmp_path / "in", masks)


def test_masks_of_scans_that_are_called_as_in_nnunet(tmp_path: Path) -> None:
    write(tmp_path / "in", "a_0000.nii.gz", "b_0000.nii.gz", "c_0000.nii.gz", "d_0000.nii.gz")
    write(tmp_path / "masks", "a.nii.gz", "b_0000.nii.gz", "c_mask.nii.gz", "d_0000_mask.nii.gz")
    assert given(tmp_path / "in", tmp_path / "masks") == {
        "a": "a.nii.gz",
        "b": "b_0000.nii.gz",
        "c": "c_mask.nii.gz",
        "d": "d_0000_mask.nii.gz",
    }
    # masks that lie among the scans change no name
    write(tmp_path / "both", "a_0000.nii.gz", "b_0000.nii.gz", "a_mask.nii.gz", "b_0000_mask.nii.gz")
    assert given(tmp_path / "both", tmp_path / "both") == {"a": "a_mask.nii.gz", "b": "b_0000_mask.nii.gz"}
    write(tmp_path / "twice", "a_0000_0000.nii.gz", "a_mask.nii.gz", "a_0000_mask.nii.gz")
    one = tmp_path / "twice" / "a_0000_0000.nii.gz"
    assert given(one, tmp_path / "twice") == {"a_0000": "a_0000_mask.nii.gz"}
    files = with_masks(scans_in(str(one), ONE), str(tmp_path / "twice" / "a_mask.nii.gz"), ONE)
    assert [scan.case for scan in files.scans] == ["a_0000"]
