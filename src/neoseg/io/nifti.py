"""NIfTI-1 and NIfTI-2 in one file (.nii, .nii.gz).

Headers are read and made by nibabel; voxels are taken from the bytes here, so that a damaged file is found out (length,
checksum of the compressed stream), NaN stays NaN, and every geometry field of the input can be written back bit for
bit. Standard: https://nifti.nimh.nih.gov (nifti1.h, "3D image (volume) orientation and location in space").
"""

from __future__ import annotations

import gzip
import logging
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import replacing
from ..errors import GeometryError, InputError
from ..volume import Grid, Volume, canonical, repair_affine, to_stored
from .promise import MOST_VOXELS, require_bytes, require_room
from .values import as_read, as_written

__all__ = ["read", "read_grid", "volumes_in", "write"]

NAME = "nifti"
_GZIP = b"\x1f\x8b"
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_SCALARS = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
_VECTORS = ("pixdim", "srow_x", "srow_y", "srow_z")
_COMPRESSION = 4
_EXACT_IN_FLOAT32 = 2**24
_HEADER = 1024
_LATEST_OFFSET = 2**31
_AFTER = 2**24
"""Bytes after the voxels that a compressed file may hold; more of them are no image's."""
_GZIP_WITH_CHECKSUM = 31


def read(path: Path, volume_index: int | None) -> Volume:
    """Read one volume; see :func:`neoseg.io.read_volume`."""
    header = _header(path, _beginning(path))
    shape = _shape(path, header)
    count = math.prod(shape[3:])
    index = _checked_index(path, shape, count, volume_index)
    dtype = header.get_data_dtype()
    offset, voxels = int(header["vox_offset"]), math.prod(shape[:3])
    content = _content(path, offset + voxels * count * dtype.itemsize)
    start = offset + index * voxels * dtype.itemsize
    stored = np.frombuffer(content, dtype, count=voxels, offset=start).reshape(shape[:3], order="F")
    return _placed(path, header, _scaled(path, header, as_read(stored, path))[None])


def read_grid(path: Path) -> Grid:
    """Read the geometry from the header; see :func:`neoseg.io.read_grid`."""
    header = _header(path, _beginning(path))
    return _placed(path, header, np.empty((0, *_shape(path, header)[:3]), dtype=np.uint8)).grid


def volumes_in(path: Path) -> int:
    """Return the number of volumes, from the header."""
    return math.prod(_shape(path, _header(path, _beginning(path)))[3:])


def write(volume: Volume, path: Path) -> None:
    """Write a volume; a grid that came from NIfTI keeps its sform, qform, codes, units and shape exactly."""
    array = as_written(to_stored(volume), path)
    stored = volume.grid.stored
    kept: Mapping[str, Any] = stored.header if stored is not None and stored.file_format == NAME else {}
    header = _new_header(version=int(kept.get("version", 1)), longest=max(array.shape))
    shape = array.shape[1:]
    if kept:
        if int(kept["axes"]) < 3 and array.shape[0] == 1:
            shape = shape[: int(kept["axes"])]
        shape += (array.shape[0],) if array.shape[0] > 1 else (1,) * int(kept["trailing"])
        header.set_data_shape(shape)
        for name in _SCALARS + _VECTORS:
            header[name] = kept[name]
        header["xyzt_units"], header["descrip"] = kept["xyzt_units"], str(kept["descrip"]).encode("latin-1")
    else:
        header.set_data_shape(shape + ((array.shape[0],) if array.shape[0] > 1 else ()))
        affine = _in_space(stored.affine if stored is not None else volume.grid.affine)
        header.set_sform(affine, 1)
        header.set_qform(_in_space(repair_affine(affine, str(path))), 1)
        header.set_xyzt_units("mm", "sec" if array.shape[0] > 1 else None)
    header.set_data_dtype(array.dtype)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = 4 + int(header["sizeof_hdr"])
    content = header.binaryblock + bytes(4) + np.moveaxis(array, 0, -1).tobytes(order="F")
    if path.name.lower().endswith(".gz"):
        content = gzip.compress(content, _COMPRESSION, mtime=0)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _beginning(path: Path) -> bytes:
    """Return the first uncompressed bytes, enough for a header."""
    with path.open("rb") as stream:
        if not _is_packed(path, stream.read(12)):
            stream.seek(0)
            return stream.read(_HEADER)
        stream.seek(0)
        try:
            return gzip.GzipFile(fileobj=stream).read(_HEADER)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _damaged(path, str(error)) from error


