"""PNG and TIFF: what is written comes back, and a corner of the picture stays that corner."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from neoseg.data.cases import Case
from neoseg.data.loading import load_images
from neoseg.errors import GeometryError, InputError
from neoseg.io import FORMATS, read_grid, read_label, read_volume, volumes_in, write_volume
from neoseg.labels import LabelSet
from neoseg.volume import Grid, Volume

PICTURES = tuple(e for f in FORMATS if f.planar and f.masks_as is None for e in f.endings)
"""Endings that are written, too."""

KINDS = [(e, t) for e in PICTURES for t in (np.uint8, np.uint16)] + [
    (e, t) for e in (".tif", ".tiff") for t in (np.int32, np.float32)
]
sides = st.tuples(st.integers(1, 40), st.integers(1, 40))


def png(
    path: Path, shape: tuple[int, int], bits: int, kind: int, rows: list[bytes], *chunks: tuple[bytes, bytes]
) -> Path:
    """Write a PNG by hand: bits a channel, kind of colour, the bytes of each row, further chunks before the pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows_of, columns = shape
    parts = [(b"IHDR", struct.pack(">IIBBBBB", columns, rows_of, bits, kind, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def tiff(
    path: Path,
    size: tuple[int, int],
    bits: int,
    pieces: list[bytes],
    *,
    white: int = 1,
    kind: int = 1,
    tiled: bool = False,
) -> Path:
    """Write a TIFF by hand, (columns, rows): three pieces are the planes of a colour each, one piece is grey.

    Args:
        path, size: the file, its columns and rows.
        bits: of a number.
        pieces: the bytes of each strip or tile.
        white: what the photometric tag says of grey: 0, WhiteIsZero, or 1.
        kind: 1 without a sign, 2 with one, 3 floating point.
        tiled: one tile of the size of the picture, red, green and blue side by side.
    """
    colours = 3 if tiled else len(pieces)
    entries: dict[int, list[int]] = {256: [size[0]], 257: [size[1]], 258: [bits] * colours, 259: [1]}
    entries |= {262: [white if colours == 1 else 2], 277: [colours], 284: [2 if len(pieces) > 1 else 1]}
    entries |= {339: [kind] * colours} | ({322: [size[0]], 323: [size[1]]} if tiled else {278: [size[1]]})
    offsets, counts = (324, 325) if tiled else (273, 279)
    entries[counts] = [len(piece) for piece in pieces]
    after = 8 + 2 + 12 * (len(entries) + 1) + 4
    long = {tag: values for tag, values in entries.items() if len(values) > 1}
    starts = [after + 4 * 3 * (len(long) + 1)]
    for piece in pieces[:-1]:
        starts.append(starts[-1] + len(piece))
    entries[offsets] = starts
    head, tail = b"", b""
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            packed, tail = struct.pack("<I", after + len(tail)), tail + packed
        head += struct.pack("<HHI", tag, 4, len(values)) + packed
    content = b"II*\0" + struct.pack("<IH", 8, len(entries)) + head + bytes(4) + tail
    path.write_bytes(content.ljust(starts[0], b"\0") + b"".join(pieces))
    return path


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), shape=sides)
@pytest.mark.parametrize(("ending", "dtype"), KINDS)
def test_written_then_read_is_the_same(ending: str, dtype: type, seed: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    top = 1.0 if dtype is np.float32 else min(np.iinfo(dtype).max, 2**31 - 1)
    array = (rng.random((1, *shape)) * top).astype(dtype)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"x{ending}"
        write_volume(Volume(array, Grid(shape, np.eye(3), unit="px")), path)
        again, grid, label = read_volume(path), read_grid(path), read_label(path)
        seen = np.asarray(Image.open(path))
    assert again.array.dtype == dtype
    np.testing.assert_array_equal(again.array, array)
    np.testing.assert_array_equal(label.array, array)
    np.testing.assert_array_equal(seen, array[0].T)  # rows are y, columns are x
    assert grid.shape == again.grid.shape == shape
    assert (again.grid.unit, again.grid.size_unit, again.spacing) == ("px", "px²", (1.0, 1.0))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), shape=sides)
