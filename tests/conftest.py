"""Shared by the tests that need a finished run: a very small demo, made once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from filelock import FileLock

from fault_scene import Done
from fault_states import scene_at, states  # noqa: F401 - fixtures
from neoseg.config import load_config
from neoseg.phantom.config import CohortConfig, HeadConfig
from neoseg.pipeline.demo import demo
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.run import run
from neoseg.progress import Silent
from small_run import SETS, called, in_this_process

SHARED = Path(__file__).parents[2] / "shared"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Where the folder of shared data is, a test that is skipped for want of them has failed."""
    report = yield
    if report.skipped and SHARED.is_dir() and "shared data" in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped although {SHARED} exists"
    return report


FIRST = ("test_demo.py", "test_demo_hardness.py", "test_predict_new_scans.py", "test_prepare_space_run.py")
"""Files of long tests; begun first, so that no process is left with them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, in that order."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that one of the test processes makes and the others wait for."""
    root = factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "made_once" / name
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not Path(f"{folder}.made").exists():
            # a maker that failed leaves an unfinished folder
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            Path(f"{folder}.made").touch()
    return folder


TINY_COHORT = CohortConfig(healthy=5, patients=5, held_out=1, seed=3, head=HeadConfig(point_mm=(1.6, 5.0)))
ROUGH = (
    "prepare.bias_field.working_mm=8",
    *(f"{part}.affine={{levels_mm=[6.0], samples=10000, turn_degrees=0.0}}" for part in ("atlas", "prepare")),
)
"""Preparation of heads where a test is not about its quality."""

TINY = (
    "folds.count=2",
    "jobs=0",
    "fold_jobs=1",
    "training.steps=8",
    "training.steps_per_epoch=4",
    "training.batch_size=1",
    "plan.patch=[32, 32, 16]",
    "network.dims=[8, 16, 32]",
    "network.depths=[1, 1, 1]",
    "network.proj=[16, 16, 16]",
    "network.feature_size=8",
    "atlas.rounds=1",
    "atlas.spacing_mm=4",
    *ROUGH,
    "atlas.ffd={grid_mm=[30.0], image_mm=[5.0], iterations=8}",
    "prepare.ffd={grid_mm=[30.0], image_mm=[5.0], iterations=8}",
    "evaluate.resamples=200",
)


@pytest.fixture(scope="session")
def tiny_demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished demo of eleven heads and hardly any training: (workspace, summary)."""

    def make(folder: Path) -> None:
        demo(folder, Silent(), cohort=TINY_COHORT, changes=TINY, jobs=0)

    folder = made_once(tmp_path_factory, "tiny_demo", make)
    return folder, json.loads((folder / "runs" / "demo" / "summary.json").read_text())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute with one thread: for small arrays more of them only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def neoseg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line, called in this process: its start takes as long as a small stage."""

    def call(*words: str) -> Done:
        capsys.readouterr()
        code = in_this_process(monkeypatch, "neoseg", *words)
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def rough() -> tuple[str, ...]:
    """Changes of the configuration for heads that are prepared fast and not well."""
    return ROUGH


@pytest.fixture(scope="session")
def tiny_changes() -> tuple[str, ...]:
    """The changes of the configuration that the very small demo ran with."""
    return TINY


def write_blobs(folder: Path, count: int, seed: int) -> None:
    """Write images of noise with one or two bright balls, and the balls as labels, in the layout of two folders."""
    generator = np.random.default_rng(seed)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in (30, 34, 28)], indexing="ij"), axis=-1)
    for number in range(count):
        label = np.zeros((30, 34, 28), dtype=np.uint8)
        for _ in range(1 + number % 2):
            centre = generator.uniform((8, 8, 8), (22, 26, 20))
            label[np.linalg.norm(index - centre, axis=-1) < generator.uniform(3.5, 6)] = 1
        image = generator.normal(100, 12, label.shape) + 60 * label
        affine = np.diag([1.0, 1.0, 1.2, 1.0])
        affine[:3, 3] = (-15, -17, -14)
        nib.save(nib.Nifti1Image(image.astype(np.float32), affine), folder / "images" / f"scan{number}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), folder / "labels" / f"scan{number}.nii.gz")


@pytest.fixture(scope="session")
def blobs() -> Callable[[Path, int, int], None]:
    """The function that writes images of bright balls: (folder, count, seed)."""
    return write_blobs


BLOB_CHANGES = (
    "folds.count=2",
    "training.steps=60",
    "training.steps_per_epoch=30",
    "training.batch_size=2",
    "training.learning_rate=3e-3",
    "network.dims=[8, 16, 32]",
    "network.depths=[1, 1, 1]",
    "network.proj=[16, 16, 16]",
    "network.decoder_proj=16",
    "network.feature_size=8",
    "evaluate.resamples=200",
)


@pytest.fixture(scope="session")
def blob_changes() -> tuple[str, ...]:
    """The changes of the configuration that the run on bright balls was made with."""
    return BLOB_CHANGES


@pytest.fixture(scope="session")
def blob_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run on images of bright balls: (run folder, folder of the data)."""

    def make(root: Path) -> None:
        write_blobs(root / "data", 8, 0)
        imported = import_folder(root / "data", root / "work")
        run(load_config(imported.config, BLOB_CHANGES))

    root = made_once(tmp_path_factory, "blobs", make)
    return root / "work" / "runs" / "default", root / "data"


@pytest.fixture(scope="session")
def small_prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of six images of bright balls with a plan and prepared cases, for the settings of `small_run`."""

    def make(root: Path) -> None:
        write_blobs(root / "data", 6, 0)
        import_folder(root / "data", root / "work")
        with pytest.MonkeyPatch.context() as patch:
            assert called(patch, "check", root / "work") == 0
            for command in ("plan", "prepare"):
                assert called(patch, command, root / "work", *SETS) == 0

    return made_once(tmp_path_factory, "small_prepared", make) / "work"


@pytest.fixture(scope="session")
def small_trained(small_prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a finished run of two folds, four steps each."""

    def make(root: Path) -> None:
        shutil.copytree(small_prepared, root / "work")
        with pytest.MonkeyPatch.context() as patch:
            assert called(patch, "run", root / "work", *SETS, "--steps", "4") == 0

    return made_once(tmp_path_factory, "small_trained", make) / "work"


@pytest.fixture
def workspace(small_prepared: Path, tmp_path: Path) -> Path:
    """A copy of the prepared workspace; its table names the files of the original."""
    return Path(shutil.copytree(small_prepared, tmp_path / "work"))


@pytest.fixture
def finished(small_trained: Path, tmp_path: Path) -> Path:
    """A copy of the workspace with a finished run."""
    return Path(shutil.copytree(small_trained, tmp_path / "work"))
