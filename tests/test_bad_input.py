"""Mistakes of a user in processes of their own; the table of single faults is in faults.py."""

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


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    loaded = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(loaded.dataobj)), loaded.affine), path)


def test_check_lists_all_problems_at_once(workspace: Path) -> None:
    image(workspace, 0).write_text("hello")
    image(workspace, 1).write_bytes(image(workspace, 1).read_bytes()[:4000])
    rewrite(label(workspace, 3), lambda a: a[:-2])
    rewrite(label(workspace, 4), lambda a: a * 255)
    rewrite(image(workspace, 5), lambda a: np.where(a > 150, np.nan, a).astype(np.float32))
    done = neoseg("check", "--workspace", str(workspace), "--json", "--quiet")
    assert done.returncode == 2
    cases = {problem["case"] for problem in json.loads(done.stdout) if problem["severity"] == "error"}
    assert cases >= {"scan0", "scan1", "scan3", "scan4", "scan5"}


def test_a_run_on_faulty_data_stops_before_it_writes_anything(workspace: Path) -> None:
    rewrite(label(workspace, 4), lambda a: a * 255)
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
    ("arguments", "words"), [(["run", "nowhere.toml"], "no such configuration"), (["trian"], "trian")]
)
def test_wrong_calls_are_told_in_one_sentence(arguments: list[str], words: str) -> None:
    done = neoseg(*arguments)
    assert done.returncode == 2, done.stderr
    assert words.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


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
