"""Every npz file that is read, cut short or with a changed byte: words, and never a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from neoseg.atlas.memory import Found, Remembered
from neoseg.errors import InputError
from neoseg.pipeline.prepare_volume import read_transform, write_transform
from neoseg.prepare.atlas import Atlas
from neoseg.prepare.standardise import Template
from neoseg.register.transform_files import load_transform, save_transform
from neoseg.register.transforms import Affine, Chain, Ffd
from neoseg.volume import Grid, Volume

TRANSFORM = Chain([Ffd([0, 0, 0], [9, 9, 9], np.random.default_rng(0).normal(size=(3, 4, 4, 4))), Affine(np.eye(4))])


def maps() -> tuple[Volume, Volume, Volume]:
    grid = Grid.of_spacing((6, 5, 4), (2.0, 2.0, 2.0))
    mean = np.random.default_rng(1).normal(1200, 90, (1, *grid.shape)).astype(np.float32)
    return Volume(mean, grid), Volume(mean / 10, grid), Volume(np.ones((1, *grid.shape), np.uint8), grid)


def given_transform(folder: Path) -> tuple[Path, Callable[[], object]]:
    write_transform(TRANSFORM, folder / "t.npz")
    return folder / "t.npz", lambda: read_transform(folder / "t.npz")


def transform_folder(folder: Path) -> tuple[Path, Callable[[], object]]:
    save_transform(TRANSFORM, folder / "t")
    return folder / "t" / "transform.npz", lambda: load_transform(folder / "t")


def atlas(folder: Path) -> tuple[Path, Callable[[], object]]:
    Atlas(*maps(), count=9, unit="1e-6 mm2/s").save(folder)
    return folder / "atlas.npz", lambda: Atlas.load(folder)


def template(folder: Path) -> tuple[Path, Callable[[], object]]:
    mean, _, mask = maps()
    Template(mean, mask.array[0] > 0).save(folder)
    return folder / "template.npz", lambda: Template.load(folder)


READERS = [given_transform, transform_folder, atlas, template]


def damaged(whole: bytes) -> Iterator[bytes]:
    """Files cut at many lengths, and files with one changed byte, at either end of which the tables of zip lie."""
    for length in range(0, len(whole), max(1, len(whole) // 25)):
        yield whole[:length]
    ends = [*range(120), *range(len(whole) - 160, len(whole))]
    for place in {*ends, *range(0, len(whole), max(1, len(whole) // 120))}:
        for flip in (0x01, 0xFF):
            yield whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :]


@pytest.mark.parametrize("make", READERS)
def test_a_damaged_file_has_words(tmp_path: Path, make: Callable[[Path], tuple[Path, Callable[[], object]]]) -> None:
    path, read = make(tmp_path)
    whole = path.read_bytes()
    refused = 0
    for content in damaged(whole):
        path.write_bytes(content)
        try:
            read()  # a changed date of a member is no damage
        except InputError as error:
            refused += 1
            assert "cannot be read" in str(error) or "lacks" in str(error) or "shape" in str(error), error
    assert refused > 120
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        read()
    path.write_bytes(whole)
    read()


def test_a_damaged_registration_is_made_again(tmp_path: Path) -> None:
    calls = []

    def register(job: int) -> Found:
        calls.append(job)
        return Found(TRANSFORM, 0.5, ("a word",), {"affine_overlap": 0.9})

    remembered = Remembered(register, tmp_path)
    assert remembered(1).found is not None
    (path,) = tmp_path.glob("*.npz")
    whole = path.read_bytes()
    calls.clear()
    assert remembered(1).found is not None and not calls
    for content in damaged(whole):
        path.write_bytes(content)
        found = remembered(1).found
        assert found is not None and np.array_equal(
            found.transform.points(np.ones((1, 3))), TRANSFORM.points(np.ones((1, 3)))
        )
    assert len(calls) > 120


@pytest.mark.parametrize("record", ["[1, 2]", "null", '"text"'])
def test_a_record_that_is_no_object_has_words(tmp_path: Path, record: str) -> None:
    save_transform(TRANSFORM, tmp_path / "t")
    (tmp_path / "t" / "transform.json").write_text(record)
    with pytest.raises(InputError, match="do not belong together"):
        load_transform(tmp_path / "t")
