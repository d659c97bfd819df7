"""Which files of a folder are the scans that a run can predict, and which are not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.cases import Case
from ..data.layouts.files import find_folder, image_files, images_in, require_text
from ..data.layouts.left_out import convert_to, files_of_other_kinds
from ..errors import InputError
from ..io import endings, is_planar, stem_of, volumes_in

__all__ = ["Incomplete", "ScanFiles", "Stacked", "first_numbered", "scans_in", "without_index"]

INDEX = "_{:04d}"
"""End of the name of a channel's file in nnU-Net's folders."""


@dataclass(frozen=True)
class Stacked:
    """How the scans of a training were stacked in 4-D files.

    Attributes:
        count: volumes of each file.
        index: channel to the volume that it is, counted from 0.
        colours: the files are pictures, of which a grey one has the same values in red, green and blue.
    """

    count: int
    index: dict[str, int]
    colours: bool = False

    def fits(self, path: Path, count: int | None) -> bool:
        """Tell whether a file of so many volumes is stacked in this way."""
        return count is not None and (is_planar(path) if self.colours else count == self.count)


@dataclass(frozen=True)
class Incomplete:
    """A scan that lacks a channel, or has one twice.

    Attributes:
        case: its name.
        images: the files that are there.
        why: the sentence that says what is missing, or twice there.
    """

    case: str
    images: tuple[Path, ...]
    why: str


@dataclass(frozen=True)
class ScanFiles:
    """What was found in a file or folder.

    Attributes:
        scans: by name, in order.
        left_out: name of each image file that belongs to no scan to the sentence that says why.
        incomplete: scans that cannot be predicted, by name, in order.
        number: of the first channel of the run in the data set, as nnU-Net counts.
    """

    scans: tuple[Case, ...]
    left_out: dict[str, str]
    incomplete: tuple[Incomplete, ...] = ()
    number: int = 0


def scans_in(
    source: Path | str,
    channels: Sequence[str],
    stacked: Stacked | None = None,
    *,
    table: Sequence[str] = (),
    axes: int = 3,
) -> ScanFiles:
    """Return the scans of a file or folder as cases.

    For one channel every image is a scan, called as the file; where all files end in nnU-Net's ``_0000``, without that,
    as :func:`neoseg.import_folder` calls the cases of such a folder. For several channels a scan is one file a channel,
    whose stems end in ``_<channel>`` (``baby1_adc.nii.gz``, ``baby1_zadc.nii.gz``) or in nnU-Net's ``_0000``,
    ``_0001``, which count the channels of the data set, also of those that the run leaves out; or each channel has a
    folder of its name, with files of one name a scan. Where the training had 4-D files, a 4-D file of as many volumes
    is a scan too, with the channels at the same places.

    Args:
        source: the file or folder.
        channels: the channels that a scan has to bring, in the order of the network.
        stacked: the 4-D files of the training, where it had such.
        table: all channels of the training's cases.csv in its order; by default those of the run.
        axes: of the images of the training; pictures in a folder of volumes are previews, and left alone.

    Raises:
        InputError: nothing is there, no image is among it or belongs to a scan, or no scan is complete.
    """
    source, scans = Path(source), dict[str, Case]()
    table = (*table, *(c for c in channels if c not in table))
    named: dict[str, dict[str, Path]] = {}
    twice: dict[str, str] = {}
    left_out: dict[str, str] = {}
    others = _of_other_kinds(source, axes) | _in_folders(source, axes)
    if inside := _in_channel_folders(source, channels, axes):
        named, read = inside, {channel.lower() for channel in channels}
        others = {name: why for name, why in others.items() if name.lower().removesuffix("/") not in read}
    for path in _images(source, axes, others) if not inside else []:
        place, other_channel = _place(path, channels, table)
        count = _volumes(path) if stacked is not None or place is None else None
        if stacked is not None and (stacked.fits(path, count) or (count is None and place is None)):
            one = _of_stacked(path, stacked)  # one that cannot be read: its prediction says why
            if (before := scans.setdefault(_stem(path), one)) is not one:
                first = next(iter(before.images.values()))
                raise InputError(f"{path}: {first.name} is a scan of the same name; rename one of them.")
        elif place is None:
            left_out[path.name] = _why(path, count, channels, stacked, other_channel)
        else:
            scan, channel = place
            first = named.setdefault(scan, {}).setdefault(channel, path)
            if first != path:
                both = f"{first.name} and {path.name} are both" + (
                    f" the channel {channel!r} of" if len(table) > 1 else ""
                )
                twice[scan] = f"{source}: {both} the scan {scan!r}; keep one of them."
    incomplete = []
    for scan, images in sorted(named.items()):
        if scan in scans:
            raise InputError(f"{source}: two scans are called {scan!r}, one of them a 4-D file; rename one of them.")
        missing = [c for c in channels if c not in images]
        if scan in twice:
            incomplete.append(Incomplete(scan, tuple(images.values()), twice[scan]))
        elif missing:
            why = f"{source}: the scan {scan!r} lacks {missing}; add {scan}_{missing[0]} with its ending."
            incomplete.append(Incomplete(scan, tuple(images.values()), why))
        else:
            scans[scan] = Case(case=scan, subject=scan, images=images)
    if not scans and incomplete:
        raise InputError(incomplete[0].why)
    if not scans:
        raise InputError(
            f"{source}: no image there is a scan of this run, which needs the channels {list(channels)}; name the "
            f"files <scan>_{channels[0]} and so on. {next(iter(left_out.values()))}"
        )
    found = tuple(scans[name] for name in sorted(scans))
    number = table.index(channels[0])
    if len(channels) == 1:
        found = without_index(found, number)
    return ScanFiles(found, left_out | others, tuple(incomplete), number)


def first_numbered(source: Path) -> str | None:
    """Return the first file there whose name ends in a channel's number, as ``_0000``, or None."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    ends = tuple(INDEX.format(i) for i in range(10))
    return next((file.name for file in files if _stem(file).endswith(ends)), None)


