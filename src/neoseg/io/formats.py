"""The list of file formats, and the functions that choose one of them by the ending of a file name."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ..errors import GeometryError, InputError, NeosegError
from ..volume import Grid, Volume, same_grid
from . import itk, nifti, planar

__all__ = [
    "FORMATS",
    "FileFormat",
    "endings",
    "is_planar",
    "mask_ending",
    "read_grid",
    "read_label",
    "read_volume",
    "stem_of",
    "strip_ending",
    "volumes_in",
    "write_volume",
]


_T = TypeVar("_T")


@dataclass(frozen=True)
class FileFormat:
    """One file format.

    Attributes:
        name: the name that ``Stored.file_format`` carries.
        endings: lower-case endings of its files, with the dot.
        read: (file, index of the volume in a 4-D file or None) to Volume.
        read_grid: file to Grid, from the header only.
        volumes_in: file to the number of volumes it holds.
        write: (Volume whose ``grid.stored`` is honoured, file); whole or not at all.
        read_label: file to Volume, where a label is read in another way than an image.
        planar: its files are pictures.
        masks_as: ending of the masks of its images, where they are written in another format.
    """

    name: str
    endings: tuple[str, ...]
    read: Callable[[Path, int | None], Volume]
    read_grid: Callable[[Path], Grid]
    volumes_in: Callable[[Path], int]
    write: Callable[[Volume, Path], None]
    read_label: Callable[[Path], Volume] | None = None
    planar: bool = False
    masks_as: str | None = None


FORMATS: tuple[FileFormat, ...] = (
    FileFormat("nifti", (".nii.gz", ".nii"), nifti.read, nifti.read_grid, nifti.volumes_in, nifti.write),
    FileFormat("mha", (".mha", ".mhd"), itk.read_mha, itk.read_grid_mha, itk.volumes_in, itk.write),
    FileFormat("nrrd", (".nrrd", ".nhdr"), itk.read_nrrd, itk.read_grid_nrrd, itk.volumes_in, itk.write),
    FileFormat(
        "png", (".png",), planar.read, planar.read_grid, planar.volumes_in, planar.write, planar.read_label, True
    ),
    FileFormat(
        "tiff",
        (".tif", ".tiff"),
        planar.read,
        planar.read_grid,
        planar.volumes_in,
        planar.write,
        planar.read_label,
        True,
    ),
    FileFormat(
        "jpeg",
        (".jpg", ".jpeg"),
        planar.read,
        planar.read_grid,
        planar.volumes_in,
        planar.refuse_to_write,
        planar.refuse_label,
        True,
        ".png",
    ),
    FileFormat(
        "bmp",
        (".bmp",),
        planar.read,
        planar.read_grid,
        planar.volumes_in,
        planar.refuse_to_write,
        planar.read_label,
        True,
        ".png",
    ),
)


def endings(*, planar: bool | None = None) -> tuple[str, ...]:
    """Return every known ending, lower case, with the dot; those of pictures alone, or those of the others alone."""
    chosen = (f for f in FORMATS if planar is None or f.planar == planar)
    return tuple(ending for file_format in chosen for ending in file_format.endings)


def is_planar(path: Path) -> bool:
    """Tell whether a file is a picture, by its name."""
    return path.name.lower().endswith(endings(planar=True))


def mask_ending(path: Path) -> str:
    """Return the ending, with the dot, of masks that are predicted from an image file: its own where that can be."""
    other = _format_of(path).masks_as
    return path.name.removeprefix(strip_ending(path.name) or "") if other is None else other


def strip_ending(name: str) -> str | None:
    """Return the file name without its image ending ("a.nii.gz" to "a"), or None when it has no known one."""
    for ending in endings():
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return None


def stem_of(name: str) -> str | None:
    """Return the file name without its image ending, accents written in one way (NFC), or None; for pairing names.

    macOS takes accents apart in file names, other systems do not, so one name may come in two spellings.
    """
    stem = strip_ending(name)
    return None if stem is None else unicodedata.normalize("NFC", stem)


def read_volume(path: Path | str, *, volume_index: int | None = None) -> Volume:
    """Read one volume in canonical (RAS+) order.

    Args:
        path: a file with one of the known endings.
        volume_index: which volume of a 4-D (or vector) file, counted from 0; a file with several volumes is refused
            without it, and an index other than 0 is refused for a file with one volume. A picture has red, green and
            blue as volumes 0, 1 and 2, a grey one the same values in each.

    Returns:
        A Volume of one channel. Integers keep their stored type; scaled integers and floating point are float32,
        or float64 where float32 cannot hold the values or where the file looks like a label whose values are not
        quite whole (so that nothing is rounded unseen). NaN and infinities are kept.

    Raises:
        InputError: the file is missing, unreadable, damaged, of no known format, or holds several volumes.
        GeometryError: its axes are sheared or have no length.
    """
    file = Path(path)
    return _reading(file, lambda chosen: chosen.read(file, volume_index))


def read_label(path: Path) -> Volume:
    """Read a label or mask; as :func:`read_volume`, but of a picture with a palette the indices are the values.

    Raises:
        InputError, GeometryError: as :func:`read_volume`.
    """
    return _reading(path, lambda chosen: chosen.read_label(path) if chosen.read_label else _one_volume(chosen, path))


def _one_volume(chosen: FileFormat, path: Path) -> Volume:
    if (count := chosen.volumes_in(path)) > 1:
        raise InputError(
            f"{path}: the label holds {count} volumes, but each voxel has to hold the one number of its class; merge "
            "them into a single volume, with a number of its own for each class."
        )
    return chosen.read(path, None)


def read_grid(path: Path | str) -> Grid:
    """Read only where the voxels of a file lie; the voxels themselves are not touched, so damage there stays unseen.

    Raises:
        InputError: the file is missing, of no known format, or its header is unreadable.
        GeometryError: its axes are sheared or have no length.
    """
    file = Path(path)
    return _reading(file, lambda chosen: chosen.read_grid(file))


def volumes_in(path: Path) -> int:
    """Return how many volumes a file holds: 1, or the length of its fourth axis (or vector); 3 of a colour picture.

    Raises:
        InputError: as :func:`read_grid`.
    """
    return _reading(path, lambda chosen: chosen.volumes_in(path))


def write_volume(volume: Volume, path: Path | str, *, like: Grid | None = None) -> None:
    """Write a volume; the file is whole or absent.

    A volume whose grid came from a file goes back to exactly that file's axes and geometry: bit for bit in the same
    format, as near as the format's numbers allow in another. Several channels become a fourth axis (NIfTI), a
    vector image (MHA, NRRD) or, three of them, colours (PNG, TIFF). Integer types are written as they are and without
    scaling.

    Args:
        volume: array ``(c, x, y, z)`` or ``(c, x, y)``; bool is written as uint8.
        path: the ending chooses the format.
        like: write onto the file geometry that this grid remembers; it must be the volume's own lattice.

    Raises:
        InputError: unknown ending or an array type that no format holds.
        GeometryError: ``like`` is another lattice.
    """
    if like is not None:
        if not same_grid(volume.grid, like):
            raise GeometryError(
                f"{path}: a volume of shape {volume.grid.shape} and spacing {volume.spacing} cannot be written onto "
                f"another grid of shape {like.shape} and spacing {like.spacing}; resample it first."
            )
        volume = Volume(volume.array, replace(volume.grid, stored=like.stored))
    _format_of(Path(path)).write(volume, Path(path))


def _format_of(path: Path) -> FileFormat:
    for file_format in FORMATS:
        if path.name.lower().endswith(file_format.endings):
            return file_format
    raise InputError(f"{path}: the ending is not one of {', '.join(endings())}; convert the file or correct its name.")


def _reading(path: Path, read: Callable[[FileFormat], _T]) -> _T:
    chosen = _format_of(path)
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path}: this is a link to a file that is not there; fetch the file first.")
    if path.is_dir():
        raise InputError(f"{path}: this is a folder, but a file is wanted; name the image in it.")
    if not path.is_file():
        raise InputError(f"{path}: this file does not exist; correct the path.")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty (0 bytes); copy it again.")
        return read(chosen)
    except NeosegError:
        raise
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror or error}); check it.") from error
