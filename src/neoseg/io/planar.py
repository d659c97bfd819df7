"""Pictures: PNG, BMP, JPEG and TIFF of one page, as planes ``(c, x, y)``.

x is the column and y the row, counted from the top: the picture is never turned or mirrored, on no way in or out. Its
world is in pixels (``Grid.unit`` is "px"), since the resolution that such files carry is that of a printer more often
than that of a microscope or scanner.

A picture has one channel (grey) or three (red, green, blue, as volumes 0, 1, 2). An alpha channel is left out where it
is opaque everywhere, and refused where it is not: what lies under it is not what one sees. A palette is looked up in an
image, but not in a label, whose classes are the indices, as in PASCAL VOC and DAVIS. Values of 1, 2 and 4 bits are kept
as stored, and so are those of a TIFF that calls 0 white (WhiteIsZero). JPEG and BMP are read and not written, and of
JPEG, which does not keep the numbers of its pixels, no labels. Standards: https://www.w3.org/TR/png-3, TIFF 6.0 (Adobe
1992).
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import replacing
from ..errors import GeometryError, InputError, NeosegError
from ..volume import Grid, Volume, canonical, to_stored
from .promise import require_room
from .values import as_read, as_written

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["COLOURS", "read", "read_grid", "read_label", "refuse_label", "refuse_to_write", "volumes_in", "write"]

COLOURS = ("red", "green", "blue")
"""Names of the channels of a picture in colour, in the order of its volumes."""

_GREY = ("1", "L", "LA", "I", "F")
_COLOUR = ("RGB", "RGBA")
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError,
    AssertionError, struct.error, zlib.error, UserWarning,
)  # fmt: skip
"""What Pillow raises on damaged files."""

_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 274, 258, 262, 277, 338, 339
"""Tags of TIFF; the first one of Exif too."""

_ALPHA = (1, 2)
"""What an extra sample of TIFF has to be called (_EXTRA_SAMPLES) to say how opaque a pixel is."""

_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""Big-endian kinds of numbers to those of this machine, in Pillow's names."""

_MARKED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""Parts of a PNG or a JPEG that may say how it is turned."""

_NAMES = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP"}
"""The formats in Pillow's names."""

_SCALED = {2: 85, 4: 17}
"""Pillow stretches grey values of 2 and 4 bits to 0..255 by these."""

_BYTES = 16
"""Bytes a pixel while a picture is unpacked."""


def read(path: Path, volume_index: int | None) -> Volume:
    """Read one channel of an image; see :func:`neoseg.io.read_volume`.

    Args:
        path: the file.
        volume_index: 0 red, 1 green, 2 blue; a grey picture is each of them. ``None``: the one channel that there is,
            three equal ones included.
    """
    values = _values(path, indices=False)
    if volume_index is None:
        if not _is_grey(values):
            raise InputError(
                f"{path}: the picture is in colour, but one number a pixel is wanted; convert it to grey, or, before a "
                f"training, name its channels in cases.csv ({path.name}#0, #1 and #2 for {', '.join(COLOURS)})."
            )
        volume_index = 0
    if not 0 <= volume_index < len(COLOURS):
        raise InputError(
            f"{path}: volume {volume_index} was asked for, but a picture has #0, #1 and #2 ({', '.join(COLOURS)})."
        )
    return _placed(path, values[min(volume_index, len(values) - 1)][None])


def read_label(path: Path) -> Volume:
    """Read a label; of a palette the indices are the values. See :func:`neoseg.io.read_label`."""
    values = _values(path, indices=True)
    if not _is_grey(values):
        raise InputError(
            f"{path}: the label is in colour, but each pixel has to hold the number of its class; store it as grey "
            "values or with a palette."
        )
    return _placed(path, values[:1])


