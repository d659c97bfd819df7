"""Damaged files of every kind end in a result or in one sentence: fresh ones, and all that once ended otherwise."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest

from fuzz_inputs import READERS, Reader, finding, make_input, metaimage_files, nrrd_files
from neoseg.errors import InputError
from neoseg.io import read_volume

FRESH = 200
CORPUS = Path(__file__).parent / "references" / "fuzz_corpus.json"
"""Reader to inputs, each a name, a content in base64 (or text), and what went wrong with it once."""


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_the_valid_inputs_are_read(reader: Reader, tmp_path: Path) -> None:
    for number, files in enumerate(reader.seeds()):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        reader.read(folder / next(iter(files)))


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_fresh_damage_ends_in_a_result_or_one_sentence(reader: Reader, tmp_path: Path) -> None:
    once = replace(reader, seeds=lru_cache(reader.seeds))
    wrong = {index: told for index in range(FRESH) if (told := finding(once, make_input(once, index), tmp_path))}
    assert not wrong


def corpus() -> list[tuple[str, str, bytes]]:
    rows = json.loads(CORPUS.read_text(encoding="utf-8"))
    return [(row["reader"], row["name"], base64.b64decode(row["content"])) for row in rows]


@pytest.mark.parametrize(("reader", "name", "content"), corpus())
def test_what_was_found_once_stays_right(reader: str, name: str, content: bytes, tmp_path: Path) -> None:
    assert len(content) < 2000
    chosen = next(r for r in READERS if r.name == reader)
    assert not finding(chosen, {name: content}, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "ends"),
    [("b.mha", metaimage_files()[1]["b.mha"], b"LOCAL\n"), ("b.nrrd", nrrd_files()[1]["b.nrrd"], b"\n\n")],
)
def test_damaged_packed_voxels_are_never_other_voxels(name: str, content: bytes, ends: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    voxels = read_volume(path).array
    first = content.index(ends) + len(ends)
    for place in range(first, len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 4
        path.write_bytes(bytes(damaged))
        try:
            assert (read_volume(path).array == voxels).all(), place
        except InputError as error:
            assert name in str(error)
