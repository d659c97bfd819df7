"""Damaged inputs for every reader of files that a person may hand over or edit, made from a seed; and what must hold.

An input is a valid file that is changed at random: bits, bytes, pieces, single fields and numbers. The reader then has
to return something valid or to raise one of the package's own errors, in one sentence.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neoseg.config import load_config, load_resolved, recipe_text
from neoseg.data.cases import read_cases
from neoseg.data.folds import read_folds
from neoseg.errors import NeosegError
from neoseg.io import read_grid, read_volume, volumes_in
from neoseg.plan.plan import read_plan

Files = dict[str, bytes]
Generator = np.random.Generator


@dataclass(frozen=True)
class Reader:
    """One reader under test.

    Attributes:
        name: of the reader.
        seeds: valid inputs, one of which is changed; the first file of each is the one that is read.
        change: (generator, content of the first file) to its damaged content.
        read: file to a valid result, which it checks.
    """

    name: str
    seeds: Callable[[], Sequence[Files]]
    change: Callable[[Generator, bytes], bytes]
    read: Callable[[Path], None]


def make_input(reader: Reader, index: int) -> Files:
    """Return the input of a number; the same one for the same number."""
    generator = np.random.default_rng([index, *reader.name.encode()])
    seeds = reader.seeds()
    files = dict(seeds[int(generator.integers(len(seeds)))])
    first = next(iter(files))
    for _ in range(int(generator.integers(1, 4))):
        if first.endswith(".nii.gz") and generator.random() < 0.7:
            files[first] = gzip.compress(reader.change(generator, unpacked(files[first])), 1, mtime=0)
        else:
            files[first] = reader.change(generator, files[first])
    return files


def finding(reader: Reader, files: Mapping[str, bytes], folder: Path) -> str:
    """Read an input and return what is wrong with the reader, or ""."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    path = folder / next(iter(files))
    try:
        reader.read(path)
    except NeosegError as error:
        told = str(error)
        if "\n" in told.strip() or not told.strip() or len(told) > 3000:
            return f"not one sentence: {told[:200]!r}"
        if path.name not in told and str(path.parent) not in told:  # a checkpoint is a folder
            return f"the file is not named: {told[:200]!r}"
    except AssertionError as error:
        return f"an invalid result: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""


# --- changes ----------------------------------------------------------------------------------------------------------

NUMBERS = (
    b"0", b"-1", b"1", b"2", b"3", b"255", b"32767", b"65536", b"99999999999", b"18446744073709551616", b"1e309",
    b"nan", b"-inf", b"0.5", b"1e-300", b"", b"x", b"0x10", b"1_000", "²".encode(), b"00", b"+7",
)  # fmt: skip
JUNK = (
    b"\x00",
    b"\xff\xfe",
    b"\n",
    b"\r",
    b",",
    b";",
    b":",
    b"=",
    b'"',
    b"'",
    b"[",
    b"}",
    b"#",
    "ü".encode(),
    b" " * 300,
)
NUMBER = re.compile(rb"-?\d+(\.\d+)?")


def change_bytes(generator: Generator, content: bytes) -> bytes:
    """Flip bits, or replace, repeat, remove or insert a piece, or cut the rest off."""
    data = bytearray(content)
    if not data:
        return b"\x00"
    place = int(generator.integers(len(data)))
    length = int(min(len(data) - place, generator.geometric(0.1)))
    match int(generator.integers(6)):
        case 0:
            data[place] ^= 1 << int(generator.integers(8))
        case 1:
            data[place : place + length] = generator.bytes(length)
        case 2:
            del data[place : place + length]
        case 3:
            data[place:place] = data[place : place + length]
        case 4:
            data[place:place] = JUNK[int(generator.integers(len(JUNK)))]
        case _:
            del data[place:]
    return bytes(data)