@pytest.mark.parametrize("ending", PICTURES)
def test_colours_are_three_volumes_and_come_back(ending: str, seed: int, shape: tuple[int, int]) -> None:
    array = np.random.default_rng(seed).integers(0, 256, (3, *shape), np.uint8)
    array[0, 0, 0], array[1, 0, 0] = 1, 2  # in colour for certain
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"x{ending}"
        write_volume(Volume(array, Grid(shape, np.eye(3))), path)
        assert volumes_in(path) == 3
        for index in range(3):
            np.testing.assert_array_equal(read_volume(path, volume_index=index).array, array[index : index + 1])
        with pytest.raises(
            InputError,
            match=r"in colour, but one number a pixel .*; convert it .*training.*#0, #1 and #2",
        ):
            read_volume(path)
        with pytest.raises(InputError, match="label is in colour"):
            read_label(path)
        with pytest.raises(InputError, match="volume 3 was asked for"):
            read_volume(path, volume_index=3)


@pytest.mark.parametrize("ending", PICTURES)
def test_the_marked_corner_stays_the_corner(tmp_path: Path, ending: str) -> None:
    pixels = np.zeros((5, 9), np.uint8)  # 5 rows, 9 columns
    pixels[0, 8] = 200  # top right
    Image.fromarray(pixels).save(tmp_path / f"x{ending}")
    volume = read_volume(tmp_path / f"x{ending}")
    assert volume.array.shape == (1, 9, 5)
    assert volume.array[0, 8, 0] == 200
    assert tuple(volume.grid.to_world(np.array([8, 0]))) == (8.0, 0.0)
    mask = Volume((volume.array > 100).astype(np.uint8), volume.grid)
    for written in PICTURES:
        write_volume(mask, tmp_path / f"mask{written}")
        found = np.asarray(Image.open(tmp_path / f"mask{written}"))
        assert found.shape == (5, 9)
        assert np.argwhere(found).tolist() == [[0, 8]]


def test_a_grey_picture_is_each_colour(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "rgb.png")
    assert volumes_in(tmp_path / "grey.png") == 1
    for name in ("grey.png", "rgb.png"):
        for index in (None, 0, 1, 2):
            np.testing.assert_array_equal(read_volume(tmp_path / name, volume_index=index).array[0], grey.T)
        np.testing.assert_array_equal(read_label(tmp_path / name).array[0], grey.T)


def test_an_opaque_alpha_is_left_out_and_another_is_refused(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (3, 4, 4), np.uint8)
    rgb[..., 3] = 255
    for name, array in (("rgba", rgb), ("la", rgb[..., 2:])):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(read_volume(tmp_path / f"{name}.png", volume_index=0).array[0], array[..., 0].T)
        through = array.copy()
        through[1, 2, -1] = 254
        Image.fromarray(through).save(tmp_path / f"{name}.png")
        with pytest.raises(InputError, match="1 pixels are transparent"):
            read_volume(tmp_path / f"{name}.png", volume_index=0)
    key = png(tmp_path / "key.png", (1, 3), 8, 0, [bytes([1, 2, 3])], (b"tRNS", struct.pack(">H", 2)))
    with pytest.raises(InputError, match="1 pixels are transparent"):
        read_volume(key)


def test_a_palette_is_colours_of_an_image_and_classes_of_a_label(tmp_path: Path) -> None:
    table = bytes([0, 0, 0, 128, 0, 0, 0, 128, 0])  # PASCAL VOC
    path = png(tmp_path / "p.png", (2, 2), 8, 3, [bytes([0, 1]), bytes([2, 1])], (b"PLTE", table), (b"tRNS", b"\0"))
    assert read_label(path).array[0].T.tolist() == [[0, 1], [2, 1]]
    with pytest.raises(InputError, match="transparent"):
        read_volume(path, volume_index=0)
    path = png(tmp_path / "p.png", (2, 2), 4, 3, [b"\x01", b"\x21"], (b"PLTE", table))
    assert read_label(path).array[0].T.tolist() == [[0, 1], [2, 1]]
    assert volumes_in(path) == 3
    assert read_volume(path, volume_index=0).array[0].T.tolist() == [[0, 128], [0, 128]]
    assert read_volume(path, volume_index=1).array[0].T.tolist() == [[0, 0], [128, 0]]
    path = png(tmp_path / "g.png", (1, 2), 8, 3, [bytes([1, 0])], (b"PLTE", bytes([7, 7, 7, 90, 90, 90])))
    assert (volumes_in(path), read_volume(path).array.ravel().tolist()) == (1, [90, 7])


