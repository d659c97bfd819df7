"""The faults as one table: how each is made, the command that meets it, words of its sentence, the exit code."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import nibabel as nib
import numpy as np

from fault_scene import Scene, cut_short, edit_json, patch_nifti, replace_text, rewrite
from neoseg.networks.configs import PUBLISHED

State = Literal["data", "imported", "prepared", "finished"]
DIM, DATATYPE, PIXDIM, OFFSET, SROW_X = 40, 70, 80, 108, 280
"""Places of fields in the header of NIfTI-1."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: of the fault.
        state: how far the workspace is before it: with data only, imported, prepared, or with a finished run.
        make: makes it.
        command: what is called then.
        words: parts of the one sentence, upper and lower case alike.
        code: the exit code: 2 a user's mistake, 1 the machine or neoseg, 128 + n a signal.
        told: "alone" on standard error; as one "problem" in the list of `check`; or in the line of one "scan" of
            several, which do not suffer.
        around: what holds while the command runs.
        written: parts of the names of files that the command may have changed before it met the fault.
    """

    name: str
    state: State
    make: Callable[[Scene], object]
    command: str
    words: tuple[str, ...]
    code: int = 2
    told: Literal["alone", "problem", "scan"] = "alone"
    around: Callable[[Scene], AbstractContextManager[object]] | None = None
    written: tuple[str, ...] = ()


def nothing(scene: Scene) -> None:
    """Leave everything as it is: the fault lies in the command or around it."""


def written(name: str, content: str | bytes) -> Callable[[Scene], object]:
    """Write a file of the workspace."""

    def make(scene: Scene) -> object:
        path = scene.root / name
        return path.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def table(change: Callable[[str], str], encoding: str = "utf-8") -> Callable[[Scene], object]:
    """Write the table of cases again."""
    return lambda s: s.table.write_bytes(change(s.table.read_text()).encode(encoding))


def config(addition: str = "", old: str = "", new: str = "") -> Callable[[Scene], object]:
    """Change the configuration."""
    return lambda s: s.config.write_text(s.config.read_text().replace(old, new) + addition)


def image(number: int, change: Callable[[Any], Any], shift_mm: float = 0.0) -> Callable[[Scene], object]:
    return lambda s: rewrite(s.image(number), change, shift_mm)


def label(number: int, change: Callable[[Any], Any], shift_mm: float = 0.0) -> Callable[[Scene], object]:
    return lambda s: rewrite(s.label(number), change, shift_mm)


def json_of(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Scene], object]:
    return lambda s: edit_json(s.root / name, change)


# --- how single faults are made ---------------------------------------------------------------------------------------


def with_second_channel(text: str) -> str:
    lines = text.splitlines()
    place = lines[0].split(",").index("image_image")
    rows = [f"{line},{'' if n == 0 else line.split(',')[place]}" for n, line in enumerate(lines[1:])]
    return "\n".join([lines[0] + ",image_t2", *rows]) + "\n"


def several_volumes(scene: Scene) -> None:
    stack = np.zeros((6, 6, 6, 3), dtype=np.float32)
    nib.save(nib.Nifti1Image(stack, np.eye(4)), scene.image(0))


def complex_voxels(scene: Scene) -> None:
    nib.save(nib.Nifti1Image(np.ones((6, 6, 6), dtype=np.complex64), np.eye(4)), scene.image(0))


def colours(scene: Scene) -> None:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(np.zeros((6, 6, 6), dtype=kind), np.eye(4)), scene.image(0))


def huge_plain(scene: Scene) -> None:
    path = patch_nifti(scene.image(0), DIM, "8h", 3, 30000, 30000, 30000, 1, 1, 1, 1, plain=True)
    replace_text(scene.table, "data/images/scan0.nii.gz", f"data/images/{path.name}")


def bomb(scene: Scene) -> None:
    """A head of 352 bytes, a few voxels, and then 4 GiB of zeros in 4 MB."""
    zeros = gzip.compress(bytes(2**26), 9)
    scene.image(0).write_bytes(scene.image(0).read_bytes() + zeros * 64)


def huge_mha(scene: Scene) -> None:
    text = "ObjectType = Image\nNDims = 3\nDimSize = 9000 9000 9000\nElementType = MET_FLOAT\nElementSpacing = 1 1 1\n"
    (scene.root / "data" / "huge.mha").write_bytes((text + "ElementDataFile = LOCAL\n").encode() + bytes(64))


def huge_nrrd(scene: Scene) -> None:
    text = "NRRD0004\ntype: float\ndimension: 3\nsizes: 9000 9000 9000\nencoding: gzip\nendian: little\n"
    text += "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n"
    (scene.root / "data" / "huge.nrrd").write_bytes(text.encode() + gzip.compress(bytes(64)))


def single_slices(scene: Scene) -> None:
    for number in range(6):
        rewrite(scene.image(number), lambda a: a[:, :, :1])
        rewrite(scene.label(number), lambda a: a[:, :, 8:9])


def folder_in_place_of(path: Callable[[Scene], Path]) -> Callable[[Scene], object]:
    def make(scene: Scene) -> None:
        path(scene).unlink(missing_ok=True)
        path(scene).mkdir()

    return make


def only_text(scene: Scene) -> None:
    scene.out.mkdir()
    (scene.out / "notes.txt").write_text("nothing to see")


def no_layout(scene: Scene) -> None:
    shutil.rmtree(scene.root / "data")
    (scene.root / "data" / "pictures").mkdir(parents=True)


def empty_data(scene: Scene) -> None:
    shutil.rmtree(scene.root / "data")
    (scene.root / "data").mkdir()


def twin(scene: Scene) -> None:
    (scene.root / "data" / "images" / "scan0.nii").write_bytes(gzip.decompress(scene.image(0).read_bytes()))


def scans(*changes: Callable[[Path], object]) -> Callable[[Scene], object]:
    """Copy two images into a folder of new scans and change the first."""

    def make(scene: Scene) -> None:
        (scene.root / "new").mkdir()
        for number in (0, 1):
            shutil.copy(scene.image(number), scene.root / "new" / f"scan{number}.nii.gz")
        for change in changes:
            change(scene.root / "new" / "scan0.nii.gz")

    return make


def masks(*changes: Callable[[Path], object]) -> Callable[[Scene], object]:
    """Copy the labels into a folder of predictions and change it."""

    def make(scene: Scene) -> None:
        shutil.copytree(scene.root / "data" / "labels", scene.out)
        for change in changes:
            change(scene.out)

    return make


def a_mask(scene: Scene) -> Path:
    return next((scene.run / "predictions" / "cv").glob("*.nii.gz"))


def damaged_checkpoints(scene: Scene) -> None:
    """The newest checkpoint and the one before it, of a training that is not finished."""
    fold = scene.run / "fold0"
    (fold / "finished.json").unlink()
    for name in ("last", "last-before"):
        cut_short(fold / name / "model.safetensors")


def leaking_folds(scene: Scene) -> None:
    def both(value: dict[str, Any]) -> None:
        fold = value["folds"][0]
        fold["train"] = [*fold["train"], fold["validation"][0]]

    edit_json(scene.root / "folds.json", both)


def atlas_folder(scene: Scene, channel: str = "adc", unit: str = "1e-6 mm2/s") -> None:
    folder = scene.root / "atlas_given"
    folder.mkdir()
    one = np.ones((6, 6, 6), dtype=np.float32)
    np.savez(folder / "atlas.npz", mean=one, sd=one, mask=one.astype(np.uint8), affine=np.eye(4))
    words = {"format": 2, "count": 9, "unit": unit, "channel": channel, "provenance": {}}
    (folder / "atlas.json").write_text(json.dumps(words))


def converted(orientation: str | None) -> Callable[[Scene], object]:
    """Write a folder like that of converted weights of the variant "synapse"; of the weights themselves only a name."""

    def make(scene: Scene) -> None:
        preset = PUBLISHED["synapse"]
        scene.out.mkdir()
        words = {"variant": "synapse", "in_channels": 1, "classes": 14, "patch": preset.patch}
        words |= {"native_orientation": orientation, "network": preset.config.model_dump(mode="json")}
        (scene.out / "network.json").write_text(json.dumps(words))
        (scene.out / "model.safetensors").write_bytes(b"nothing")

    return make


def without_skull(scene: Scene) -> None:
    """Make the images ADC maps of something brain-like on a background of 0."""
    inside = np.pad(np.ones((14, 16, 12), dtype=np.float32), 2)
    for number in range(6):
        rewrite(scene.image(number), lambda a: 10 * a * inside)


def z_map_of(scene: Scene, *, healthy: int, atlas: str = "") -> None:
    """Ask for a Z map, with so many healthy scans or a given atlas."""
    without_skull(scene)
    lines = scene.table.read_text().replace("image_image", "image_adc").replace("unit_image", "unit_adc").splitlines()
    where = lines[0].split(",").index("group")
    rows = [line.split(",") for line in lines[1:]]
    for number, row in enumerate(rows):
        row[where] = "healthy" if number < healthy else "patient"
    scene.table.write_text("\n".join([lines[0], *(",".join(row) for row in rows)]) + "\n")
    text = scene.config.read_text()
    scene.config.write_text((f'template = "{atlas}"\n' if atlas else "") + text + "\n[prepare.zmap]\n")


def another_atlas(scene: Scene) -> None:
    atlas_folder(scene, channel="t2", unit="a.u.")
    z_map_of(scene, healthy=0, atlas="atlas_given")


# --- what holds while a command runs ----------------------------------------------------------------------------------


@contextlib.contextmanager
def as_nobody(*paths: Path) -> Iterator[None]:
    """Run without the rights of root, to which permissions mean nothing."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def without_rights(scene: Scene, closed: Path, mode: int) -> Iterator[None]:
    """Take rights from a file or folder, and run as somebody to whom that matters."""
    before = closed.stat().st_mode
    for path in (scene.root, *scene.root.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    opened = [(parent, parent.stat().st_mode) for parent in scene.root.parents if parent.stat().st_uid == os.geteuid()]
    for parent, old in opened:
        if not old & 0o001 and parent.is_relative_to(tempfile.gettempdir()):
            parent.chmod(old | 0o011)
    closed.chmod(mode)
    try:
        with as_nobody():
            yield
    finally:
        closed.chmod(before)
        for parent, old in opened:
            parent.chmod(old)


def closed(path: Callable[[Scene], Path], mode: int = 0) -> Callable[[Scene], AbstractContextManager[object]]:
    return lambda scene: without_rights(scene, path(scene), mode)


def instead(target: str, act: Callable[..., Any]) -> Callable[[Scene], AbstractContextManager[object]]:
    """Call something else in place of a function of neoseg."""
    return lambda scene: mock.patch(target, act)


def raising(error: BaseException) -> Callable[..., Any]:
    def act(*args: Any, **named: Any) -> Any:
        raise error

    return act


def signalling(target: str, *numbers: signal.Signals) -> Callable[[Scene], AbstractContextManager[object]]:
    """Send signals to this process from inside the second call of a function, which then goes on."""

    def around(scene: Scene) -> AbstractContextManager[object]:
        module, _, name = target.rpartition(".")
        original = getattr(__import__(module, fromlist=[name]), name)
        calls = itertools.count()

        def act(*args: Any, **named: Any) -> Any:
            if next(calls) == 1:
                for number in numbers:
                    os.kill(os.getpid(), number)
                    for _ in range(10_000):
                        pass  # the interpreter looks for signals between instructions
            return original(*args, **named)

        return mock.patch(target, act)

    return around


def out_of_memory() -> RuntimeError:
    import torch

    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


CPU_MEMORY = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: not enough memory: you tried to allocate 9999 bytes."
)


