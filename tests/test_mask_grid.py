"""Masks of a run's own cases lie on the grid of what the network saw, whatever other images a case has."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from assembled_run import SHAPE, assemble, open_table, save
from neoseg.data.cases import Case
from neoseg.io import read_grid
from neoseg.pipeline.predict import mask_path, predict
from neoseg.volume import same_grid


@pytest.mark.parametrize("shape", [SHAPE, (40, 44, 36)])
def test_an_image_that_is_not_read_has_no_say(tmp_path: Path, shape: tuple[int, ...]) -> None:
    generator, cases = np.random.default_rng(0), []
    for number in range(4):
        label = np.zeros(SHAPE, np.uint8)
        label[6:12, 7:13, 5 + number : 10 + number] = 1
        image = (generator.normal(100, 10, SHAPE) + 60 * label).astype(np.float32)
        other = nib.Nifti1Image(generator.normal(100, 10, shape).astype(np.float32), np.diag([0.5, 0.5, 0.6, 1.0]))
        other.affine[:3, 3] = 30
        nib.save(other, tmp_path / f"p{number}_t1.nii.gz")
        images = {"t1": tmp_path / f"p{number}_t1.nii.gz", "flair": save(tmp_path / f"p{number}_flair.nii", image)}
        label_path = save(tmp_path / f"p{number}_label.nii.gz", label)
        cases.append(Case(case=f"p{number}", subject=f"p{number}", images=images, label=label_path))
    session = open_table(tmp_path, cases, 'channels = ["flair"]')
    assemble(session)
    predict(session)
    for case in cases:
        mask = mask_path(session, "cv", case)
        assert mask.name == f"{case.case}.nii"
        assert same_grid(read_grid(mask), read_grid(case.images["flair"]), 1e-6)
