"""A very small workspace to break, the command line called in this process, and what has to hold after any fault."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import signal
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from unittest import mock

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from neoseg.cli.app import run

SHAPE = (18, 20, 16)
CASES = 6
LONGEST_S = 600
"""Seconds after which a command of this file counts as hanging."""

CONFIG = """\
cases = "cases.csv"
device = "cpu"

[labels]
lesion = 1

[folds]
count = 2

[plan]
patch = [16, 16, 16]

[network]
stem = [2, 2, 2]
dims = [4, 8, 16]
depths = [1, 1, 1]
heads = 2
proj = [8, 8, 8]
decoder_proj = 8
feature_size = 4

[training]
steps = 4
steps_per_epoch = 2
batch_size = 2
precision = "float32"

[window]
precision = "float32"

[postprocess]
thresholds = [0.3, 0.5]
minimum_lesion_mm3 = [0.0]

[evaluate]
resamples = 100
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Scene:
    """A workspace with its data below it."""

    root: Path

    @property
    def table(self) -> Path:
        return self.root / "cases.csv"

    @property
    def config(self) -> Path:
        return self.root / "neoseg.toml"

    @property
    def run(self) -> Path:
        return self.root / "runs" / "default"

    @property
    def out(self) -> Path:
        return self.root / "out"

    def image(self, number: int) -> Path:
        return self.root / "data" / "images" / f"scan{number}.nii.gz"

    def label(self, number: int) -> Path:
        return self.root / "data" / "labels" / f"scan{number}.nii.gz"

    def prepared(self, number: int, name: str) -> Path:
        return next((self.root / "prepared").glob(f"*/scan{number}")) / name

    def call(self, command: str) -> Done:
        """Run a command; {w}, {data}, {run}, {out}, {images} and {labels} stand for folders."""
        data = self.root / "data"
        places = {"w": self.root, "data": data, "run": self.run, "out": self.out}
        places |= {"images": data / "images", "labels": data / "labels"}
        words = [word.format(**places) for word in command.split()]
        of_a_run = not {"-i", "-o", "--truth"} & set(words)
        if words[0] in ("check", "plan", "prepare", "train", "predict", "evaluate", "report") and of_a_run:
            words += ["--workspace", str(self.root)]
        if words[0] not in ("import", "prepare-volume", "info", "weights") and "--loud" not in words:
            words.append("--quiet")
        return call([word for word in words if word != "--loud"])


def call(arguments: list[str]) -> Done:
    """Call the command line in this process as a shell would, and give the signals' handlers back."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "argv", ["neoseg", *arguments]))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(not_longer_than(LONGEST_S))
        for number, handler in handlers.items():
            stack.callback(signal.signal, number, handler)
        code = run()
    return Done(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def not_longer_than(seconds: int) -> Iterator[None]:
    """Fail when the block hangs."""

    def hangs(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"no answer after {seconds} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def write_data(folder: Path, count: int = CASES) -> None:
    """Write images of noise with a bright ball each, and the balls as labels."""
    generator = np.random.default_rng(5)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)
    affine = np.diag([1.0, 1.0, 1.2, 1.0])
    affine[:3, 3] = (-9, -10, -8)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        label = (np.linalg.norm(index - generator.uniform(7, 10, 3), axis=-1) < 4).astype(np.uint8)
        image = (generator.normal(100, 10, SHAPE) + 60 * label).astype(np.float32)
        nib.save(nib.Nifti1Image(image, affine), folder / "images" / f"scan{number}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), folder / "labels" / f"scan{number}.nii.gz")


def rewrite(path: Path, change: Callable[[NDArray[np.float32]], NDArray], shift_mm: float = 0.0) -> None:
    """Write an image again with other voxels or another origin."""
    loaded = nib.load(path)
    affine = loaded.affine.copy()
    affine[0, 3] += shift_mm
    nib.save(nib.Nifti1Image(change(np.asarray(loaded.dataobj)), affine), path)


def replace_text(path: Path, old: str, new: str) -> None:
    """Replace the first occurrence, which has to be there."""
    text = path.read_text()
    assert old in text, (old, text)
    path.write_text(text.replace(old, new, 1))


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    """Change a JSON object in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def patch_nifti(path: Path, offset: int, form: str, *values: float, plain: bool = False) -> Path:
    """Write other values into the header of a NIfTI file; returns the file, without .gz when it is to be plain."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<" + form, content, offset, *values)
    if plain:
        path.unlink()
        path = path.with_suffix("")
        path.write_bytes(bytes(content))
    else:
        path.write_bytes(gzip.compress(bytes(content), 1))
    return path


def cut_short(path: Path, share: float = 0.6) -> None:
    """Keep the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def contents(root: Path) -> dict[str, str]:
    """Return a hash of every file by its place."""
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and not p.is_symlink() and os.access(p, os.R_OK)
    }


def leftovers(root: Path) -> list[str]:
    """Return what a write that was broken off left behind."""
    return [str(p) for p in root.rglob(".*") if p.suffix in (".tmp", ".old") or ".tmp" in p.suffixes]


MAY_CHANGE = ("stages/", "digests.json", "fingerprint", "config.json", "environment.json", "manifest.json")
"""Records of what is under way, and caches of what was read: written whole, but not results."""


def assert_former_results_stay(before: dict[str, str], root: Path, *, written: tuple[str, ...] = ()) -> None:
    """Every file from before the fault has its bytes; nothing half-written is there; new JSON can be read."""
    assert not leftovers(root)
    after = contents(root)
    changed = [name for name, known in before.items() if after.get(name) != known]
    assert not [name for name in changed if not any(part in name for part in (*MAY_CHANGE, *written))], changed
    for name in set(after) - set(before):
        if name.endswith(".json"):
            json.loads((root / name).read_text())


def assert_one_sentence(done: Done, *words: str) -> None:
    """Standard error holds one line of neoseg's own with the words, and nothing else."""
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("neoseg: "), done.err
    assert lines[0].endswith("."), done.err
    for word in words:
        assert word.lower() in lines[0].lower(), (word, lines[0])