# --- the table --------------------------------------------------------------------------------------------------------

TABLE = (
    Fault("no column of cases", "imported", table(lambda t: t.replace("case,", "name,", 1)), "check", ("`case`",)),
    Fault("no column of images", "imported", table(lambda t: t.replace("image_", "", 1)), "check",
          ("image_<channel>",)),
    Fault("a misspelt column", "imported", table(lambda t: t.replace(",label", ",lable", 1)), "check", ("'label'",)),
    Fault("semicolons, as a German Excel writes", "imported", table(lambda t: t.replace(",", ";")), "plan",
          ("cases.csv", "semicolon", "commas")),
    Fault("tabs", "imported", table(lambda t: t.replace(",", "\t")), "plan", ("cases.csv", "tab", "commas")),
    Fault("a table that is not UTF-8", "imported", table(lambda t: t.replace("scan1,", "söan1,"), "latin-1"), "plan",
          ("cases.csv", "UTF-8")),
    Fault("a table in UTF-16", "imported", table(lambda t: t, "utf-16"), "plan", ("cases.csv", "UTF-8")),
    Fault("an empty table", "imported", table(lambda t: ""), "plan", ("cases.csv", "`case`")),
    Fault("a table without rows", "imported", table(lambda t: t.splitlines()[0]), "plan", ("cases.csv", "no case")),
    Fault("no table", "imported", lambda s: s.table.unlink(), "plan", ("cases.csv", "neoseg import")),
    Fault("a table that is a folder", "imported", folder_in_place_of(lambda s: s.table), "plan", ("cases.csv",
          "folder")),
    Fault("a row that is too long", "imported", table(lambda t: t.rstrip() + ",,,,,,\n"), "plan", ("line 7", "cells")),
    Fault("an unknown group", "imported", table(lambda t: t.replace("patient", "pateint", 1)), "plan",
          ("line 2", "'patient'")),
    Fault("an unknown split", "imported", table(lambda t: t.replace("train", "trian", 1)), "plan",
          ("line 2", "'train'")),
    Fault("a case named like a path", "imported", table(lambda t: t.replace("scan0,", "../x,", 1)), "plan",
          ("line 2", "'../x'")),
    Fault("a duplicate id", "imported", table(lambda t: t.replace("\nscan1,", "\nscan0,")), "plan", ("scan0", "twice")),
    Fault("a duplicate id in the list", "imported", table(lambda t: t.replace("\nscan1,", "\nscan0,")), "check",
          ("scan0",), told="problem"),
    Fault("one subject in both splits", "imported",
          table(lambda t: t.replace("scan1,scan1,,patient,train", "scan1,scan0,,patient,test")), "check", ("scan0",),
          told="problem"),
    Fault("a missing channel", "imported", table(with_second_channel), "check", ("t2",), told="problem"),
    Fault("a missing label", "imported", table(lambda t: t.replace("data/labels/scan0.nii.gz", "")), "check",
          ("scan0",),
          told="problem"),
    Fault("an image that is a folder", "imported", folder_in_place_of(lambda s: s.image(0)), "check",
          ("scan0.nii.gz", "folder"), told="problem"),
    Fault("a text file named .nii.gz", "imported", lambda s: s.image(0).write_text("hello"), "check", ("scan0.nii.gz",),
          told="problem"),
    Fault("a truncated image", "imported", lambda s: cut_short(s.image(1)), "check", ("scan1.nii.gz", "truncated"),
          told="problem"),
    Fault("an empty file", "imported", lambda s: s.label(1).write_bytes(b""), "check", ("scan1.nii.gz", "empty"),
          told="problem"),
    Fault("a missing file", "imported", lambda s: s.image(2).unlink(), "check", ("scan2.nii.gz", "not there"),
          told="problem"),
    Fault("a link to nowhere", "imported",
          lambda s: (s.image(2).unlink(), s.image(2).symlink_to(s.root / "gone.nii.gz")),
          "check", ("scan2.nii.gz", "link"), told="problem"),
    Fault("another grid", "imported", label(3, lambda a: a, 3.0), "check", ("scan3", "grid", "resample"),
          told="problem"),
    Fault("another shape", "imported", label(3, lambda a: a[:-2]), "check", ("scan3", "16", "18"), told="problem"),
    Fault("label 255", "imported", label(4, lambda a: a * 255), "check", ("scan4", "255", "[labels]"), told="problem"),
    Fault("a negative label", "imported", label(4, lambda a: a.astype(np.int16) * -1), "check", ("scan4", "-1"),
          told="problem"),
    Fault("a rounded label", "imported", label(4, lambda a: a * 0.99999997), "check", ("0.9999", "label_tolerance"),
          told="problem"),
    Fault("NaN in a label", "imported", label(4, lambda a: np.where(a > 0, np.nan, a).astype(np.float32)), "check",
          ("scan4", "nan"), told="problem"),
    Fault("NaN in an image", "imported", image(5, lambda a: np.where(a > 150, np.nan, a).astype(np.float32)), "check",
          ("scan5", "NaN"), told="problem"),
    Fault("NaN everywhere", "imported", image(5, lambda a: np.full_like(a, np.nan)), "check", ("scan5", "NaN"),
          told="problem"),
    Fault("infinity", "imported", image(5, lambda a: np.where(a > 150, np.inf, a).astype(np.float32)), "check",
          ("scan5", "infinite"), told="problem"),
    Fault("an image of zeros", "imported", image(5, np.zeros_like), "check", ("scan5",), told="problem"),
    Fault("several volumes in a file", "imported", several_volumes, "check", ("scan0", "3 volumes", "#0"),
          told="problem"),
    Fault("complex numbers", "imported", complex_voxels, "check", ("scan0", "complex", "magnitude"), told="problem"),
    Fault("colours", "imported", colours, "check", ("scan0", "one real number"), told="problem"),
    Fault("an axis without voxels", "imported", lambda s: patch_nifti(s.image(0), DIM, "4h", 3, 18, 0, 16), "check",
          ("scan0", "(18, 0, 16)"), told="problem"),
    Fault("a shape beyond memory, compressed", "imported",
          lambda s: patch_nifti(s.image(0), DIM, "4h", 3, 30000, 30000, 30000), "check", ("scan0", "than an image has"),
          told="problem"),
    Fault("a shape beyond the file", "imported", huge_plain, "check", ("scan0.nii", "than an image has"),
          told="problem"),
    Fault("a shape beyond what gzip can hold", "imported",
          lambda s: patch_nifti(s.image(0), DIM, "4h", 3, 3000, 3000, 3000), "check", ("scan0", "truncated",
          "promised"),
          told="problem"),
    Fault("a bomb of zeros", "imported", bomb, "check", ("scan0", "goes on long after"), told="problem"),
    Fault("an unknown type of voxels", "imported", lambda s: patch_nifti(s.image(0), DATATYPE, "h", 77), "check",
          ("scan0", "header"), told="problem"),
    Fault("voxels that begin nowhere", "imported", lambda s: patch_nifti(s.image(0), OFFSET, "f", float("nan")),
          "check",
          ("scan0", "header"), told="problem"),
    Fault("a sheared grid", "imported", lambda s: patch_nifti(s.image(0), SROW_X, "4f", 1.0, 0.5, 0.0, 0.0), "check",
          ("scan0", "sheared", "resample"), told="problem"),
    Fault("an axis without length", "imported", lambda s: patch_nifti(s.image(0), SROW_X, "12f", *[0.0] * 12), "check",
          ("scan0", "without a length"), told="problem"),
    Fault("an affine that is not a number", "imported",
          lambda s: patch_nifti(s.image(0), SROW_X, "4f", float("nan"), 0, 0, 0), "check", ("scan0", "affine"),
          told="problem"),
    Fault("an image that may not be read", "imported", nothing, "check", ("scan0", "Permission"), told="problem",
          around=closed(lambda s: s.image(0))),
    Fault("single slices", "imported", single_slices, "plan", ("single slices",)),
    Fault("a MetaImage beyond memory", "imported", huge_mha, "prepare-volume {data}/huge.mha {out}/a.nii.gz",
          ("huge.mha", "promised")),
    Fault("a NRRD beyond memory", "imported", huge_nrrd, "prepare-volume {data}/huge.nrrd {out}/a.nii.gz",
          ("huge.nrrd", "promised")),
    Fault("data with errors", "imported", label(4, lambda a: a * 255), "run {w}/neoseg.toml", ("scan4", "255")),
    # --- configuration
    Fault("no configuration", "imported", lambda s: s.config.unlink(), "plan", ("neoseg.toml",
          "no such configuration")),
    Fault("a configuration that is not TOML", "imported", config("\n[labels\n"), "plan", ("neoseg.toml", "TOML")),
    Fault("a configuration that is not UTF-8", "imported", written("neoseg.toml", "name = 'ü'".encode("latin-1")),
          "plan",
          ("neoseg.toml", "TOML")),
    Fault("a misspelt table", "imported", config("\n[trainning]\nsteps = 3\n"), "plan", ("'trainning'", "'training'")),
    Fault("a misspelt key", "imported", config(old="steps = 4", new="stepps = 4"), "plan",
          ("'training.stepps'", "'steps'")),
    Fault("a word where a number belongs", "imported", config(old="steps = 4", new='steps = "many"'), "plan",
          ("training.steps", "'many'")),
    Fault("a number out of range", "imported", config(old="count = 2", new="count = 1"), "plan",
          ("folds.count", "greater than or equal to 2")),
    Fault("a table where a number belongs", "imported", config("\n[seed]\na = 1\n"), "plan", ("seed",)),
    Fault("two lengths of training", "imported", config(old="steps = 4", new="steps = 4\ntime_budget_s = 60"), "plan",
          ("steps and time_budget_s",)),
    Fault("no labels", "imported", config(old="[labels]\nlesion = 1\n", new=""), "plan", ("labels", "missing")),
    Fault("a label of 0", "imported", config(old="lesion = 1", new="lesion = 0"), "plan", ("labels", "background 0")),
    Fault("two labels of one value", "imported", config(old="lesion = 1", new="lesion = 1\nbleeding = 1"), "plan",
          ("labels", "differ")),
    Fault("an unknown channel", "imported", config(old="device", new='channels = ["imgae"]\ndevice'), "plan",
          ("'imgae'", "'image'")),
    Fault("more folds than subjects", "imported", config(old="count = 2", new="count = 9"), "plan",
          ("folds.count", "9 folds")),
    Fault("a patch that does not suit the network", "imported", config(old="[16, 16, 16]", new="[15, 16, 16]"), "plan",
          ("patch", "multiples")),
    Fault("widths that do not fit the heads", "imported", config(old="heads = 2", new="heads = 3"), "plan",
          ("dims[0]", "multiple of heads")),
    Fault("a change without a value", "imported", nothing, "plan --set seed", ("--set seed", "key=value")),
    Fault("a change through a value", "imported", nothing, "plan --set device.deep=1",
          ("'device' is a value ('cpu')", "--set device=VALUE")),
    Fault("a change through a value of a table", "imported", nothing, "plan --set training.steps.deep=1",
          ("'steps' is a value (4)", "--set training.steps=VALUE")),
    Fault("a workspace in place of a configuration", "imported", nothing, "run {w}",
          ("this is a folder", "neoseg.toml or --workspace")),
    Fault("a folder in place of a configuration", "imported", nothing, "run {data}",
          ("holds no neoseg.toml", "neoseg import DIR --workspace")),
    Fault("a run in place of a configuration", "finished", nothing, "predict {run}",
          ("this is a run", "--input SCANS --output DIR")),
    Fault("too few labelled cases", "imported", table(lambda t: t.replace(",train,", ",test,", 4)), "plan",
          ("1 labelled training cases", "add labels, or rows with split = train")),
    Fault("a workspace that is a file", "imported", written("place", "x"), "run {w}/neoseg.toml --workspace {w}/place",
          ("place", "not a directory")),
    Fault("a deformation larger than the patch", "imported", nothing,
          "plan --set augment.elastic_probability=0.2 --set augment.elastic_displacement_mm=[2,64] --set "
          "augment.elastic_spacing_mm=200",
          ("augment.elastic_displacement_mm ends at 64", "half of the patch")),
    Fault("a run name that leaves the folder", "imported", nothing, "plan --set name=../x", ("name", "../x")),
    # --- info
    Fault("a network that is not known", "data", nothing, "info --network unett", ("unett", "'unet'")),
    Fault("sizes of one network and of all", "data", nothing, "info --networks --network unet",
          ("--networks and --network unet", "one of them")),
    # --- import
    Fault("no folder", "data", nothing, "import {data}/nowhere --workspace {w}", ("nowhere", "does not exist")),
    Fault("a file in place of the folder", "data", nothing, "import {images}/scan0.nii.gz --workspace {w}",
          ("scan0.nii.gz", "folder")),
    Fault("an empty folder", "data", empty_data, "import {data} --workspace {w}", ("no known layout", "--layout")),
    Fault("a folder of no layout", "data", no_layout, "import {data} --workspace {w}", ("no known layout",)),
    Fault("the wrong layout", "data", nothing, "import {data} --workspace {w} --layout bonbid", ("data", "bonbid")),
    Fault("an unknown layout", "data", nothing, "import {data} --workspace {w} --layout folder", ("'folders'",)),
    Fault("an unknown recipe", "data", nothing, "import {data} --workspace {w} --recipe dmo", ("'demo'",)),
    Fault("two files of one name", "data", twin, "import {data} --workspace {w}", ("scan0", "same name")),
    Fault("a damaged dataset.json", "data", written("data/dataset.json", "{"), "import {data} --workspace {w}",
          ("dataset.json", "JSON")),
    Fault("an import over another", "imported", nothing, "import {data} --workspace {w}", ("--overwrite",)),
    Fault("a workspace that may not be written", "data", nothing, "import {data} --workspace {w}",
          ("cases.csv", "cannot be written"), around=closed(lambda s: s.root, 0o555)),
    # --- what vanishes or changes between stages
    Fault("an image deleted after the import", "imported", lambda s: s.image(1).unlink(), "plan", ("scan1.nii.gz",)),
    Fault("a label deleted after preparation", "prepared", lambda s: s.label(1).unlink(), "train", ("scan1.nii.gz",)),
    Fault("an image deleted after preparation", "prepared", lambda s: s.image(1).unlink(), "train", ("scan1.nii.gz",)),
    Fault("a label changed after preparation", "prepared", label(1, lambda a: np.roll(a, 2, axis=0)), "train",
          ("neoseg plan", "cases")),
    Fault("a held-out image changed after preparation", "prepared", image(5, lambda a: a + 1), "train",
          ("'prepare'", "neoseg prepare")),
    Fault("a truncated prepared image", "prepared", lambda s: cut_short(s.prepared(1, "image.npy")), "train",
          ("image.npy", "neoseg prepare")),
    Fault("a prepared label of another shape", "prepared",
          lambda s: np.save(s.prepared(1, "label.npy"), np.zeros((3, 3, 3), dtype=np.uint8)), "train",
          ("label.npy", "neoseg prepare")),
    Fault("an empty prepared image", "prepared", lambda s: s.prepared(1, "image.npy").write_bytes(b""), "train",
          ("image.npy", "neoseg prepare")),
    Fault("a damaged prepared record", "prepared", lambda s: cut_short(s.prepared(1, "record.json")), "train",
          ("record.json", "neoseg prepare")),
    Fault("a prepared record without its grid", "prepared",
          lambda s: edit_json(s.prepared(1, "record.json"), lambda r: r.pop("prepared")), "train",
          ("record.json", "neoseg prepare")),
    Fault("a prepared case that is gone", "prepared", lambda s: shutil.rmtree(s.prepared(1, ".")), "train",
          ("'prepare'", "neoseg prepare")),
    Fault("no plan", "prepared", lambda s: (s.root / "plan.json").unlink(), "train", ("plan.json", "neoseg plan")),
    Fault("a damaged plan", "prepared", lambda s: cut_short(s.root / "plan.json"), "train", ("plan.json", "JSON")),
    Fault("a plan with a misspelt key", "prepared", json_of("plan.json", lambda p: p.update(ptach=p.pop("patch"))),
          "train", ("plan.json", "'ptach'", "'patch'")),
    Fault("a plan with a patch that does not suit", "prepared", json_of("plan.json",
          lambda p: p.update(patch=[9, 9, 9])),
          "train", ("plan.json", "patch")),
    Fault("a plan that is a list", "prepared", written("plan.json", "[1, 2]"), "train", ("plan.json",)),
    Fault("a plan with another channel", "prepared",
          json_of("plan.json", lambda p: p.update(channels=["t1"], rules={"t1": "case"})), "train",
          ("plan.json", "channels")),
    Fault("damaged folds", "prepared", lambda s: cut_short(s.root / "folds.json"), "train", ("folds.json",)),
    Fault("a subject in two parts of a fold", "prepared", leaking_folds, "train", ("folds.json", "stands in")),
    Fault("an unknown case in a fold", "prepared",
          json_of("folds.json", lambda f: f["folds"][0]["train"].append("nobody")), "train",
          ("folds.json", "'nobody'", "no labelled training case", "plan again")),
    Fault("a held-out case in a fold", "prepared",
          json_of("folds.json", lambda f: f["folds"][0]["train"].append("scan5")), "train",
          ("folds.json", "'scan5' is no labelled training case", "plan again")),
    Fault("weights of a file to start from", "prepared", nothing, "train --init-from {w}/cases.csv",
          ("this is a file", "neoseg weights convert")),
    Fault("published weights of another network to start from", "prepared", converted("SPL"), "train --init-from {out}",
          ("network.layout is \"aligned\"", "layout = \"legacy\"", "stem = [4, 4, 2]", "[plan] patch = [128, 128, 64]",
           "plan again")),
    Fault("published weights of unknown axes to start from", "prepared", converted(None), "train --init-from {out}",
          ("native_orientation", "\"SPL\"", "not stated")),
    Fault("published weights with a damaged description", "prepared", converted("XYZ"), "train --init-from {out}",
          ("network.json", "convert the checkpoint again")),
    Fault("a file of the authors asked for of another network", "finished",
          json_of("runs/default/plan.json", lambda p: p.update(network={"kind": "segresnet"})),
          "weights convert {run}/fold0/best {out}", ("network of this run is segresnet", "unetr_pp of layout legacy")),
    Fault("folds of other text", "prepared", json_of("folds.json", lambda f: f.update(folds=[1])), "train",
          ("folds.json", "plan again")),
    Fault("a damaged record of a stage", "prepared", written("runs/default/stages/prepare.json", "{"), "train",
          ("prepare.json", "damaged")),
    Fault("no such fold", "prepared", nothing, "train --fold 7", ("--fold 7", "2 folds")),
    Fault("a GPU that is not there", "prepared", nothing, "train --set device=cuda:99", ("cuda:99",)),
    Fault("a stage before its time", "prepared", nothing, "predict", ("'train'", "neoseg train")),
    # --- a run
    Fault("a training of another plan", "finished", json_of("plan.json", lambda p: p.update(batch=1)), "predict",
          ("neoseg train",)),
    Fault("both checkpoints damaged", "finished", damaged_checkpoints, "train", ("fold0", "damaged", "remove")),
    Fault("a damaged description of a training", "finished",
          lambda s: ((s.run / "fold0" / "finished.json").unlink(), cut_short(s.run / "fold0" / "training.json")),
          "train",
          ("training.json", "damaged")),
    Fault("a damaged summary of a training", "finished",
          lambda s: (cut_short(s.run / "fold0" / "finished.json"), (s.run / "stages" / "train.fold0.json").unlink()),
          "train", ("finished.json", "damaged")),
    Fault("other settings in the same run", "finished", config(old="steps_per_epoch = 2", new="steps_per_epoch = 1"),
          "train", ("training", "another `name`")),
    Fault("truncated weights", "finished", lambda s: cut_short(s.run / "fold0" / "best" / "model.safetensors"),
          "predict {run} -i {images} -o {out}", ("model.safetensors", "cannot be loaded")),
    Fault("weights of another network", "finished",
          lambda s: edit_json(s.run / "plan.json", lambda p: p["network"].update(feature_size=8)),
          "predict {run} -i {images} -o {out}", ("model.safetensors", "cannot be loaded")),
    Fault("no weights", "finished", lambda s: (s.run / "fold1" / "best" / "model.safetensors").unlink(),
          "predict {run} -i {images} -o {out}", ("model.safetensors",)),
    Fault("a damaged postprocess.json", "finished", lambda s: cut_short(s.run / "postprocess.json"),
          "predict {run} -i {images} -o {out}", ("postprocess.json", "damaged")),
    Fault("a postprocess.json with another key", "finished",
          lambda s: edit_json(s.run / "postprocess.json", lambda p: p.update(treshold=p.pop("threshold"))),
          "predict {run} -i {images} -o {out}", ("postprocess.json", "treshold")),
    Fault("a damaged config.json", "finished", lambda s: cut_short(s.run / "config.json"),
          "predict {run} -i {images} -o {out}", ("config.json",)),
    Fault("a run that is not finished", "prepared", nothing, "predict {run} -i {images} -o {out}",
          ("default", "finished run")),
    Fault("a run that is not there", "finished", nothing, "predict {w}/runs/other -i {images} -o {out}",
          ("other", "finished run")),
    Fault("a mask that was damaged", "finished",
          lambda s: (cut_short(a_mask(s)), (s.run / "scores.csv").unlink()), "evaluate",
          ("predictions", "damaged")),
    Fault("a mask that is gone", "finished", lambda s: a_mask(s).unlink(),
          "evaluate", ("'predict'", "neoseg predict")),
    Fault("damaged scores", "finished", lambda s: cut_short(s.run / "scores.csv", 0.51), "report", ("scores.csv",)),
    Fault("scores with other columns", "finished", lambda s: replace_text(s.run / "scores.csv", "metric", "measure"),
          "report", ("scores.csv",)),
    Fault("a damaged log of a training", "finished", lambda s: cut_short(s.run / "fold0" / "log.jsonl", 0.9), "report",
          ("log.jsonl",)),
    # --- new scans
    Fault("no scans", "finished", nothing, "predict {run} -i {w}/nowhere -o {out}", ("nowhere",)),
    Fault("an empty folder of scans", "finished", only_text, "predict {run} -i {out} -o {w}/masks", ("out", "image")),
    Fault("one damaged scan among others", "finished", scans(cut_short), "predict {run} -i {w}/new -o {out}",
          ("scan0", "truncated"), told="scan"),
    Fault("one scan with NaN", "finished", scans(lambda p: rewrite(p, lambda a: a * np.float32(np.nan))),
          "predict {run} -i {w}/new -o {out}", ("scan0", "NaN"), told="scan"),
    Fault("one scan of zeros", "finished", scans(lambda p: rewrite(p, np.zeros_like)),
          "predict {run} -i {w}/new -o {out}", ("scan0",), told="scan"),
    Fault("masks over the scans", "finished", scans(), "predict {run} -i {w}/new -o {w}/new", ("scan0", "--output")),
    Fault("masks into a file", "finished", lambda s: (scans()(s), s.out.write_text("x")),
          "predict {run} -i {w}/new -o {out}", ("out", "cannot be written")),
    Fault("masks where nothing may be written", "finished", lambda s: (scans()(s), s.out.mkdir()),
          "predict {run} -i {w}/new -o {out}", ("out", "cannot be written"), around=closed(lambda s: s.out, 0o555)),
    Fault("an option without its other two", "finished", nothing, "predict {run} -i {images}", ("--input", "--output")),
    Fault("a GPU for new scans that is not there", "finished", nothing,
          "predict {run} -i {images} -o {out} --device cuda:99", ("cuda:99",)),
    # --- masks of any program
    Fault("no folder of masks", "data", nothing, "evaluate --truth {labels} --prediction {out}", ("out",
          "no such folder")),
    Fault("a folder without masks", "data", only_text, "evaluate --truth {labels} --prediction {out}", ("out",
          "no mask")),
    Fault("masks of other names", "data", masks(lambda p: (p / "scan0.nii.gz").rename(p / "baby0.nii.gz")),
          "evaluate --truth {labels} --prediction {out}", ("scan0", "no prediction")),
    Fault("two masks of one case", "data", masks(lambda p: shutil.copy(p / "scan0.nii.gz", p / "scan0_seg.nii.gz")),
          "evaluate --truth {labels} --prediction {out}", ("scan0", "keep one")),
    Fault("a mask on another grid", "data", masks(lambda p: rewrite(p / "scan1.nii.gz", lambda a: a, 4.0)),
          "evaluate --truth {labels} --prediction {out}", ("scan1", "grid")),
    Fault("masks of other values", "data", masks(lambda p: [rewrite(file, lambda a: a * 7) for file in p.iterdir()]),
          "evaluate --truth {labels} --prediction {out}", ("hold the values [7.0]", "the references [1.0]")),
    Fault("a truncated mask", "data", masks(lambda p: cut_short(p / "scan1.nii.gz")),
          "evaluate --truth {labels} --prediction {out}", ("scan1", "truncated")),
    Fault("an unknown preset", "data", masks(), "evaluate --truth {labels} --prediction {out} --preset bonbit",
          ("'bonbid'",)),
    Fault("half of a comparison", "data", nothing, "evaluate --truth {labels}", ("both",)),
    # --- single volumes and atlases
    Fault("an output of no format", "data", nothing, "prepare-volume {images}/scan0.nii.gz {out}/a.png",
          ("a.png", ".nii.gz")),
    Fault("sizes that are words", "data", nothing, "prepare-volume {images}/scan0.nii.gz {out}/a.nii.gz --spacing big",
          ("--spacing big",)),
    Fault("a volume that is not in the file", "data", nothing,
          "prepare-volume {images}/scan0.nii.gz {out}/a.nii.gz --volume-index 3", ("volume 3", "holds 1")),
    Fault("an atlas of another modality", "imported", another_atlas, "run {w}/neoseg.toml",
          ("atlas", "'t2'", "'adc'")),
    Fault("no healthy group", "imported", lambda s: z_map_of(s, healthy=0), "run {w}/neoseg.toml",
          ("healthy",)),
    Fault("a healthy group that is too small", "imported", lambda s: z_map_of(s, healthy=2),
          "run {w}/neoseg.toml --set folds.count=3",
          ("healthy", "5")),
    Fault("an atlas of too few scans", "data", nothing, "atlas build {images}/scan0.nii.gz -o {out}", ("5",)),
    Fault("an atlas that is not there", "data", without_skull,
          "prepare-volume {images}/scan0.nii.gz {out}/a.nii.gz --kind adc --atlas {w}/none --zmap {out}/z.nii.gz",
          ("none", "no atlas")),
    # --- wrong calls
    Fault("a misspelt command", "data", nothing, "trian", ("trian",)),
    Fault("a misspelt option", "data", nothing, "plan --sett a=1", ("sett",)),
    Fault("an option that is no number", "prepared", nothing, "train --fold two", ("fold", "integer")),
    Fault("a demo without its folder", "data", nothing, "demo", ("folder",)),
    Fault("a demo in a folder of other things", "data", nothing, "demo {data}", ("not empty",)),
    # --- memory
    Fault("no memory on the GPU for a step", "prepared", nothing, "train", ("memory", "plan.patch", "batch_size"), 1,
          around=lambda s: mock.patch("neoseg.training.loop.train_step", raising(out_of_memory()))),
    Fault("no memory on the CPU for a step", "prepared", nothing, "train", ("memory", "patches of", "would take"), 1,
          around=instead("neoseg.training.loop.train_step", raising(CPU_MEMORY))),
    Fault("no memory for an array", "prepared", nothing, "train", ("memory", "plan.patch"), 1,
          around=instead("neoseg.training.loop.train_step", raising(MemoryError()))),
    Fault("no memory for a window", "finished", lambda s: shutil.rmtree(s.run / "probabilities"),
          "predict --set window.overlap=0.4", ("memory", "predict", "window.batch"), 1,
          around=instead("neoseg.networks.unetr_pp.UnetrPP.forward", raising(CPU_MEMORY)), written=("postprocess",)),
    Fault("no memory for a window of a new scan", "finished", nothing, "predict {run} -i {images} -o {out}",
          ("memory", "predict", "window.batch"), 1,
          around=instead("neoseg.networks.unetr_pp.UnetrPP.forward", raising(CPU_MEMORY))),
    Fault("no memory to prepare a case", "imported", lambda s: s.call("plan"), "prepare", ("scan", "memory", "jobs"), 1,
          around=instead("neoseg.pipeline.prepare.load_images", raising(MemoryError("Unable to allocate 9 GiB")))),
    Fault("an image larger than the memory", "imported", nothing, "check", ("scan0", "GiB", "free"), 1,
          around=lambda s: mock.patch.multiple("neoseg.io.promise", _ALWAYS_FITS=0, free_memory_gib=lambda: 1e-6)),
    # --- signals
    Fault("SIGINT while cases are read", "imported", nothing, "check", ("stopped", "goes on"), 130,
          around=signalling("neoseg.data.checks.facts.read_volume", signal.SIGINT)),
    Fault("SIGTERM while cases are read", "imported", nothing, "check", ("SIGTERM", "goes on"), 143,
          around=signalling("neoseg.data.checks.facts.read_volume", signal.SIGTERM)),
    Fault("SIGTERM in preparation", "imported", lambda s: s.call("plan"), "prepare", ("SIGTERM", "goes on"), 143,
          around=signalling("neoseg.pipeline.prepare.load_images", signal.SIGTERM)),
    Fault("SIGTERM in training", "prepared", nothing, "train", ("SIGTERM", "after step 2 of 4", "goes on"), 143,
          around=signalling("neoseg.training.loop.train_step", signal.SIGTERM)),
    Fault("SIGINT in training", "prepared", nothing, "train", ("SIGINT", "after step 2 of 4", "goes on"), 130,
          around=signalling("neoseg.training.loop.train_step", signal.SIGINT)),
    Fault("SIGINT twice in training", "prepared", nothing, "train", ("SIGINT", "goes on"), 130,
          around=signalling("neoseg.training.loop.train_step", signal.SIGINT, signal.SIGINT)),
    Fault("SIGTERM in the prediction of new scans", "finished", nothing, "predict {run} -i {images} -o {out}",
          ("SIGTERM", "goes on"), 143, around=signalling("neoseg.pipeline.ahead.load_images", signal.SIGTERM)),
)  # fmt: skip
