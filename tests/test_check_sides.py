"""Classes of one side are told where trainings or predictions mirror left and right."""

from __future__ import annotations

from pathlib import Path

import pytest

from neoseg.config import load_config
from neoseg.pipeline.check import _sides
from neoseg.pipeline.session import open_session


@pytest.mark.parametrize(
    ("names", "changes", "told"),
    [
        (("left_lung", "right_lung"), (), ["augment.flip_axes"]),
        (("Hippocampus-L", "Hippocampus-R"), ("window.mirror_axes=[0]",), ["augment.flip_axes and window.mirror_axes"]),
        (("left_lung", "right_lung"), ("augment.flip_axes=[1, 2]",), []),
        (("left_lung", "right_lung"), ("augment.flip_probability=0",), []),
        (("cleft", "bright"), (), []),
        (("left_lung", "heart"), (), []),
    ],
)
def test_classes_of_one_side_and_flips_are_told(
    names: tuple[str, str], changes: tuple[str, ...], told: list[str], tmp_path: Path
) -> None:
    labels = "".join(f'"{name}" = {value}\n' for value, name in enumerate(names, start=1))
    (tmp_path / "cases.csv").write_text("case,subject,image_t1,label\na,a,a.nii.gz,b.nii.gz\n")
    (tmp_path / "neoseg.toml").write_text(f'cases = "cases.csv"\n[labels]\n{labels}')
    session = open_session(load_config(tmp_path / "neoseg.toml", changes))
    found = [problem.sentence for problem in _sides(session)]
    assert [sentence.split(", but ")[1].split(" mirror ")[0] for sentence in found] == told
