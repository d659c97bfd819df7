"""Which files of a folder are scans of a run: by name, by number of volumes, and what is told of the others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from neoseg.data.layouts.files import images_in
from neoseg.errors import InputError
from neoseg.pipeline.scan_files import Stacked, scans_in

TWO = ("flair", "t1")


def write(folder: Path, *names: str, volumes: int = 1) -> None:
    shape = (3, 4, 5) if volumes == 1 else (3, 4, 5, volumes)
    for name in names:
        nib.save(nib.Nifti1Image(np.ones(shape, dtype=np.float32), np.eye(4)), folder / name)


def test_files_that_match_no_channel_are_named(tmp_path: Path) -> None:
    write(tmp_path, "a_flair.nii.gz", "a_t1.nii.gz", "a_seg.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz", "t1.nii.gz")
    found = scans_in(tmp_path, TWO)
    assert [(s.case, {c: p.name for c, p in s.images.items()}) for s in found.scans] == [
        ("a", {"flair": "a_flair.nii.gz", "t1": "a_t1.nii.gz"}),
        ("b", {"flair": "b_0000.nii.gz", "t1": "b_0001.nii.gz"}),
    ]
    assert list(found.left_out) == ["a_seg.nii.gz", "t1.nii.gz"]
    assert all("_flair, _t1" in why for why in found.left_out.values())


def test_nothing_that_matches_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "a.nii.gz", "b.nii.gz")
    with pytest.raises(InputError, match=r"no image there is a scan of this run.*a\.nii\.gz was left out"):
        scans_in(tmp_path, TWO)


def test_a_run_on_colours_takes_any_picture_and_a_run_on_volumes_none(tmp_path: Path) -> None:
    from PIL import Image

    grey = Image.fromarray(np.zeros((4, 5), np.uint8))
    grey.save(tmp_path / "grey.png")
    grey.convert("RGB").save(tmp_path / "colour.tif")
    write(tmp_path, "volume.nii.gz")
    colours = ("red", "green", "blue")
    index = {name: number for number, name in enumerate(colours)}
    found = scans_in(tmp_path, colours, Stacked(3, index, colours=True), axes=2)
    assert [(s.case, s.channel_index) for s in found.scans] == [("colour", index), ("grey", index)]
    assert list(found.left_out) == ["volume.nii.gz"]
    assert [s.case for s in scans_in(tmp_path, ("t1",)).scans] == ["volume"]


def test_two_files_of_one_scan_lose_no_other(tmp_path: Path) -> None:
    write(tmp_path, "a.nii.gz", "a.nii", "b.nii.gz")
    found = scans_in(tmp_path, ("t1",))
    assert [scan.case for scan in found.scans] == ["b"]
    assert [one.case for one in found.incomplete] == ["a"]
    assert found.incomplete[0].why.endswith("a.nii and a.nii.gz are both the scan 'a'; keep one of them.")


def test_a_folder_for_each_channel_is_read_as_by_the_import(tmp_path: Path) -> None:
    for name in ("FLAIR", "t1", "notes"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "a.nii.gz", *(["b.nii.gz"] if name == "t1" else []))
    found = scans_in(tmp_path, TWO)
    assert [(s.case, {c: p.parent.name for c, p in s.images.items()}) for s in found.scans] == [
        ("a", {"flair": "FLAIR", "t1": "t1"})
    ]
    assert [one.case for one in found.incomplete] == ["b"] and list(found.left_out) == ["notes/"]
    write(tmp_path, "c_flair.nii.gz", "c_t1.nii.gz")
    assert [scan.case for scan in scans_in(tmp_path, TWO).scans] == ["c"]


def test_accents_in_two_spellings_are_one_scan(tmp_path: Path) -> None:
    write(tmp_path, "e\u0301_flair.nii.gz", "\u00e9_t1.nii.gz")
    assert [s.case for s in scans_in(tmp_path, TWO).scans] == ["\u00e9"]


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    from PIL import Image

    grey = Image.fromarray(np.zeros((4, 5), np.uint8))
    grey.save(tmp_path / "j.gif")
    with pytest.raises(InputError, match=r"no image .*j\.gif was left out: .* convert it to PNG\."):
        scans_in(tmp_path, ("grey",), axes=2)
    grey.save(tmp_path / "a.png")
    assert list(scans_in(tmp_path, ("grey",), axes=2).left_out) == ["j.gif"]
    write(tmp_path, "v.nii.gz")
    (tmp_path / "w.mgz").write_bytes(b"x")
    found = scans_in(tmp_path, ("t1",))  # pictures among volumes are previews
    assert ([s.case for s in found.scans], list(found.left_out)) == (["v"], ["w.mgz"])


def test_a_4d_file_is_a_scan_where_the_training_had_such(tmp_path: Path) -> None:
    write(tmp_path, "stack.nii.gz", volumes=3)
    write(tmp_path, "two.nii.gz", volumes=2)
    write(tmp_path, "plain.nii.gz")
    (tmp_path / "broken.nii.gz").write_text("no image")
    # The network sees two of the three volumes, in an order of its own.
    found = scans_in(tmp_path, TWO, Stacked(3, {"t1": 0, "t2": 1, "flair": 2}))
    assert [s.case for s in found.scans] == ["broken", "stack"]
    assert found.scans[1].channel_index == {"t1": 0, "t2": 1, "flair": 2}
    assert set(found.scans[1].images.values()) == {tmp_path / "stack.nii.gz"}
    assert list(found.left_out) == ["plain.nii.gz", "two.nii.gz"]
    assert "holds 2 volumes, not the 3 of the training" in found.left_out["two.nii.gz"]


def test_a_4d_file_is_no_scan_where_the_training_had_one_file_a_channel(tmp_path: Path) -> None:
    write(tmp_path, "stack.nii.gz", volumes=2)
    with pytest.raises(InputError, match=r"the training had no 4-D files"):
        scans_in(tmp_path, TWO)


def test_one_channel_out_of_4d_files(tmp_path: Path) -> None:
    write(tmp_path, "stack.nii.gz", volumes=2)
    write(tmp_path, "plain.nii.gz")
    plain, stack = scans_in(tmp_path, ("t1",), Stacked(2, {"flair": 0, "t1": 1})).scans
    assert (plain.images, plain.channel_index) == ({"t1": tmp_path / "plain.nii.gz"}, {})
    assert stack.channel_index["t1"] == 1


def test_one_place_is_claimed_once(tmp_path: Path) -> None:
    write(tmp_path, "a_flair.nii.gz", "a_0000.nii.gz", "a_t1.nii.gz")
    with pytest.raises(InputError, match="both the channel 'flair' of the scan 'a'; keep one of them"):
        scans_in(tmp_path, TWO)
    (tmp_path / "one").mkdir()
    write(tmp_path / "one", "a.nii.gz", "a.nii")
    with pytest.raises(InputError, match="are both the scan 'a'; keep one of them"):
        scans_in(tmp_path / "one", ("adc",))


def test_a_scan_that_lacks_a_channel_is_told(tmp_path: Path) -> None:
    write(tmp_path, "a_flair.nii.gz", "a_t1.nii.gz", "b_t1.nii.gz")
    found = scans_in(tmp_path, TWO)
    assert [scan.case for scan in found.scans] == ["a"] and not found.left_out
    (lacking,) = found.incomplete
    assert (lacking.case, lacking.images) == ("b", (tmp_path / "b_t1.nii.gz",))
    assert "the scan 'b' lacks ['flair']; add b_flair" in lacking.why
    with pytest.raises(InputError, match=r"the scan 'b' lacks \['flair'\]"):
        scans_in(tmp_path / "b_t1.nii.gz", TWO)


def test_a_channel_called_as_the_end_of_another_is_not_taken_for_it(tmp_path: Path) -> None:
    write(tmp_path, "p_t1.nii.gz", "p_ce_t1.nii.gz")
    for channels in (("t1", "ce_t1"), ("ce_t1", "t1")):
        (scan,) = scans_in(tmp_path, channels).scans
        assert (scan.case, {c: p.name for c, p in scan.images.items()}) == (
            "p",
            {"t1": "p_t1.nii.gz", "ce_t1": "p_ce_t1.nii.gz"},
        )


def test_a_scan_of_one_channel_is_called_as_nnunet_calls_its_case(tmp_path: Path) -> None:
    write(tmp_path, "a_0000.nii.gz", "b_0000.nii.gz")
    assert [s.case for s in scans_in(str(tmp_path), ("adc",)).scans] == ["a", "b"]
    (scan,) = scans_in(tmp_path / "a_0000.nii.gz", ("adc",)).scans
    assert (scan.case, scan.subject, scan.images) == ("a", "a", {"adc": tmp_path / "a_0000.nii.gz"})
    write(tmp_path, "c.nii.gz")
    assert [s.case for s in scans_in(tmp_path, ("adc",)).scans] == ["a_0000", "b_0000", "c"]
    (tmp_path / "twice").mkdir()
    write(tmp_path / "twice", "a_0000_0000.nii.gz", "_0000.nii.gz")
    assert [s.case for s in scans_in(tmp_path / "twice", ("adc",)).scans] == ["_0000", "a_0000_0000"]
    assert [s.case for s in scans_in(tmp_path / "twice" / "a_0000_0000.nii.gz", ("adc",)).scans] == ["a_0000"]


def test_numbers_count_the_channels_of_the_data_set(tmp_path: Path) -> None:
    table = ("t1", "t2", "flair")
    write(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "a_0002.nii.gz")
    for channels in (("t1", "flair"), ("flair", "t1")):
        found = scans_in(tmp_path, channels, table=table)
        (scan,) = found.scans
        assert {c: p.name for c, p in scan.images.items()} == {"t1": "a_0000.nii.gz", "flair": "a_0002.nii.gz"}
        assert found.left_out["a_0001.nii.gz"].endswith("it is the channel 't2', which this run does not read.")
    alone = scans_in(tmp_path, ("flair",), table=table)
    assert [(s.case, s.images["flair"].name) for s in alone.scans] == [("a", "a_0002.nii.gz")]
    assert list(alone.left_out) == ["a_0000.nii.gz", "a_0001.nii.gz"]
    # names that tell nothing are scans of the one channel, as ever
    (tmp_path / "plain").mkdir()
    write(tmp_path / "plain", "b.nii.gz")
    assert [s.case for s in scans_in(tmp_path / "plain", ("flair",), table=table).scans] == ["b"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are text on this system")
def test_a_name_that_is_no_text_is_refused_in_words(tmp_path: Path) -> None:
    write(tmp_path, "a.nii.gz")
    (tmp_path / "a.nii.gz").rename(tmp_path / os.fsdecode(b"M\xfcller.nii.gz"))
    with pytest.raises(InputError, match=r"M\\xfcller\.nii\.gz: the name of this file is not written in UTF-8"):
        scans_in(tmp_path, ("adc",))
    with pytest.raises(InputError, match="not written in UTF-8"):
        images_in(tmp_path)


def test_folders_with_images_in_the_folder_are_told(tmp_path: Path) -> None:
    for name in ("a.png", "pat/b.png", "pat/c.png", "empty/notes.txt", ".hidden/d.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    found = scans_in(tmp_path, ("grey",), axes=2)
    assert [scan.case for scan in found.scans] == ["a"]
    assert list(found.left_out) == ["pat/"] and "give that folder as --input" in found.left_out["pat/"]
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"holds no image .* The images in pat/ were left out"):
        scans_in(tmp_path, ("grey",), axes=2)
