"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr) through SimpleITK, whose world is LPS: x and y change their sign here.

Never used for NIfTI: ITK's reader of that format turns NaN into 0 and refuses directions with rounding.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import replacing
from ..errors import InputError, MachineError
from ..volume import Grid, Volume, canonical, repair_affine, to_stored
from . import metaimage, nrrd
from .values import as_read, as_written

__all__ = ["read_grid_mha", "read_grid_nrrd", "read_mha", "read_nrrd", "volumes_in", "write"]

_DETACHED = {".mhd": "mha", ".nhdr": "nrrd"}
_READERS = {"mha": "MetaImageIO", "nrrd": "NrrdImageIO"}


def read_mha(path: Path, volume_index: int | None) -> Volume:
    """Read one volume of a MetaImage file; see :func:`neoseg.io.read_volume`."""
    metaimage.check_voxels(path)
    return _read(path, "mha", volume_index)


def read_nrrd(path: Path, volume_index: int | None) -> Volume:
    """Read one volume of a NRRD file; see :func:`neoseg.io.read_volume`."""
    nrrd.check_voxels(path)
    return _read(path, "nrrd", volume_index)


def read_grid_mha(path: Path) -> Grid:
    """Read the geometry of a MetaImage file from its header."""
    return _read_grid(path, "mha")


def read_grid_nrrd(path: Path) -> Grid:
    """Read the geometry of a NRRD file from its header."""
    nrrd.check_units(path)
    return _read_grid(path, "nrrd")


def volumes_in(path: Path) -> int:
    """Return the number of volumes (length of the fourth axis, or vector components), from the header."""
    return _count(path, _header(path, "nrrd" if path.suffix.lower() in (".nrrd", ".nhdr") else "mha"))


def write(volume: Volume, path: Path) -> None:
    """Write a volume; a grid that came from one of these formats keeps origin, spacing and direction exactly."""
    import SimpleITK as sitk  # noqa: N813 (the library's own abbreviation)

    array = as_written(to_stored(volume), path)
    stored = volume.grid.stored
    several = array.shape[0] > 1
    if stored is not None and stored.file_format in _READERS:
        kept = stored.header
        d = volume.grid.ndim if several else volume.grid.ndim + int(kept["trailing"])
        origin, spacing = kept["origin"][:d], kept["spacing"][:d]
        direction = np.asarray(kept["direction"])[:d, :d]
    else:
        d = volume.grid.ndim
        affine = repair_affine(stored.affine if stored is not None else volume.grid.affine, str(path))
        lps = _turned(affine)
        lengths = np.linalg.norm(lps[:-1, :-1], axis=0)
        origin, spacing = [float(v) for v in lps[:-1, -1]], [float(v) for v in lengths]
        direction = lps[:-1, :-1] / lengths
    order = (*range(array.ndim - 1, 0, -1),)
    if several:
        image = sitk.GetImageFromArray(np.ascontiguousarray(np.transpose(array, (*order, 0))), isVector=True)
    else:
        voxels = np.transpose(array[0], tuple(a - 1 for a in order))
        image = sitk.GetImageFromArray(np.ascontiguousarray(voxels[(None,) * (d - voxels.ndim)]), isVector=False)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection([float(v) for v in direction.ravel()])
    with _quiet(), _replacing_all(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), True)
        except RuntimeError as error:
            # The folder takes a file, as was seen just before; SimpleITK tells no error number.
            raise MachineError(
                f"{path}: the disk did not take the whole file ({_reason(error)}); free some space, or look after the "
                "disk: nothing half-written was left."
            ) from error


