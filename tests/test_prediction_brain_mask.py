"""A given brain mask is a limit: outside of it, and in its holes, nothing is found, in training cases and new scans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from neoseg.config import load_config
from neoseg.data.cases import read_cases, write_cases
from neoseg.errors import InputError
from neoseg.inference.predictor import Wanted
from neoseg.io import read_volume
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.load_run import load_predictor
from neoseg.pipeline.new_scans import PredictOptions, predict_scans
from neoseg.pipeline.run import run
from neoseg.progress import Silent

pytestmark = pytest.mark.slow


def brain_of(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A block with a hole that is closed on all sides."""
    mask = np.zeros(shape, dtype=np.uint8)
    mask[3:-4, 4:-3, 2:-3] = 1
    mask[8:11, 9:12, 5:8] = 0
    return mask


def test_nothing_is_found_outside_a_given_mask(
    blobs: Callable[[Path, int, int], None], blob_changes: tuple[str, ...], tmp_path: Path
) -> None:
    data, folder = tmp_path / "data", tmp_path / "work"
    blobs(data, 4, 1)
    imported = import_folder(data, folder)
    masks = tmp_path / "masks"
    masks.mkdir()
    cases = []
    for case in read_cases(folder / "cases.csv"):
        image = nib.load(next(iter(case.images.values())))
        nib.save(nib.Nifti1Image(brain_of(image.shape), image.affine), masks / f"{case.case}.nii.gz")
        cases.append(replace(case, mask=masks / f"{case.case}.nii.gz"))
    write_cases(cases, folder / "cases.csv")
    run(load_config(imported.config, (*blob_changes, "training.steps=2", "training.steps_per_epoch=2")))

    trained = folder / "runs" / "default"
    seen = 0
    for path in sorted((trained / "probabilities" / "cv").glob("*.npy")):
        found = np.load(path)
        outside = brain_of(nib.load(data / "images" / f"{path.stem}.nii.gz").shape) == 0
        box = tuple(
            slice(a - 1, b + 1)
            for a, b in ((3, outside.shape[0] - 4), (4, outside.shape[1] - 3), (2, outside.shape[2] - 3))
        )
        assert found.shape[1:] == outside[box].shape
        assert (found[:, outside[box]] == 0).all() and (found[:, ~outside[box]] > 0).all()
        seen += 1
    assert seen == 4

    options = PredictOptions(uncertainty=True, brain_masks=masks)
    out = tmp_path / "out"
    predict_scans(trained, data / "images", out, probabilities=True, options=options, progress=Silent())
    for scan in sorted((data / "images").glob("*.nii.gz")):
        name = scan.name.removesuffix(".nii.gz")
        inside = brain_of(nib.load(scan).shape) > 0
        for kind in ("probability_label_1", "entropy", "spread"):
            values = np.asarray(nib.load(out / f"{name}_{kind}.nii.gz").dataobj)
            assert (values[~inside] == 0).all() and values[inside].any(), kind

    predictor, channels = load_predictor(trained)
    image = read_volume(scan)
    mask = read_volume(masks / scan.name).array[0] != 0
    again = predictor.predict(image, channels, mask=mask, wanted=Wanted(probabilities=True))
    stored = read_volume(out / f"{name}_probability_label_1.nii.gz")
    assert again.probabilities is not None and np.array_equal(again.probabilities.array, stored.array)
    for wrong in (mask[1:], np.zeros_like(mask)):
        with pytest.raises(InputError, match="A brain mask of shape"):
            predictor.predict(image, channels, mask=wrong)
