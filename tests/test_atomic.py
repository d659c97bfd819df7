"""Files and folders are whole or absent, also after a kill at the worst moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from neoseg.atomic import discard_unfinished, finish_exchange, read_json, replacing, replacing_folder, write_json
from neoseg.errors import InputError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]


def test_a_folder_in_the_place_of_a_file_is_called_one(tmp_path: Path) -> None:
    target = tmp_path / "scores"
    target.mkdir()
    with pytest.raises(InputError, match=r"scores: this is a folder, and a file is to be written"):
        write_json(target, {})
    assert [p.name for p in tmp_path.iterdir()] == ["scores"]


def test_a_failed_folder_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    with replacing_folder(folder) as temporary:
        (temporary / "x").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing_folder(folder) as temporary:
        (temporary / "x").write_text("half")
        raise KeyboardInterrupt
    assert (folder / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["case"]


def test_a_kill_between_the_two_renames_gives_the_old_folder_back(tmp_path: Path) -> None:
    folder = tmp_path / "best"
    with replacing_folder(folder) as temporary:
        (temporary / "x").write_text("old")
    folder.rename(tmp_path / ".best.0123abcd.old")
    (tmp_path / ".best.89abcdef.tmp").mkdir()
    (tmp_path / ".best.other.0123abcd.tmp").mkdir()
    finish_exchange(folder)
    assert (folder / "x").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".best.other.0123abcd.tmp", "best"]


def test_what_a_kill_inside_a_write_leaves_is_removed_and_nothing_else(tmp_path: Path) -> None:
    others = (".tmp", ".a.tmp.txt", ".b.0123abcd.tmp.d", "c.0123abcd.tmp.json", "log.jsonl")
    for name in (*others, ".log.e01e398e.tmp.jsonl", ".a.nii.0123abcd.tmp", ".case.0123abcd.tmp.nii.gz"):
        if name.endswith(".d"):
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_text("")
    with pytest.raises(RuntimeError), replacing(tmp_path / "x.csv") as temporary:
        temporary.write_text("half")
        discard_unfinished(tmp_path)
        assert not temporary.exists()
        raise RuntimeError
    assert {p.name for p in tmp_path.iterdir()} == set(others)


def test_json_refuses_what_json_cannot_say(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": [1, None, "ü"]})
    assert read_json(path) == {"x": [1, None, "ü"]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"x": float("nan")})
    assert read_json(path) == {"x": [1, None, "ü"]}