def without_index(scans: Sequence[Case], number: int) -> tuple[Case, ...]:
    """Return scans of one channel, called without its ``_0000`` where all of their files' names end in it."""
    end = INDEX.format(number)
    stems = [_stem(next(iter(scan.images.values()))) for scan in scans]
    plain = [scan.case == stem for scan, stem in zip(scans, stems, strict=True)]
    if not all(plain) or not all(stem.endswith(end) and len(stem) > len(end) for stem in stems):
        return tuple(scans)
    names = [scan.case.removesuffix(end) for scan in scans]
    return tuple(replace(scan, case=name, subject=name) for scan, name in zip(scans, names, strict=True))


def _of_other_kinds(source: Path, axes: int) -> dict[str, str]:
    """Return the name of each image file of a kind that is not read to the sentence that says so."""
    return {
        path.name: f"{path.name} was left out: files of its kind are not read; convert it to {convert_to([path])}."
        for path in (files_of_other_kinds(source, planar=axes == 2) if source.is_dir() else [])
    }


def _in_folders(source: Path, axes: int) -> dict[str, str]:
    """Return each folder in the folder that holds images to the sentence that says that they are not read."""
    folders = sorted(path for path in source.iterdir() if path.is_dir()) if source.is_dir() else []
    return {
        f"{folder.name}/": f"The images in {folder.name}/ were left out: only those directly in "
        f"{source.resolve().name}/ are read; give that folder as --input."
        for folder in folders
        if not folder.name.startswith(".")
        and os.access(folder, os.R_OK | os.X_OK)
        and any(image_files(folder, planar=axes == 2))
    }


def _in_channel_folders(source: Path, channels: Sequence[str], axes: int) -> dict[str, dict[str, Path]]:
    """Return scan to channel to file where each of several channels has a folder and no image lies beside them."""
    folders = {channel: find_folder(source, [channel]) for channel in channels}
    if len(channels) < 2 or None in folders.values() or any(image_files(source, planar=axes == 2)):
        return {}
    found: dict[str, dict[str, Path]] = {}
    for channel, folder in folders.items():
        assert folder is not None
        for name, path in images_in(folder, planar=axes == 2).items():
            found.setdefault(name, {})[channel] = path
    return found


def _images(source: Path, axes: int, others: dict[str, str]) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise InputError(f"{source}: there is no such file or folder; correct --input.")
    wanted = endings(planar=False) if axes == 3 else endings()
    files = sorted(p for p in source.iterdir() if p.name.lower().endswith(wanted) and not p.name.startswith("."))
    for file in files:
        require_text(file)
    if not files:
        told = f" {next(iter(others.values()))}" if others else ""
        raise InputError(f"{source}: this folder holds no image ({', '.join(wanted)}); correct --input.{told}")
    return files


def _stem(path: Path) -> str:
    return stem_of(path.name) or path.stem


def _of_stacked(path: Path, stacked: Stacked) -> Case:
    return Case(
        case=_stem(path),
        subject=_stem(path),
        images=dict.fromkeys(stacked.index, path),
        channel_index=dict(stacked.index) if stacked.count > 1 else {},
    )


def _volumes(path: Path) -> int | None:
    """Return how many volumes a file holds, or None when its header cannot be read."""
    try:
        return volumes_in(path)
    except InputError:
        return None


def _place(path: Path, channels: Sequence[str], table: Sequence[str]) -> tuple[tuple[str, str] | None, str]:
    """Return (scan, channel) by the end of the file's name, or None and the channel of the table that it is, if any."""
    stem, alone = _stem(path), len(channels) == 1
    if len(table) == 1:
        return (stem, channels[0]), ""
    marks = [(mark, c) for i, c in enumerate(table) for mark in (f"_{c}", INDEX.format(i))]
    # the longest first, since one channel may be called as the end of another ("t1" and "ce_t1")
    for mark, channel in sorted(marks, key=lambda one: len(one[0]), reverse=True):
        if stem.lower().endswith(mark.lower()) and len(stem) > len(mark):
            if channel not in channels:
                return None, channel
            return (stem if alone else stem[: -len(mark)], channel), ""
    return ((stem, channels[0]) if alone else None), ""


def _why(path: Path, count: int | None, channels: Sequence[str], stacked: Stacked | None, other: str) -> str:
    if other:
        return f"{path.name} was left out: by its name it is the channel {other!r}, which this run does not read."
    marks = ", ".join(f"_{channel}" for channel in channels)
    sentence = f"{path.name} was left out: its name ends in no channel ({marks}, or _0000 and so on)"
    if count is None:
        return f"{sentence}, and it cannot be read."
    if stacked is not None:
        return f"{sentence}, and it holds {count} volumes, not the {stacked.count} of the training."
    return f"{sentence}." if count == 1 else f"{sentence}, and the training had no 4-D files."
