"""Mistakes of a user at the command line: one clear sentence, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"


def neoseg(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "neoseg", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def workspace(tmp_path: Path, blobs: Callable[[Path, int, int], None]) -> Path:
    """A workspace with six imported scans, without a fault yet."""
    blobs(tmp_path / "data", 6, 1)
    done = neoseg("import", str(tmp_path / "data"), "--workspace", str(tmp_path))
    assert done.returncode == 0, done.stderr
    return tmp_path


def image(workspace: Path, number: int) -> Path:
    return workspace / "data" / "images" / f"scan{number}.nii.gz"


def label(workspace: Path, number: int) -> Path:
    return workspace / "data" / "labels" / f"scan{number}.nii.gz"


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], shift_mm: float = 0.0) -> None:
    loaded = nib.load(path)
    affine = loaded.affine.copy()
    affine[0, 3] += shift_mm
    nib.save(nib.Nifti1Image(change(np.asarray(loaded.dataobj)), affine), path)


def replace_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def add_channel(workspace: Path) -> None:
    table = workspace / "cases.csv"
    lines = table.read_text().splitlines()
    first = lines[0].split(",")
    channel = next(c for c in first if c.startswith("image_"))
    place = first.index(channel)
    extended = [lines[0] + ",image_t2"] + [
        line + ("," if number == 0 else "," + line.split(",")[place]) for number, line in enumerate(lines[1:])
    ]
    table.write_text("\n".join(extended) + "\n")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a text file named .nii.gz": (lambda w: image(w, 0).write_text("hello"), "scan0.nii.gz"),
    "a truncated file": (lambda w: image(w, 1).write_bytes(image(w, 1).read_bytes()[:4000]), "scan1.nii.gz"),
    "an empty file": (lambda w: label(w, 1).write_bytes(b""), "scan1.nii.gz"),
    "a missing file": (lambda w: image(w, 2).unlink(), "scan2.nii.gz"),
    "another grid": (lambda w: rewrite(label(w, 3), lambda a: a, shift_mm=3.0), "grid"),
    "another shape": (lambda w: rewrite(label(w, 3), lambda a: a[:-2]), "28"),
    "label 255": (lambda w: rewrite(label(w, 4), lambda a: a * 255), "255"),
    "a rounded label": (lambda w: rewrite(label(w, 4), lambda a: a * 0.99999997), "0.9999"),
    "NaN": (lambda w: rewrite(image(w, 5), lambda a: np.where(a > 150, np.nan, a).astype(np.float32)), "NaN"),
    "a duplicate id": (lambda w: replace_text(w / "cases.csv", "\nscan1,", "\nscan0,"), "scan0"),
    "one subject in both splits": (
        lambda w: (w / "cases.csv").write_text(
            (w / "cases.csv").read_text().replace("scan1,scan1,,patient,train", "scan1,scan0,,patient,test")
        ),
        "scan0",
    ),
    "a missing channel": (add_channel, "t2"),
    "a missing label": (lambda w: replace_text(w / "cases.csv", "data/labels/scan0.nii.gz", ""), "scan0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_names_the_fault(workspace: Path, fault: str) -> None:
    make, words = FAULTS[fault]
    make(workspace)
    done = neoseg("check", "--workspace", str(workspace), "--quiet")
    assert done.returncode == 2, done.stdout + done.stderr
    told = [
        line for line in (done.stdout + done.stderr).splitlines() if "error: " in line or line.startswith("neoseg:")
    ]
    assert any(words in line for line in told), told
    assert "Traceback" not in done.stderr


def test_check_lists_all_problems_at_once(workspace: Path) -> None:
    for fault in ("a text file named .nii.gz", "a truncated file", "another shape", "label 255", "NaN"):
        FAULTS[fault][0](workspace)
    done = neoseg("check", "--workspace", str(workspace), "--json", "--quiet")
    assert done.returncode == 2
    cases = {problem["case"] for problem in json.loads(done.stdout) if problem["severity"] == "error"}
    assert cases >= {"scan0", "scan1", "scan3", "scan4", "scan5"}


def test_a_run_on_faulty_data_stops_before_it_writes_anything(workspace: Path) -> None:
    FAULTS["label 255"][0](workspace)
    done = neoseg("run", str(workspace / "neoseg.toml"), "--quiet")
    assert done.returncode == 2
    assert "255" in done.stderr
    assert not (workspace / "plan.json").exists()
    assert not (workspace / "prepared").exists()
    assert not list(workspace.rglob("*.tmp*"))


def test_a_declared_255_is_mapped(workspace: Path) -> None:
    for number in range(6):
        rewrite(label(workspace, number), lambda a: a * 255)
    done = neoseg("check", "--workspace", str(workspace), "--quiet", "--set", "labels.label_1=[1, 255]")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["import", "nowhere"], "does not exist"),
        (["run", "nowhere.toml"], "no such configuration"),
        (["trian"], "trian"),
        (["plan", "--sett", "a=1"], "sett"),
        (["evaluate", "--truth", "."], "both"),
        (["evaluate", "--truth", "no", "--prediction", "no"], "no such folder"),
        (["demo"], "folder"),
    ],
)
def test_wrong_calls_are_told_in_one_sentence(arguments: list[str], words: str) -> None:
    done = neoseg(*arguments)
    assert done.returncode == 2, done.stderr
    assert words.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_the_nearest_key_is_named(workspace: Path) -> None:
    replace_text(workspace / "neoseg.toml", "[labels]", "[trainning]\nsteps = 3\n[labels]")
    done = neoseg("plan", "--workspace", str(workspace))
    assert done.returncode == 2
    assert "'trainning'" in done.stderr and "'training'" in done.stderr


def test_import_does_not_replace_what_is_there(workspace: Path) -> None:
    done = neoseg("import", str(workspace / "data"), "--workspace", str(workspace))
    assert done.returncode == 2
    assert "--overwrite" in done.stderr


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not on this machine")
def test_real_images_without_labels_and_labels_without_images_are_named(tmp_path: Path) -> None:
    source, negatives = DATA / "msd_hippocampus", DATA / "msd_hippocampus" / "unpaired_negatives"
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for path in [*sorted((source / kind).glob("*.nii.gz"))[:3], *negatives.rglob(f"{kind}/*.nii.gz")]:
            shutil.copy(path, tmp_path / "data" / kind)
    assert neoseg("import", str(tmp_path / "data"), "--workspace", str(tmp_path)).returncode == 0
    done = neoseg("check", "--workspace", str(tmp_path), "--quiet")
    assert done.returncode == 2
    for name in ("118", "010", "281"):
        assert any(name in line and line.startswith("error") for line in done.stdout.splitlines()), done.stdout


def test_help_needs_no_torch_and_no_imaging_library() -> None:
    code = (
        "import sys; sys.argv = ['neoseg', '--help']\n"
        "from neoseg.cli.app import run\n"
        "assert run() == 0\n"
        "heavy = {'torch', 'monai', 'SimpleITK', 'nibabel', 'scipy', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_is_light() -> None:
    code = "import sys, neoseg, neoseg.metrics; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