def _content(path: Path, promised: int) -> bytes:
    """Return at least the uncompressed bytes that the header promises; of a compressed file the checksum is right."""
    there = path.stat().st_size
    with path.open("rb") as stream:
        packed = _is_packed(path, stream.read(12))
        require_bytes(path, promised=promised, there=there, deflated=packed)
        require_room(path, promised)
        stream.seek(0)
        content = _unpacked(path, stream.read(), promised + _AFTER) if packed else stream.read(promised)
    if len(content) < promised:
        raise InputError(
            f"{path}: the file is truncated: its header promises {promised} bytes, but there are {len(content)}; "
            "copy it again."
        )
    return content


def _unpacked(path: Path, packed: bytes, most: int) -> bytes:
    """Unpack the parts of a gzip stream, which may be one or several, to at most so many bytes."""
    parts: list[bytes] = []
    length = 0
    while packed:
        stream = zlib.decompressobj(wbits=_GZIP_WITH_CHECKSUM)
        try:
            parts.append(stream.decompress(packed, most + 1 - length))
        except zlib.error as error:
            raise _damaged(path, str(error)) from error
        length += len(parts[-1])
        if length > most:
            raise _damaged(path, f"it goes on long after the {most - _AFTER} bytes that its header promises")
        if not stream.eof:
            raise _damaged(path, "it ends before its end-of-stream mark")
        packed = stream.unused_data.lstrip(b"\0")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _is_packed(path: Path, begins: bytes) -> bool:
    packed = path.name.lower().endswith(".gz")
    if packed != begins.startswith(_GZIP):
        raise InputError(
            f"{path}: the name says that the file is {'' if packed else 'not '}compressed with gzip, but it begins "
            f"with the bytes {begins!r}; this is not a NIfTI file of that name."
        )
    return packed


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f"{path}: the compressed file is truncated or damaged ({reason}); copy it again.")