def _read(path: Path, file_format: str, volume_index: int | None) -> Volume:
    import SimpleITK as sitk  # noqa: N813

    header = _header(path, file_format)
    count = _count(path, header)
    if volume_index is None and count > 1:
        raise InputError(
            f"{path}: the file holds {count} volumes (axes {header.GetSize()}, {header.GetNumberOfComponents()} values "
            f"a voxel), but one is wanted; choose one (in cases.csv: {path.name}#0 to #{count - 1}, a channel each)."
        )
    index = volume_index or 0
    if not 0 <= index < count:
        raise InputError(f"{path}: volume {index} was asked for, but the file holds {count} (0 to {count - 1}).")
    with _quiet():
        try:
            image = header.Execute()
        except RuntimeError as error:
            raise InputError(f"{path}: the file is truncated or damaged ({_reason(error)}); copy it again.") from error
    array = sitk.GetArrayFromImage(image)
    if header.GetNumberOfComponents() > 1:
        array, index = array[..., index], 0
    while array.ndim > 3:
        array = array[index]
        index = 0
    return _placed(path, file_format, header, as_read(array.T, path)[None])


def _read_grid(path: Path, file_format: str) -> Grid:
    header = _header(path, file_format)
    return _placed(path, file_format, header, np.empty((0, *header.GetSize()[:3]), dtype=np.uint8)).grid


def _header(path: Path, file_format: str) -> Any:
    """Return a reader that has read the header."""
    import SimpleITK as sitk  # noqa: N813

    if file_format == "mha":
        metaimage.check_header(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[file_format])
    reader.SetFileName(str(path))
    with _quiet():
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise InputError(
                f"{path}: this is not a readable {file_format.upper()} file ({_reason(error)}); export the image again."
            ) from error
    if reader.GetDimension() not in (2, 3, 4) or min(reader.GetSize()) < 1:
        raise InputError(f"{path}: the file has the axes {reader.GetSize()}, but 2, 3 or 4 axes are wanted.")
    return reader


def _count(path: Path, header: Any) -> int:
    components, volumes = int(header.GetNumberOfComponents()), int(math.prod(header.GetSize()[3:]))
    if components > 1 and volumes > 1:
        raise InputError(f"{path}: the file holds {volumes} volumes of {components} values a voxel; split it first.")
    return components * volumes


def _placed(path: Path, file_format: str, header: Any, array: NDArray[Any]) -> Volume:
    d, size = header.GetDimension(), min(header.GetDimension(), 3)
    spacing = np.asarray(header.GetSpacing(), dtype=np.float64)
    # a negative size of voxels is an axis that runs the other way, which ITK reads but does not write
    direction = np.asarray(header.GetDirection(), dtype=np.float64).reshape(d, d) * np.where(spacing < 0, -1, 1)
    spacing = np.abs(spacing)
    lps = np.eye(size + 1)
    lps[:-1, :-1] = direction[:size, :size] * spacing[:size]
    lps[:-1, -1] = header.GetOrigin()[:size]
    kept = {
        "origin": [float(v) for v in header.GetOrigin()],
        "spacing": [float(v) for v in spacing],
        "direction": [[float(v) for v in row] for row in direction],
        "trailing": int(d > 3 and header.GetSize()[3] == 1),
    }
    return canonical(array, _turned(lps), file_format=file_format, name=str(path), header=kept)


def _turned(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Change between LPS and RAS: the same change both ways."""
    turned = np.array(affine, dtype=np.float64)
    turned[:2] *= -1
    return turned + 0.0  # no negative zeros


@contextmanager
def _replacing_all(path: Path) -> Iterator[Path]:
    """Like :func:`neoseg.atomic.replacing`; a format with detached voxels moves its second file before the header.

    ITK takes ".MHA" and ".MHD" for other formats, so it writes to an ending in small letters.
    """
    if path.suffix.lower() not in _DETACHED and path.suffix == path.suffix.lower():
        with replacing(path) as temporary:
            yield temporary
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    header = f"{path.stem}{path.suffix.lower()}"
    try:
        yield folder / header
        for file in sorted(folder.iterdir(), key=lambda f: f.name == header):
            file.replace(path if file.name == header else path.parent / file.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ITK's warnings off the terminal: what matters here arrives as an error."""
    import SimpleITK as sitk  # noqa: N813

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _reason(error: RuntimeError) -> str:
    """Return the last line of ITK's message, which says what went wrong, without overlong quotations."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1].removeprefix("Reason: ").rstrip(".") if lines else "no reason is given"
    return reason if len(reason) <= 120 else f"{reason[:120]} ..."
