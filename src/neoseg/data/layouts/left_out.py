"""What an import does not read: files of other formats and folders beside the chosen ones, and how they are told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from ...io import is_planar, strip_ending
from ...wording import listed

__all__ = ["MERGED_MASKS", "convert_to", "files_of_other_kinds", "told_left_out", "unused_folders"]

_PICTURES = (".gif", ".webp", ".avif", ".jp2", ".heic", ".svs", ".ndpi", ".czi", ".nd2", ".lif", ".psd", ".ppm", ".pgm")
_VOLUMES = (".hdr", ".img", ".dcm", ".dicom", ".ima", ".mgz", ".mgh", ".mnc", ".par", ".gipl", ".vtk", ".vti")
_ARRAYS = (".npy", ".npz", ".h5", ".hdf5", ".mat")
"""Endings of files that may hold volumes or pictures."""
_PACKED = (".nii.bz2", ".nii.xz", ".nii.zst")
_DICOM = (128, b"DICM")
"""The mark of DICOM, and how many bytes stand before it."""
_PAIRED = (".hdr", ".mhd", ".nhdr")
"""Headers whose voxels may lie in an ``.img`` beside them."""

MERGED_MASKS = "merged_masks"
"""Folder that an import writes itself; no layout looks for one of this name."""


def files_of_other_kinds(folder: Path, *, planar: bool, deep: int = 0) -> list[Path]:
    """Return the files of a folder that are images of a format that is not read, sorted.

    Args:
        folder: where to look.
        planar: pictures are wanted; else they are taken for previews of volumes, and left alone.
        deep: how many levels of sub-folders to look into as well.
    """
    wanted = _VOLUMES + _PACKED + _ARRAYS + (_PICTURES if planar else ())
    found = []
    for path in _inside(folder):
        if path.is_dir():
            found += files_of_other_kinds(path, planar=planar, deep=deep - 1) if deep else []
        elif (path.name.lower().endswith(wanted) and not _is_half(path)) or _is_dicom(path):
            found.append(path)
    return found


def told_left_out(files: Collection[Path], root: Path, to: str = "") -> str:
    """Return the sentence about files of formats that are not read, and ``to`` which they may be converted."""
    names = listed(sorted(str(file.relative_to(root)) for file in files))
    return (
        f"{len(files)} files of kinds that are not read here were left out ({names}); convert them to "
        f"{to or convert_to(files)}."
    )


def convert_to(files: Iterable[Path]) -> str:
    """Return the format that files of other kinds may be converted to."""
    endings = {file.suffix.lower() for file in files}
    pictures = {ending in _PICTURES for ending in endings} if endings - {*_ARRAYS} else {True, False}
    return " or ".join(name for is_picture, name in ((True, "PNG"), (False, "NIfTI")) if is_picture in pictures)


def unused_folders(root: Path, used: Iterable[Path], *, planar: bool) -> list[str]:
    """Return the note that names the folders with images that an import did not look into; none where there is none.

    Args:
        root: the data set; its folders and theirs are looked at, and those directly in a used one.
        used: the folders that were read.
        planar: look for pictures, else for volumes.
    """
    read = set(used)
    around = {parent for folder in read for parent in folder.parents}
    found: list[str] = []
    for folder in _folders(root):
        for one in (folder, *_folders(folder)):
            if one in read:
                found += [
                    _shown(inside, root) for inside in _folders(one) if inside not in read and _holds(inside, planar)
                ]
            elif _holds(one, planar):
                found.append(_shown(one if folder in around | read else folder, root))
    names = listed(sorted(dict.fromkeys(found)))
    return (
        [f"Images in {names} were not imported; move those that belong to the data beside the others."] if names else []
    )


def _is_half(path: Path) -> bool:
    return path.suffix.lower() == ".img" and any(path.with_suffix(ending).exists() for ending in _PAIRED)


def _is_dicom(path: Path) -> bool:
    """Tell whether a file without an ending is DICOM, as scanners and archives write it."""
    if path.suffix:
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(_DICOM[0] + len(_DICOM[1])).endswith(_DICOM[1])
    except OSError:
        return False


def _folders(folder: Path) -> Iterator[Path]:
    return (f for f in _inside(folder) if f.is_dir() and f.name != MERGED_MASKS)


def _inside(folder: Path) -> list[Path]:
    """Return what lies in a folder, without hidden files; nothing of one that may not be read."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except PermissionError:
        return []


def _holds(folder: Path, planar: bool) -> bool:
    return any(
        strip_ending(file.name) is not None and is_planar(file) == planar and file.is_file() for file in _inside(folder)
    )


def _shown(folder: Path, root: Path) -> str:
    return f"{folder.relative_to(root)}/"