def change_text(generator: Generator, content: bytes) -> bytes:
    """Change a number, or exchange, remove or repeat lines or words; or change bytes."""
    match int(generator.integers(5)):
        case 0 | 1 if found := list(NUMBER.finditer(content)):
            place = found[int(generator.integers(len(found)))]
            return content[: place.start()] + NUMBERS[int(generator.integers(len(NUMBERS)))] + content[place.end() :]
        case 2:
            lines = content.split(b"\n")
            i, j = (int(n) for n in generator.integers(len(lines), size=2))
            if generator.random() < 0.3:
                del lines[i]
            elif generator.random() < 0.5:
                lines[i], lines[j] = lines[j], lines[i]
            else:
                lines.insert(j, lines[i])
            return b"\n".join(lines)
        case 3:
            words = re.split(rb"(\W+)", content)
            i, j = (int(n) for n in generator.integers(len(words), size=2))
            words[i] = words[j]
            return b"".join(words)
        case _:
            return change_bytes(generator, content)


NIFTI_FIELDS = (
    (40, "h", 8), (70, "h", 2), (76, "f", 8), (108, "f", 3), (123, "B", 1), (252, "h", 2), (256, "f", 6),
    (280, "f", 12), (344, "B", 4), (0, "i", 1),
)  # fmt: skip
"""Place, form and number of the fields that something depends on: dim, datatype, pixdim, vox_offset, ..."""
SHORTS = (0, 1, -1, 2, 3, 4, 7, 8, 16, 64, 128, 512, 768, 1024, 2304, 30000, 32767, -32768)
FLOATS = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e38, 1e-38, 352.0, 353.0, 1e9, 0.001)


def change_nifti(generator: Generator, content: bytes) -> bytes:
    """Set a field of the header to a value at the edge, or change bytes of header or voxels."""
    if len(content) < 352 or generator.random() < 0.3:
        return change_bytes(generator, content)
    data = bytearray(content)
    if generator.random() < 0.2:
        return bytes(change_bytes(generator, bytes(data[:352])) + data[352:])
    offset, form, count = NIFTI_FIELDS[int(generator.integers(len(NIFTI_FIELDS)))]
    place = offset + int(generator.integers(count)) * struct.calcsize(form)
    if form == "f":
        value: float = FLOATS[int(generator.integers(len(FLOATS)))]
    elif form == "B":
        value = int(generator.integers(256))
    else:
        value = SHORTS[int(generator.integers(len(SHORTS)))]
    struct.pack_into("<" + form, data, place, value)
    return bytes(data)


VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 10**30, 0.5, -0.5, 1e300, float("nan"), float("inf"), "", "x", "\n", "train", [],
    [0], [[]], {}, {"x": 1}, [1, 2, 3], ["a"], [16, 16, 16], "1", [None],
    {"train": ["a"], "inner": ["b"], "validation": ["c"]},
)  # fmt: skip


def change_json(generator: Generator, content: bytes) -> bytes:
    """Replace, remove, rename or repeat something in the tree, or change the text."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return change_text(generator, content)
    if generator.random() < 0.15 or not isinstance(tree, dict | list) or not tree:
        return change_text(generator, content)
    node: Any = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[int(generator.integers(len(keys)))]
        if isinstance(node[key], dict | list) and node[key] and generator.random() < 0.75:
            node = node[key]
            continue
        match int(generator.integers(4)):
            case 0:
                del node[key]
            case 1 if isinstance(node, dict):
                node[str(key) + "x"] = node.pop(key)
            case _:
                node[key] = VALUES[int(generator.integers(len(VALUES)))]
        return json.dumps(tree).encode()


# --- valid inputs -----------------------------------------------------------------------------------------------------


def unpacked(content: bytes) -> bytes:
    """Undo gzip; what cannot be undone stays."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, ValueError) as error:
        assert error
        return content
    except Exception:  # zlib.error has no useful base
        return content