@pytest.mark.parametrize(
    ("bits", "row", "stored"), [(1, b"\x50", [0, 1, 0, 1]), (2, b"\x1b", [0, 1, 2, 3]), (4, b"\x0f\x12", [0, 15, 1, 2])]
)
def test_few_bits_are_kept_as_stored(tmp_path: Path, bits: int, row: bytes, stored: list[int]) -> None:
    path = png(tmp_path / "x.png", (1, 4), bits, 0, [row])
    assert read_label(path).array.ravel().tolist() == read_volume(path).array.ravel().tolist() == stored
    assert read_label(path).array.dtype == np.uint8


@pytest.mark.parametrize("kind", [2, 6])
def test_colours_of_16_bits_are_not_cut_to_8(tmp_path: Path, kind: int) -> None:
    alpha = [65535] if kind == 6 else []
    pixels = [[1, 2, 3, *alpha], [1000, 2000, 65535, *alpha]]
    row = b"".join(struct.pack(">H", v) for pixel in pixels for v in pixel)
    path = png(tmp_path / "x.png", (1, 2), 16, kind, [row])
    for index in range(3):
        found = read_volume(path, volume_index=index)
        assert found.array.dtype == np.uint16
        assert found.array.ravel().tolist() == [pixels[0][index], pixels[1][index]]


def test_grey_of_16_bits_with_alpha_and_tiff_colours_of_16_bits(tmp_path: Path) -> None:
    import SimpleITK

    path = png(tmp_path / "la.png", (1, 2), 16, 4, [struct.pack(">4H", 300, 65535, 7, 65535)])
    assert volumes_in(path) == 1
    with pytest.raises(InputError, match=r"la\.png: grey values of 16 bits with an alpha"):
        read_volume(path)
    colours = np.random.default_rng(0).integers(0, 65536, (3, 4, 5)).astype(np.uint16)
    pixels = np.moveaxis(colours, 0, -1).swapaxes(0, 1)
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.ascontiguousarray(pixels), isVector=True), str(tmp_path / "rgb.tif")
    )
    assert volumes_in(tmp_path / "rgb.tif") == 3
    for index in range(3):
        found = read_volume(tmp_path / "rgb.tif", volume_index=index)
        np.testing.assert_array_equal(found.array, colours[index : index + 1])


def test_a_tiff_that_calls_0_white_is_read_as_stored(tmp_path: Path) -> None:
    for bits, piece, stored in (
        (1, b"\x50", [0, 1, 0, 1]),
        (2, b"\x1b", [0, 1, 2, 3]),
        (4, b"\x0f\x12", [0, 15, 1, 2]),
        (8, bytes([0, 255, 7, 1]), [0, 255, 7, 1]),
        (16, struct.pack("<4H", 0, 65535, 7, 1), [0, 65535, 7, 1]),
    ):
        for white in (0, 1):
            path = tiff(tmp_path / "x.tif", (4, 1), bits, [piece], white=white)
            assert read_label(path).array.ravel().tolist() == stored, (bits, white)
            assert read_volume(path).array.ravel().tolist() == stored, (bits, white)
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(pixels).save(tmp_path / "x.tif", compression="tiff_adobe_deflate", tiffinfo={262: 0})
    np.testing.assert_array_equal(read_label(tmp_path / "x.tif").array[0].T, 255 - pixels)


