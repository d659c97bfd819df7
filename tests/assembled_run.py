"""A finished run without its hours: planned, prepared and put together as by training, with weights that were drawn."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from neoseg.atomic import read_json, write_json
from neoseg.config import load_config
from neoseg.data.cases import Case, write_cases
from neoseg.networks.build import build_network
from neoseg.pipeline.manifest import manifest_of
from neoseg.pipeline.run import run_stage, weights_of
from neoseg.pipeline.run_folder import make_self_contained
from neoseg.pipeline.session import Session, open_session
from neoseg.training.checkpoint import write_weights
from neoseg.workspace import Run

__all__ = ["SHAPE", "assemble", "assembled", "draw_weights", "open_table", "predicted", "save", "with_one_fold"]

SHAPE = (20, 22, 18)
CONFIG = """
cases = "cases.csv"
labels = {{ ball = 1 }}
{more}
[folds]
count = 2
[plan]
patch = [16, 16, 16]
[network]
kind = "unet"
widths = [4, 8]
"""


def save(path: Path, array: NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 1.2, 1.0])), path)
    return path


def open_table(folder: Path, cases: Sequence[Case], more: str = "") -> Session:
    """Write a table and a configuration and open them."""
    write_cases(cases, folder / "cases.csv")
    (folder / "neoseg.toml").write_text(CONFIG.format(more=more))
    return open_session(load_config(folder / "neoseg.toml"))


def draw_weights(run: Run, session: Session, index: int, seed: int) -> None:
    plan = session.plan
    network = build_network(
        plan.network,
        in_channels=len(plan.channels),
        classes=session.targets.channels,
        patch=plan.patch,
        overlapping=session.targets.overlapping,
        generator=torch.Generator().manual_seed(seed),
    )
    write_weights(run.fold(index) / "best", network.state_dict(), {})


def assemble(session: Session) -> Run:
    """Return the run of a session with two folds and a chosen post-processing."""
    for stage in ("plan", "prepare"):
        run_stage(session, stage)
    run = session.run
    make_self_contained(session, session.plan, ())
    write_json(run.manifest, manifest_of(session))
    for index in range(2):
        draw_weights(run, session, index, seed=index)
        write_json(run.fold(index) / "finished.json", {})
        run.record_fold(index, "key", {"seconds": 0.0})
    write_json(
        run.postprocess, {"threshold": 0.5, "minimum_lesion_mm3": 0.0, "dice": 0.5, "cases": 4, "keep_largest": []}
    )
    predicted(run)
    return run


def assembled(root: Path, scans: Sequence[str]) -> tuple[Session, Path]:
    """Return a run of four made-up cases, and a folder of scans of these names."""
    generator = np.random.default_rng(0)
    cases = []
    for number in range(4):
        label = np.zeros(SHAPE, np.uint8)
        label[6:12, 7:13, 5 + number : 10 + number] = 1
        image = (generator.normal(100, 10, SHAPE) + 60 * label).astype(np.float32)
        name = f"p{number}"
        images = {"t1": save(root / f"{name}.nii.gz", image)}
        cases.append(Case(case=name, subject=name, images=images, label=save(root / f"{name}_label.nii.gz", label)))
    for name in scans:
        save(root / "scans" / f"{name}.nii.gz", generator.normal(100, 10, SHAPE).astype(np.float32))
    session = open_table(root, cases)
    assemble(session)
    return session, root / "scans"


def predicted(run: Run) -> None:
    """Record the weights of now as those that the post-processing was chosen with."""
    write_json(run.stage("predict"), {"stage": "predict", "key": "", "seconds": 0.0, "weights": weights_of(run)})


def with_one_fold(run: Path, target: Path, index: int) -> Path:
    """Copy a run as one that was trained with a single one of its folds."""
    shutil.copytree(run, target, ignore=shutil.ignore_patterns("fold?", "stages"))
    shutil.copytree(run / f"fold{index}", target / "fold0")
    write_json(target / "folds.json", [read_json(target / "folds.json")[index]])
    return target