def nifti_files() -> Sequence[Files]:
    import nibabel as nib

    affine = np.diag([1.0, -1.2, 2.0, 1.0])
    ramp = np.arange(60).reshape(4, 5, 3)
    scaled = nib.Nifti1Image(ramp.astype(np.int16), affine)
    scaled.header.set_slope_inter(0.5, -3)
    images = {
        "a.nii": nib.Nifti1Image(ramp.astype(np.int16), affine),
        "b.nii.gz": nib.Nifti1Image(ramp.astype(np.float32), affine),
        "c.nii": nib.Nifti1Image(np.stack([ramp, ramp], axis=-1).astype(np.uint8), affine),
        "d.nii": nib.Nifti2Image(ramp.astype(np.float64) / 7, affine),
        "e.nii.gz": scaled,
        "f.nii": nib.Nifti1Image(ramp[:, :, 0].astype(np.uint8), affine),
    }
    for image in images.values():
        image.set_qform(affine, 1)
    return [
        {name: gzip.compress(image.to_bytes(), 1, mtime=0) if name.endswith(".gz") else image.to_bytes()}
        for name, image in images.items()
    ]


def metaimage_files() -> Sequence[Files]:
    import zlib

    voxels = np.arange(60, dtype=np.int16).tobytes()
    packed = zlib.compress(voxels)
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = {packed}\n"
        "{size}TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1.5 -2 3\nCenterOfRotation = 0 0 0\n"
        "AnatomicalOrientation = RAI\nElementSpacing = 1 1.2 2\nDimSize = 4 5 3\nElementType = MET_SHORT\n"
    )
    plain = head.format(packed="False", size="").encode()
    small = head.format(packed="True", size=f"CompressedDataSize = {len(packed)}\n").encode()
    flat = b"NDims = 2\nDimSize = 3 4\nElementSpacing = 1 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    vector = plain.replace(b"DimSize = 4 5 3", b"DimSize = 2 5 3").replace(b"MET_SHORT", b"MET_SHORT_ARRAY")
    return [
        {"a.mha": plain + b"ElementDataFile = LOCAL\n" + voxels},
        {"b.mha": small + b"ElementDataFile = LOCAL\n" + packed},
        {"c.mhd": plain + b"ElementDataFile = c.raw\n", "c.raw": voxels},
        {"d.mha": flat + bytes(12)},
        {"e.mha": vector + b"ElementNumberOfChannels = 2\nElementDataFile = LOCAL\n" + voxels},
        {"f.mhd": plain + b"ElementDataFile = LIST\nf0.raw\nf1.raw\nf2.raw\n"}
        | {f"f{i}.raw": voxels[40 * i : 40 * i + 40] for i in range(3)},
    ]


def nrrd_files() -> Sequence[Files]:
    voxels = np.arange(60, dtype=np.int16)
    head = (
        "NRRD0004\n# a comment\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 5 3\n"
        "space directions: (1,0,0) (0,1.2,0) (0,0,2)\nkinds: domain domain domain\nendian: little\n"
        "encoding: {encoding}\nspace origin: (1.5,-2,3)\n{more}\n"
    )
    vector = head.replace("dimension: 3", "dimension: 4").replace("sizes: 4 5 3", "sizes: 2 2 5 3")
    vector = vector.replace("directions: ", "directions: none ").replace("kinds: ", "kinds: vector ")
    text = " ".join(str(v) for v in voxels).encode()
    return [
        {"a.nrrd": head.format(encoding="raw", more="").encode() + voxels.tobytes()},
        {"b.nrrd": head.format(encoding="gzip", more="").encode() + gzip.compress(voxels.tobytes(), mtime=0)},
        {"c.nrrd": head.format(encoding="ascii", more="").encode() + text},
        {"d.nhdr": head.format(encoding="raw", more="data file: d.raw\n").encode(), "d.raw": voxels.tobytes()},
        {"e.nrrd": vector.format(encoding="raw", more="key:=value\n").encode() + voxels.tobytes()},
    ]