def test_tiff_numbers_that_would_become_others_are_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "x.tif", (2, 1), 8, [struct.pack("2b", -47, 3)], kind=2)
    for read in (read_volume, read_label, volumes_in):
        with pytest.raises(InputError, match=r"x\.tif: .*\(int8\) are not read"):
            read(path)
    path = tiff(tmp_path / "x.tif", (2, 1), 32, [struct.pack("<2I", 5, 2**31 - 1)])
    assert read_volume(path).array.ravel().tolist() == [5, 2**31 - 1]
    path = tiff(tmp_path / "x.tif", (2, 1), 32, [struct.pack("<2I", 5, 2**31)])
    with pytest.raises(InputError, match=r"x\.tif: .*above 2147483647 \(uint32\)"):
        read_volume(path)
    path = tiff(tmp_path / "x.tif", (2, 1), 32, [struct.pack("<2i", 5, -7)], kind=2)
    assert read_volume(path).array.ravel().tolist() == [5, -7]


@pytest.mark.parametrize("tiled", [False, True])
def test_tiff_colours_of_16_bits_in_tiles_or_planes_are_not_cut_to_8(tmp_path: Path, tiled: bool) -> None:
    values = np.random.default_rng(0).integers(256, 65536, (16, 16, 3)).astype("<u2")
    pieces = [values.tobytes()] if tiled else [values[..., i].tobytes() for i in range(3)]
    path = tiff(tmp_path / "x.tif", (16, 16), 16, pieces, tiled=tiled)
    assert volumes_in(path) == 3
    with pytest.raises(InputError, match=r"x\.tif: colours of 16 bits that lie in tiles, or in a plane for each"):
        read_volume(path, volume_index=0)


def test_a_whole_tiff_of_another_kind_is_not_called_broken(tmp_path: Path) -> None:
    for bits, kind in ((64, 3), (16, 3), (64, 1)):
        path = tiff(tmp_path / "x.tif", (2, 1), bits, [bytes(2 * bits // 8)], kind=kind)
        with pytest.raises(InputError, match=r"x\.tif: this is a kind of TIFF that is not read; save it with 8 or 16"):
            read_volume(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match=r"x\.tif: the file is truncated"):
        read_volume(path)


def test_a_png_that_is_marked_as_turned_is_refused(tmp_path: Path) -> None:
    mark = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 274, 3, 1, 6, 0)
    path = png(tmp_path / "x.png", (1, 2), 8, 0, [bytes([1, 2])], (b"eXIf", mark))
    for read in (read_volume, read_label, volumes_in, read_grid):
        with pytest.raises(InputError, match=r"x\.png: .*marked to be turned .*orientation 6"):
            read(path)
    path = png(tmp_path / "x.png", (1, 2), 8, 0, [bytes([1, 2])], (b"eXIf", mark.replace(b"\6", b"\1")))
    assert read_volume(path).array.ravel().tolist() == [1, 2]
    png(path, (1, 2), 8, 0, [bytes([1, 2])], (b"eXIf", b"no mark"))
    assert read_volume(path).array.ravel().tolist() == [1, 2]
    png(path, (1, 2), 8, 0, [bytes([1, 2])])
    content, late = path.read_bytes(), struct.pack(">I", len(mark)) + b"eXIf" + mark
    path.write_bytes(content[:-12] + late + struct.pack(">I", zlib.crc32(b"eXIf" + mark)) + content[-12:])
    with pytest.raises(InputError, match="orientation 6"):
        read_volume(path)


def test_what_a_picture_does_not_hold_is_refused(tmp_path: Path) -> None:
    plane, space = Grid((3, 4), np.eye(3)), Grid((3, 4, 5), np.eye(4))
    for array, told in (
        (np.zeros((1, 3, 4), np.float32), "PNG holds one channel or three, of type uint8 or uint16"),
        (np.zeros((2, 3, 4), np.uint8), "2 channels of type uint8"),
        (np.zeros((3, 3, 4), np.uint16), "3 channels of type uint16"),
        (np.zeros((1, 3, 4), np.int16), "type int16"),
    ):
        with pytest.raises(InputError, match=told):
            write_volume(Volume(array, plane), tmp_path / "x.png")
    with pytest.raises(GeometryError, match=r"a plane, but the shape \(3, 4, 5\)"):
        write_volume(Volume(np.zeros((1, 3, 4, 5), np.uint8), space), tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_stacks_turned_pictures_and_other_colours_are_one_sentence(tmp_path: Path) -> None:
    page = Image.fromarray(np.zeros((3, 4), np.uint8))
    page.save(tmp_path / "stack.tif", save_all=True, append_images=[page, page])
    page.save(tmp_path / "turned.tif", tiffinfo={274: 6})
    page.convert("CMYK").save(tmp_path / "print.tif")
    for name, told in (("stack", "holds 3 pages"), ("turned", "orientation 6"), ("print", "'CMYK'; save it as grey")):
        for read in (read_volume, read_label, volumes_in):
            with pytest.raises(InputError, match=told) as caught:
                read(tmp_path / f"{name}.tif")
            assert str(caught.value).startswith(f"{tmp_path / name}.tif: ")


@pytest.mark.parametrize("ending", PICTURES)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.98])
def test_truncated_and_fake_files_are_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str, share: float
) -> None:
    path = tmp_path / f"x{ending}"
    noise = np.random.default_rng(0).integers(0, 256, (1, 50, 60), np.uint8)
    write_volume(Volume(noise, Grid((50, 60), np.eye(3))), path)
    content = path.read_bytes()
    fake = b"GIF89a" + content[6:]
    for broken in (content[: int(share * len(content))], b"", fake, b"case;value\n" * 50):
        path.write_bytes(broken)
        with pytest.raises(InputError) as caught:
            read_volume(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_png_is_never_another_picture(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    array = np.arange(60, dtype=np.uint8).reshape(1, 6, 10)
    write_volume(Volume(array, Grid((6, 10), np.eye(3))), path)
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 4
        path.write_bytes(bytes(damaged))
        try:
            np.testing.assert_array_equal(read_volume(path).array, array)
            assert place >= len(content) - 12, place  # the empty last piece
        except InputError as error:
            assert "x.png" in str(error)


def test_nan_and_infinity_are_grey_values_and_told_as_such(tmp_path: Path) -> None:
    array = np.ones((5, 4), np.float32)
    array[1, 2], array[3, 0], array[0, 1] = np.nan, np.inf, np.nan
    path = tmp_path / "x.tif"
    Image.fromarray(array).save(path)
    assert volumes_in(path) == 1
    for read in (read_volume, read_label):
        np.testing.assert_array_equal(read(path).array, array.T[None])
    with pytest.raises(InputError, match=r"x\.tif: 3 voxels are NaN or infinite; set them to a number first"):
        load_images(Case(case="x", subject="x", images={"grey": path}), ["grey"])
    with pytest.raises(InputError, match=r"x\.tif: the label holds the values \[inf, nan\], but only 0 and"):
        LabelSet.of({"nucleus": 1}).encode(read_label(path).array, str(path))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "int32", "float32"])
