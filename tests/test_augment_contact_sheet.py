"""The docs show every transform, and each of them changes what it is shown on."""

from __future__ import annotations

import importlib.util
from itertools import combinations
from pathlib import Path
from types import ModuleType

import torch
from PIL import Image

from neoseg.augment.augmentation import AUGMENTATIONS
from neoseg.augment.modality import DROPPED_MODALITY

DOCS = Path(__file__).parents[1] / "docs"


def the_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_contact_sheet", DOCS / "make_contact_sheet.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_transform_is_in_the_picture_and_in_the_text() -> None:
    names = [transform.name for transform in AUGMENTATIONS]
    with Image.open(DOCS / "explanation" / "augmentation.png") as picture:
        assert picture.info["transforms"].split() == names, "run `python docs/make_contact_sheet.py`"
    assert (DOCS / "explanation" / "augmentation.png").stat().st_size < 400_000
    text = (DOCS / "explanation" / "augmentation.md").read_text(encoding="utf-8")
    assert [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")] == names


def test_each_row_shows_changes() -> None:
    script = the_script()
    image, label, _ = script.phantom()
    after = script.rows()
    for transform in AUGMENTATIONS:
        images, labels, drawn = after[transform.name]
        assert all(not torch.equal(one, image[: len(one)]) for one in images), transform.name
        if transform is not DROPPED_MODALITY:  # of two channels it has two outcomes
            assert not any(torch.equal(one, other) for one, other in combinations(images, 2)), transform.name
        assert transform.moves or all(torch.equal(one, label) for one in labels)
        assert script.told(drawn, 0)