def picture_files(ending: str) -> Sequence[Files]:
    import io

    from PIL import Image

    ramp = np.arange(60, dtype=np.uint8).reshape(6, 10)
    palette = Image.fromarray(ramp % 4).convert("P")
    palette.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    images = {
        "a": Image.fromarray(ramp),
        "b": Image.fromarray(ramp.astype(np.uint16) * 999),
        "c": Image.fromarray(np.stack([ramp, 2 * ramp, 255 - ramp], axis=-1)),
        "d": Image.fromarray(np.stack([ramp, ramp, ramp, np.full_like(ramp, 255)], axis=-1)),
        "e": palette,
        "f": Image.fromarray(ramp > 20),
    }
    files = []
    for name, image in images.items():
        stream = io.BytesIO()
        if ending == ".tif":
            image.save(stream, "TIFF", compression="tiff_lzw" if name in "ac" else None)
        else:
            image.save(stream, "PNG")
        files.append({f"{name}{ending}": stream.getvalue()})
    return files


def png_files() -> Sequence[Files]:
    return picture_files(".png")


def tiff_files() -> Sequence[Files]:
    return picture_files(".tif")


def change_png(generator: Generator, content: bytes) -> bytes:
    """Change bytes, and often set the checksums right afterwards, so that the change itself is what is read."""
    import zlib

    data = bytearray(change_bytes(generator, content))
    if generator.random() < 0.6:
        place = 8
        while place + 12 <= len(data):
            length = int.from_bytes(data[place : place + 4], "big")
            if place + 12 + length > len(data):
                break
            checksum = zlib.crc32(data[place + 4 : place + 8 + length])
            data[place + 8 + length : place + 12 + length] = checksum.to_bytes(4, "big")
            place += 12 + length
    return bytes(data)


def config_files() -> Sequence[Files]:
    from fault_scene import CONFIG

    return [{"neoseg.toml": text.encode()} for text in (CONFIG, recipe_text("demo"))]


def table_files() -> Sequence[Files]:
    plain = "case,subject,site,group,split,image_image,unit_image,label\n"
    plain += "".join(f"scan{i},s{i},A,patient,train,images/scan{i}.nii.gz,,labels/scan{i}.nii.gz\n" for i in range(3))
    rich = "case,group,split,image_adc,image_t2,unit_adc,label,mask\n"
    rich += 'a,healthy,train,x.nii.gz#0,x.nii.gz#1,mm2/s,,m.nii\nb b,patient,test,y.mha,"z,z.nrrd",,l.nii,\n'
    return [{"cases.csv": plain.encode()}, {"cases.csv": b"\xef\xbb\xbf" + rich.encode()}]


def plan_files() -> Sequence[Files]:
    network = {"dims": [4, 8, 16], "depths": [1, 1, 1], "heads": 2, "stem": [2, 2, 2], "proj": [8, 8, 8]}
    plan = {
        "inputs": "0123", "channels": ["adc", "t2"], "spacing_mm": [1.0, 1.0, 1.2], "patch": [16, 16, 16], "batch": 2,
        "steps": None, "network": network | {"kind": "unetr_pp", "decoder_proj": 8, "feature_size": 4},
        "rules": {"adc": "dataset", "t2": "ct"},
        "statistics": {"adc": {"mean": 1.0, "sd": 2.0, "low": None, "high": None},
                       "t2": {"mean": 1.0, "sd": 2.0, "low": 0.0, "high": 3.0}},
        "reasons": [{"what": "patch", "value": "16", "why": "given", "inputs": ""}],
    }  # fmt: skip
    return [{"plan.json": json.dumps(plan).encode()}]


def folds_files() -> Sequence[Files]:
    rows = [
        {"train": ["a"], "inner": ["b"], "validation": ["c", "d"]},
        {"train": ["c"], "inner": ["d"], "validation": ["a", "b"]},
    ]
    return [{"folds.json": json.dumps({"key": "0123", "folds": rows}).encode()}]


def resolved_files() -> Sequence[Files]:
    from neoseg.config import config_from

    config = config_from({"labels": {"lesion": 1}}, "a seed")
    return [{"config.json": json.dumps(config.model_dump(mode="json")).encode()}]


def checkpoint_files() -> Sequence[Files]:
    """state.json of a checkpoint; its hash is set right after each change, so that the change is what is read."""
    from dataclasses import asdict

    from neoseg.training.checkpoint import TrainingState

    return [{"state.json": json.dumps(asdict(TrainingState(step=3, best=0.5, best_epoch=1))).encode()}]