def _header(path: Path, content: bytes) -> Any:
    """Return a checked nibabel header of NIfTI-1 or NIfTI-2 for single files."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header
    from nibabel.spatialimages import HeaderDataError

    sizes = {int.from_bytes(content[:4], order): order for order in ("little", "big")}
    for size, kind in ((348, Nifti1Header), (540, Nifti2Header)):
        if size in sizes and len(content) >= size + 4:
            quiet = logging.Logger("neoseg.io.nifti")
            quiet.addHandler(logging.NullHandler())
            try:
                header = kind(content[:size], check=False)
                header.check_fix(logger=quiet, error_level=40)
                header.get_slope_inter()
                offset = int(header["vox_offset"])
            except (HeaderDataError, ValueError, OverflowError) as error:
                raise InputError(f"{path}: the NIfTI header is damaged ({error}); export the file again.") from error
            if bytes(header["magic"])[:2] != b"n+":
                raise InputError(f"{path}: the header belongs to a pair of files (.hdr, .img); convert it to .nii.gz.")
            if not size <= offset <= _LATEST_OFFSET:
                raise InputError(f"{path}: the header puts the voxels at byte {offset}; export the file again.")
            return header
    raise InputError(
        f"{path}: this is not a NIfTI file (its content begins with {content[:12]!r}); export the image again."
    )


def _shape(path: Path, header: Any) -> tuple[int, ...]:
    """Return at least three axes; singleton axes between space and the volumes are dropped."""
    dim = [int(n) for n in header["dim"]]
    shape = tuple(dim[1 : 1 + dim[0]])
    if not 2 <= dim[0] <= 7 or min(shape) < 1 or math.prod(shape) > MOST_VOXELS:
        raise InputError(
            f"{path}: the header gives the shape {shape}, but 2 to 4 axes of at least one voxel, and no more of them "
            "than an image has, are wanted; export the file again."
        )
    if header.get_data_dtype().kind not in "iufb":
        raise InputError(
            f"{path}: its voxels are of type {header.get_data_dtype()}, but one real number a voxel is wanted; "
            "store magnitude or grey values instead."
        )
    return (*shape, *(1,) * (3 - len(shape)))


def _checked_index(path: Path, shape: tuple[int, ...], count: int, index: int | None) -> int:
    if index is None:
        if count > 1:
            raise InputError(
                f"{path}: the file holds {count} volumes (shape {shape}), but one is wanted; choose one (in cases.csv: "
                f"{path.name}#0 to #{count - 1}, a channel each), or import with a layout that declares the channels."
            )
        return 0
    if not 0 <= index < count:
        raise InputError(f"{path}: volume {index} was asked for, but the file holds {count} (0 to {count - 1}).")
    return index


def _scaled(path: Path, header: Any, array: NDArray[Any]) -> NDArray[Any]:
    """Apply slope and intercept; they are float32 in the file, so float32 holds every result that they can mean."""
    slope, intercept = header.get_slope_inter()
    if slope is None or (slope == 1.0 and intercept == 0.0):
        return array
    wide = (
        array.dtype.kind in "iu" and array.size > 0 and int(np.abs(array.astype(np.float64)).max()) > _EXACT_IN_FLOAT32
    )
    result = array.astype(np.float64) * slope + intercept
    exact = wide or array.dtype == np.float64
    return np.asarray(result, dtype=np.float64 if exact else np.float32)


def _placed(path: Path, header: Any, array: NDArray[Any]) -> Volume:
    """Attach the geometry: sform if its code is above 0, else qform if its code is above 0, else voxel sizes only."""
    kept: dict[str, Any] = {name: header[name].item() for name in _SCALARS}
    kept |= {name: [float(v) for v in header[name]] for name in _VECTORS}
    dims = int(header["dim"][0])
    scale = _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    kept["xyzt_units"] = int(header["xyzt_units"])
    kept["descrip"] = bytes(header["descrip"].item()).rstrip(b"\0").decode("latin-1")
    kept["version"] = 2 if int(header["sizeof_hdr"]) == 540 else 1
    # A mask of one of several volumes is 3-D; only axes of length 1 come back.
    kept["axes"], kept["trailing"] = min(dims, 3), max(0, dims - 3) if (header["dim"][4 : dims + 1] == 1).all() else 0
    kept["sform"] = _in_mm(header.get_sform(), scale) if kept["sform_code"] > 0 else None
    kept["qform"] = _in_mm(_qform(path, header), scale) if kept["qform_code"] > 0 else None
    kept["form"] = "sform" if kept["sform"] else "qform" if kept["qform"] else "pixdim"
    affine = kept["sform"] or kept["qform"] or _in_mm(header.get_base_affine(), scale)
    return canonical(array, np.array(affine), file_format=NAME, name=str(path), header=kept)


def _qform(path: Path, header: Any) -> NDArray[np.float64]:
    try:
        with np.errstate(all="ignore"):  # numbers that are none are found where the affine is used
            return np.asarray(header.get_qform(), dtype=np.float64)
    except ValueError as error:
        if int(header["sform_code"]) > 0:
            return np.full((4, 4), np.nan)
        raise GeometryError(f"{path}: the qform of the header is not a rotation ({error}); set it again.") from error


def _in_mm(affine: NDArray[Any], scale: float) -> list[list[float]]:
    scaled = np.array(affine, dtype=np.float64)
    scaled[:3] *= scale
    return [[float(v) for v in row] for row in scaled]


def _in_space(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a 4 x 4 affine; a plane becomes one slice of 1 mm at z = 0."""
    if affine.shape == (4, 4):
        return affine
    full = np.eye(4)
    full[:2, :2], full[:2, 3] = affine[:2, :2], affine[:2, 2]
    return full


def _new_header(*, version: int, longest: int) -> Any:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    if version == 2 or longest > np.iinfo(np.int16).max:
        header = Nifti2Header()
        header["magic"] = b"n+2\0\r\n\x1a\n"
    else:
        header = Nifti1Header()
        header["magic"] = b"n+1"
    return header