def test_numbers_of_both_byte_orders_are_read_packed_or_not(
    tmp_path: Path, kind: str, order: Literal["<", ">"], compression: str | None
) -> None:
    values = (np.arange(35).reshape(5, 7) * 3 - (0 if kind.startswith("u") else 50)).astype(kind)
    for name, more in (("strips", {}), ("tiles", {"tile": (16, 16)})):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, values, byteorder=order, compression=compression, **more)
        np.testing.assert_array_equal(read_volume(path).array[0].T, values)


@pytest.mark.parametrize("samples", [2, 4, 5])
def test_more_numbers_a_pixel_than_are_read_are_refused(tmp_path: Path, samples: int) -> None:
    colour = "minisblack" if samples == 2 else "rgb"
    values = np.full((5, 7, samples), 255, np.uint8)
    extra = ["unspecified"] * (1 if samples == 2 else samples - 3)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=colour, planarconfig="contig", extrasamples=extra)
    with pytest.raises(InputError, match=f"a.tif: it holds {samples} numbers a pixel"):
        volumes_in(tmp_path / "a.tif")
    if samples < 5:
        tifffile.imwrite(tmp_path / "b.tif", values, photometric=colour, planarconfig="contig", extrasamples=[2])
        assert read_volume(tmp_path / "b.tif").array.shape == (1, 7, 5)


def test_a_big_endian_bigtiff_is_refused_by_its_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((5, 7), np.uint8), byteorder=">", bigtiff=True)
    with pytest.raises(InputError, match="BigTIFF with big-endian numbers is not read"):
        read_volume(tmp_path / "a.tif")