def refuse_label(path: Path) -> Volume:
    """Refuse a label in a format that does not keep numbers.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"{path}: a JPEG does not keep the numbers of its pixels, so it cannot hold classes; save the mask as PNG, "
        "with a threshold where its classes have become smeared."
    )


def refuse_to_write(volume: Volume, path: Path) -> None:
    """Refuse a format that is only read.

    Raises:
        InputError: always.
    """
    raise InputError(f"{path}: {_name(path)} is read but not written; give a name that ends in .png or .tif.")


def read_grid(path: Path) -> Grid:
    """Read the size from the header; see :func:`neoseg.io.read_grid`."""
    with _opened(path) as image:
        return _placed(path, np.empty((0, image.height, image.width), dtype=np.uint8)).grid


def volumes_in(path: Path) -> int:
    """Return 3 for a picture in colour and 1 for a grey one, from the header."""
    with _opened(path) as image:
        return _channels(path, image)


def write(volume: Volume, path: Path) -> None:
    """Write a plane of one channel, or of three as red, green and blue.

    PNG takes uint8 and uint16, TIFF int32 and float32 too; three channels have to be uint8.

    Raises:
        GeometryError: a volume of three axes.
        InputError: values or channels that the format does not hold.
    """
    from PIL import Image

    if volume.grid.ndim != 2:
        raise GeometryError(
            f"{path}: a picture holds a plane, but the shape {volume.grid.shape} was given; write it as .nii.gz."
        )
    array, png = as_written(to_stored(volume), path), _name(path) == "PNG"
    held = ["uint8"] if len(array) > 1 else ["uint8", "uint16"] + ([] if png else ["int32", "float32"])
    if array.dtype.name not in held or len(array) not in (1, 3):
        raise InputError(
            f"{path}: {len(array)} channels of type {array.dtype} were given, but {_name(path)} holds one channel or "
            f"three, of type {' or '.join(held)}; convert them, or write .mha."
        )
    pixels = np.ascontiguousarray(np.moveaxis(array, 0, -1).swapaxes(0, 1))
    image = Image.fromarray(pixels if len(array) > 1 else pixels[..., 0])
    with replacing(path) as temporary:
        if png:
            image.save(temporary, "PNG")
        else:
            image.save(temporary, "TIFF", compression="tiff_adobe_deflate")


def _name(path: Path) -> str:
    return _NAMES[path.suffix.lower()]


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Give the picture, its header read and looked at; what Pillow says of a damaged file is told in one sentence."""
    from PIL import Image, UnidentifiedImageError

    with path.open("rb") as stream:
        begins = stream.read(12)
    if begins.startswith(b"MM\0+"):  # which Pillow takes for damaged
        raise InputError(f"{path}: a BigTIFF with big-endian numbers is not read; save it as an ordinary TIFF.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on unknown tags, and on large pictures, which are measured here
            warnings.filterwarnings("error", ".*([Tt]runcated|[Cc]orrupt)")
            with Image.open(path, formats=[_name(path)]) as image:
                _look(path, image)
                yield image
    except NeosegError:
        raise
    except UnidentifiedImageError as error:
        if _is_other_kind_of_tiff(path):
            raise InputError(
                f"{path}: this is a kind of TIFF that is not read; save it with 8 or 16 bits, or one channel as int32 "
                "or float32."
            ) from error
        raise InputError(
            f"{path}: this is not a readable {_name(path)} file (its content begins with {begins!r}); export the image "
            "again."
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: the picture is too large to be read whole ({error}); cut it into tiles.") from error
    except _DAMAGE as error:
        raise InputError(f"{path}: the file is truncated or damaged ({error}); copy it again.") from error


def _look(path: Path, image: Any) -> None:
    """Refuse what is more than one upright picture."""
    pages = int(getattr(image, "n_frames", 1))
    if pages != 1:
        raise InputError(
            f"{path}: the file holds {pages} pages, but one picture is wanted; save each page as a file, or the stack "
            "as .nii.gz."
        )
    _require_upright(path, image)
    require_room(path, image.width * image.height * _BYTES)


def _require_upright(path: Path, image: Any) -> None:
    """Refuse a picture that is marked to be turned, as far as the file was read: a PNG may say so after its pixels."""
    turn = _tags(image).get(_ORIENTATION, 1)
    if _MARKED & set(image.info) and _name(path) in ("PNG", "JPEG"):
        from PIL.Image import Image as Picture

        with suppress(*_DAMAGE):  # a mark that nobody can read turns nothing
            turn = Picture.getexif(image).get(_ORIENTATION, 1)
    if turn in range(2, 9):
        raise InputError(
            f"{path}: the file is marked to be turned or mirrored when shown (orientation {turn}); save it upright, "
            "and its label alike."
        )


def _is_other_kind_of_tiff(path: Path) -> bool:
    """Tell whether a file is a whole TIFF whose pixels Pillow has no name for."""
    from PIL.TiffImagePlugin import TiffImageFile

    if _name(path) != "TIFF":
        return False
    try:
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            TiffImageFile(stream).close()
    except SyntaxError as error:
        return str(error).startswith("unknown")
    except _DAMAGE:
        pass
    return False


def _tags(image: Any) -> Mapping[int, Any]:
    """Return the tags of a TIFF; none of the others."""
    return getattr(image, "tag_v2", {})


def _channels(path: Path, image: Image) -> int:
    channels = _named_channels(path, image)
    tags = _tags(image)
    samples, extra = tags.get(_SAMPLES, channels), tags.get(_EXTRA_SAMPLES) or (0,)
    if image.mode != "P" and samples > channels + (extra[0] in _ALPHA):
        raise InputError(
            f"{path}: it holds {samples} numbers a pixel, but a picture here has one channel or red, green and blue; "
            "save it as grey or RGB, or each channel as a file of its own and name them in cases.csv."
        )
    return channels


def _named_channels(path: Path, image: Image) -> int:
    """Return how many channels the kind of pixel has, by Pillow's name of it."""
    grey_with_alpha = _name(path) == "PNG" and _png_bits(path)[1] == 4  # of 16 bits it is RGBA to Pillow
    if image.mode == "L" and _tags(image).get(_SAMPLE_FORMAT, (1,))[0] == 2:  # Pillow would read -1 as 255
        raise InputError(f"{path}: numbers of 8 bits with a sign (int8) are not read; save it as int32 or float32.")
    if image.mode in _GREY or image.mode.startswith("I;16") or grey_with_alpha:
        return 1
    if image.mode == "P" and image.palette is not None:
        table = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        return 1 if (table == table[:, :1]).all() else 3
    if image.mode in _COLOUR:
        return 3
    raise InputError(f"{path}: its pixels are of the kind {image.mode!r}; save it as grey or RGB.")


def _values(path: Path, *, indices: bool) -> NDArray[Any]:
    """Return the channels ``(1 or 3, rows, columns)``, in a palette's place its indices where they are asked for."""
    if _name(path) == "PNG":
        with _opened(path) as image:
            image.verify()  # the checksums, which loading does not look at
    with _opened(path) as image:
        _channels(path, image)
        wide = _wide_colour(path, image)
        values = _narrow(path, image, indices=indices) if wide is None else _without_alpha(path, wide)
        if _name(path) == "PNG":
            image.load()
            _require_upright(path, image)
    return values


def _narrow(path: Path, image: Image, *, indices: bool) -> NDArray[Any]:
    """Return the channels as Pillow reads them."""
    if image.mode == "P" and indices:
        return as_read(np.asarray(image)[None], path)
    if image.mode == "P":
        return _without_alpha(path, np.asarray(image.convert("RGBA")))
    _unpack_once(image)
    array = np.asarray(image)
    if "transparency" in image.info:
        key = np.asarray(image.info["transparency"])
        seen = (array if array.ndim == 3 else array[..., None]) == key
        _require_opaque(path, int(seen.all(axis=-1).sum()))
    if image.mode in ("1", "L"):
        array = _as_stored(path, image, array)
    if image.mode == "I" and _tags(image).get(_SAMPLE_FORMAT, (1,))[0] == 1 and array.min() < 0:
        raise InputError(
            f"{path}: it holds values above 2147483647 (uint32), which are not read; save it as int32 or float32."
        )
    return _without_alpha(path, array) if image.mode in ("LA", "RGBA") else _first(as_read(array, path))


def _unpack_once(image: Any) -> None:
    """Keep Pillow from swapping the bytes of compressed big-endian numbers that libtiff has swapped already."""
    for index, tile in enumerate(image.tile):
        if tile.codec_name == "libtiff":
            kind, *more = tile.args
            image.tile[index] = tile._replace(args=(_NATIVE.get(kind, kind), *more))


def _as_stored(path: Path, image: Image, array: NDArray[Any]) -> NDArray[Any]:
    """Undo what Pillow does to grey values: it stretches few bits to 0..255, and turns them round where 0 is white."""
    tags = _tags(image)
    if tags.get(_PHOTOMETRIC) == 0:
        array = np.invert(array)
    bits = _png_bits(path)[0] if _name(path) == "PNG" else tags.get(_BITS, (1,))[0]
    return array // np.uint8(_SCALED[bits]) if bits in _SCALED else array


def _without_alpha(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """Return the channels before the last, which is opaque, of ``(rows, columns, 2 or 4)``; three have no alpha."""
    if array.shape[-1] == 3:
        return _first(array)
    alpha = array[..., -1]
    _require_opaque(path, int((alpha != np.iinfo(alpha.dtype).max).sum()))
    return _first(array[..., :-1])


def _require_opaque(path: Path, through: int) -> None:
    if through:
        raise InputError(
            f"{path}: {through} pixels are transparent, so what they show depends on what lies below; save the picture "
            "without an alpha channel."
        )


def _wide_colour(path: Path, image: Image) -> NDArray[Any] | None:
    """Return ``(rows, columns, c)`` of colours with 16 bits, which Pillow would cut to 8, else None."""
    if _name(path) == "PNG":
        bits, kind = _png_bits(path)
        wide = bits == 16 and kind in (2, 6)
        if bits == 16 and kind == 4:
            raise InputError(
                f"{path}: grey values of 16 bits with an alpha channel are not read; save it without alpha."
            )
    else:
        bits_of = getattr(image, "tag_v2", {}).get(_BITS, (8,))
        wide = image.mode not in ("L", "F", "1") and len(bits_of) > 1 and max(bits_of) > 8
    if not wide:
        return None
    import SimpleITK as sitk  # noqa: N813 (the library's own abbreviation)

    reader = sitk.ImageFileReader()
    reader.SetImageIO(f"{_name(path)}ImageIO")
    reader.SetFileName(str(path))
    array = np.asarray(sitk.GetArrayFromImage(reader.Execute()))
    if array.dtype.itemsize < 2:  # what ITK falls back to
        raise InputError(
            f"{path}: colours of 16 bits that lie in tiles, or in a plane for each colour, are not read; save them in "
            "strips, the three colours of a pixel side by side."
        )
    if array.shape[:2] != (image.height, image.width) or array.shape[2:] not in ((3,), (4,)):
        raise InputError(f"{path}: its {array.shape[2:]} channels of 16 bits are not read; save it as RGB.")
    return array


def _png_bits(path: Path) -> tuple[int, int]:
    """Return bits a channel and kind of colour, which stand at a fixed place of every PNG."""
    with path.open("rb") as stream:
        header = stream.read(26)
    return header[24], header[25]


def _first(array: NDArray[Any]) -> NDArray[Any]:
    """Put the channels first: ``(rows, columns)`` or ``(rows, columns, c)`` to ``(c, rows, columns)``."""
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def _is_grey(values: NDArray[Any]) -> bool:
    # of one channel without looking: NaN is not equal to itself
    return len(values) == 1 or bool((values == values[:1]).all())


def _placed(path: Path, values: NDArray[Any]) -> Volume:
    """Turn ``(c, rows, columns)`` into a Volume ``(c, x, y)``."""
    plane = as_read(np.ascontiguousarray(values.swapaxes(1, 2)), path)
    return canonical(plane, np.eye(3), file_format=_name(path).lower(), name=str(path), unit="px")