def segment_files() -> Sequence[Files]:
    length = {"epochs": 100, "steps": 4, "time_budget_s": None, "early_stop_patience": None}
    told = {"segments": [{"first": 0, "last": 4, "epoch": 0, "length": length}], "identity": {"config": {}, "seed": 1}}
    return [{"training.json": json.dumps(told).encode()}]


# --- readers ----------------------------------------------------------------------------------------------------------


def read_image(path: Path) -> None:
    grid = volumes = None
    try:
        grid, volumes = read_grid(path), volumes_in(path)
    finally:
        volume = read_volume(path, volume_index=0)
    assert grid is not None and volumes is not None
    assert volume.array.ndim == volume.grid.ndim + 1
    assert volume.array.dtype.kind in "iuf"
    assert np.isfinite(volume.grid.affine).all()
    assert volume.grid.shape == grid.shape
    assert min(volume.grid.spacing) > 0


def read_settings(path: Path) -> None:
    assert load_config(path).label_set.count >= 2


def read_table(path: Path) -> None:
    for case in read_cases(path):
        assert case.case and "/" not in case.case and "\n" not in case.case
        for file in (*case.images.values(), case.label, case.mask):
            assert file is None or file.is_absolute()
            assert file is None or file.exists() in (True, False)


def read_a_plan(path: Path) -> None:
    plan = read_plan(path)
    assert min(plan.patch) > 0 and np.isfinite(plan.spacing_mm).all()
    json.dumps(plan.decisions(), allow_nan=False)


def read_some_folds(path: Path) -> None:
    folds = read_folds(path, {"a": "1", "b": "2", "c": "3", "d": "4"})
    assert {case for fold in folds for case in fold.validation} == set("abcd")


def read_resolved(path: Path) -> None:
    assert load_resolved(path).label_set.count >= 2


def read_state(path: Path) -> None:
    from torch import nn, optim

    from neoseg.training.checkpoint import TrainingState, _hash_of_state, read_checkpoint, write_checkpoint

    network = nn.Linear(1, 1)
    optimiser = optim.SGD(network.parameters())
    folder = path.parent / path.name.replace(".json", "")
    if not folder.exists():
        write_checkpoint(folder, network, optimiser, None, TrainingState())
    content = path.read_bytes()
    try:
        words = json.loads(content)
        kept = json.loads((folder / "state.json").read_text())["hashes"] if isinstance(words, dict) else {}
        if isinstance(words, dict):
            words["hashes"] = {**kept, "state.json": _hash_of_state(words)}
            content = json.dumps(words).encode()
    except (ValueError, RecursionError):
        kept = None
    whole = (folder / "state.json").read_bytes()
    (folder / "state.json").write_bytes(content)
    try:
        state, _ = read_checkpoint(folder, network, optimiser, None)
        assert state is not None and isinstance(state.step, int) and state.step >= 0
        assert isinstance(state.guard.loss_scale, float | int)
    finally:
        (folder / "state.json").write_bytes(whole)


def read_training(path: Path) -> None:
    from neoseg.training.configs import TrainingConfig
    from neoseg.training.segments import read_segments

    config = TrainingConfig(steps=4)
    segments = read_segments(path.parent, {"config": {}, "seed": 1}, config)
    assert all(segment.last >= segment.first for segment in segments)


READERS = (
    Reader("nifti", nifti_files, change_nifti, read_image),
    Reader("metaimage", metaimage_files, change_text, read_image),
    Reader("nrrd", nrrd_files, change_text, read_image),
    Reader("png", png_files, change_png, read_image),
    Reader("tiff", tiff_files, change_bytes, read_image),
    Reader("config", config_files, change_text, read_settings),
    Reader("cases", table_files, change_text, read_table),
    Reader("plan", plan_files, change_json, read_a_plan),
    Reader("folds", folds_files, change_json, read_some_folds),
    Reader("resolved", resolved_files, change_json, read_resolved),
    Reader("checkpoint", checkpoint_files, change_json, read_state),
    Reader("training", segment_files, change_json, read_training),
)
