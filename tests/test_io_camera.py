"""JPEG and BMP: read as they show, never as what they do not hold, and not written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neoseg.errors import InputError
from neoseg.io import mask_ending, read_grid, read_label, read_volume, volumes_in, write_volume

COLOUR = np.random.default_rng(0).integers(0, 256, (7, 11, 3), np.uint8)
GREY = COLOUR[..., 0]
ORIENTATION = 0x0112


@pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".bmp"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_pixels_are_those_that_are_shown(tmp_path: Path, ending: str, pixels: np.ndarray) -> None:
    path = tmp_path / f"x{ending}"
    Image.fromarray(pixels).save(path, quality=95)
    shown = np.asarray(Image.open(path))
    if ending == ".bmp":
        np.testing.assert_array_equal(shown, pixels)
    assert volumes_in(path) == (3 if pixels.ndim == 3 else 1)
    for index in range(3):
        found = read_volume(path, volume_index=index)
        channel = shown[..., index] if pixels.ndim == 3 else shown
        np.testing.assert_array_equal(found.array[0], channel.T)
        assert (found.grid.unit, found.grid.shape) == ("px", (11, 7)) == (read_grid(path).unit, read_grid(path).shape)


def test_a_label_may_be_a_bmp_and_no_jpeg(tmp_path: Path) -> None:
    classes = (GREY % 4).astype(np.uint8)
    indexed = Image.fromarray(classes, "P")
    indexed.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    indexed.save(tmp_path / "palette.bmp")
    Image.fromarray(classes > 1).save(tmp_path / "bits.bmp")
    Image.fromarray(classes).save(tmp_path / "grey.bmp")
    Image.fromarray(classes).save(tmp_path / "grey.jpg")
    for name, wanted in (("palette", classes), ("bits", classes > 1), ("grey", classes)):
        found = read_label(tmp_path / f"{name}.bmp").array[0].T
        np.testing.assert_array_equal(found > 0 if name == "bits" else found, wanted)
        assert len(np.unique(found)) == len(np.unique(wanted))
    assert volumes_in(tmp_path / "palette.bmp") == 3
    assert read_volume(tmp_path / "palette.bmp", volume_index=0).array.max() == 200
    with pytest.raises(InputError, match=r"grey\.jpg: a JPEG does not keep .*; save the mask as PNG"):
        read_label(tmp_path / "grey.jpg")


def test_a_camera_that_was_held_upright_is_refused_in_words(tmp_path: Path) -> None:
    for turn in (1, 6):
        exif = Image.Exif()
        exif[ORIENTATION] = turn
        Image.fromarray(COLOUR).save(tmp_path / f"{turn}.jpg", exif=exif)
    assert volumes_in(tmp_path / "1.jpg") == 3
    for read in (read_volume, read_grid, volumes_in):
        with pytest.raises(InputError, match=r"6\.jpg: the file is marked to be turned .*orientation 6"):
            read(tmp_path / "6.jpg")


def test_other_kinds_of_jpeg_and_damage_are_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "print.jpg")
    with pytest.raises(InputError, match=r"print\.jpg: its pixels are of the kind 'CMYK'; save it as grey or RGB"):
        read_volume(tmp_path / "print.jpg", volume_index=0)
    large = np.random.default_rng(1).integers(0, 256, (90, 80, 3), np.uint8)
    for name in ("x.jpg", "x.bmp"):
        path = tmp_path / name
        Image.fromarray(large).save(path)
        content = path.read_bytes()
        for broken in (content[: len(content) // 3], content[:10], b"\x89PNG\r\n\x1a\n" + content[8:], b"a;b\n" * 99):
            path.write_bytes(broken)
            with pytest.raises(InputError) as caught:
                read_volume(path, volume_index=0)
            assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_masks_of_such_pictures_are_png(tmp_path: Path) -> None:
    endings = {"a.jpg": ".png", "a.JPEG": ".png", "a.bmp": ".png", "a.PNG": ".PNG", "a.tif": ".tif", "a.b.nii": ".nii"}
    assert {name: mask_ending(tmp_path / name) for name in endings} == endings
    Image.fromarray(GREY).save(tmp_path / "a.png")
    for ending in (".jpg", ".bmp"):
        with pytest.raises(InputError, match=r"is read but not written; give a name that ends in \.png or \.tif"):
            write_volume(read_volume(tmp_path / "a.png"), tmp_path / f"b{ending}")
        assert not (tmp_path / f"b{ending}").exists()
