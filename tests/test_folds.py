"""Folds: grouped by subject, stratified by burden, seeded, and an edited file that leaks is refused."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neoseg.data.folds import FoldsConfig, make_folds, read_folds, write_folds
from neoseg.errors import InputError


@settings(deadline=None, max_examples=50)
@given(
    subjects=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    count=st.integers(2, 5),
    share=st.sampled_from([0.0, 0.1, 0.2]),
    seed=st.integers(0, 99),
)
def test_no_subject_on_two_sides_and_every_case_scored_once(
    subjects: list[int], count: int, share: float, seed: int
) -> None:
    groups = {f"case{i}": f"subject{s}" for i, s in enumerate(subjects)}
    burden = {case: (i / len(groups)) ** 2 for i, case in enumerate(groups)}
    too_few = len(set(subjects)) < (4 if count == 2 and share else count)
    with pytest.raises(InputError, match="need at least") if too_few else nullcontext():
        config = FoldsConfig(count=count, inner_share=share)
        folds = make_folds(groups, burden, config, np.random.default_rng(seed))
    if too_few:
        return
    scored = sorted(c for f in folds for c in f.validation)
    assert scored == sorted(groups)
    for fold in folds:
        assert sorted((*fold.train, *fold.inner, *fold.validation)) == sorted(groups)
        sides = [{groups[c] for c in side} for side in (fold.train, fold.inner, fold.validation)]
        assert sides[0] and sides[2] and bool(sides[1]) == (share > 0)
        assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]


def test_burden_is_spread_evenly() -> None:
    cases = {f"c{i:02d}": f"s{i:02d}" for i in range(30)}
    burden = {c: i / 30 for i, c in enumerate(cases)}
    folds = make_folds(cases, burden, FoldsConfig(count=3), np.random.default_rng(0))
    means = [np.mean([burden[c] for c in f.validation]) for f in folds]
    assert max(means) - min(means) < 0.04


def test_same_seed_same_folds_and_another_seed_others() -> None:
    cases = {f"c{i:02d}": f"s{i:02d}" for i in range(12)}
    burden = dict.fromkeys(cases, 0.1)
    first, again, other = (make_folds(cases, burden, FoldsConfig(count=3), np.random.default_rng(s)) for s in (0, 0, 1))
    assert first == again
    assert first != other


def test_too_few_subjects_are_refused() -> None:
    cases = {"a": "s1", "b": "s2", "c": "s2"}
    for more, words in ({}, "2 subjects.*need at least 4; add cases"), ({"d": "s3"}, r"set folds\.count = 3 or add"):
        with pytest.raises(InputError, match=words):
            make_folds(cases | more, dict.fromkeys(cases | more, 0.0), FoldsConfig(count=2), np.random.default_rng(0))
    assert (
        len(make_folds(cases | more, dict.fromkeys("abcd", 0.0), FoldsConfig(count=3), np.random.default_rng(0))) == 3
    )


@pytest.mark.parametrize(("share", "taken"), [(0.1, 4), (0.2, 8), (0.3, 13), (0.4, 13), (0.45, 20)])
def test_the_share_that_chooses_is_the_nearest_of_a_half_a_third_and_so_on(share: float, taken: int) -> None:
    cases = {f"c{i:02d}": f"s{i:02d}" for i in range(50)}
    config = FoldsConfig(count=5, inner_share=share)
    folds = make_folds(cases, dict.fromkeys(cases, 0.1), config, np.random.default_rng(0))
    assert all(abs(len(fold.inner) - taken) <= 1 for fold in folds)


def test_two_subjects_are_enough_for_two_folds_when_none_chooses() -> None:
    alone = FoldsConfig(count=2, inner_share=0)
    folds = make_folds({"a": "s1", "b": "s2"}, {"a": 0.1, "b": 0.2}, alone, np.random.default_rng(0))
    assert {fold.train for fold in folds} == {fold.validation for fold in folds} == {("a",), ("b",)}
    with pytest.raises(InputError, match=r"but 2 folds need at least 2; add cases"):
        make_folds({"a": "s1"}, {"a": 0.1}, alone, np.random.default_rng(0))
    with pytest.raises(InputError, match=r"but 5 folds need at least 5; set folds\.count = 2 or add"):
        make_folds({"a": "s1", "b": "s2"}, {"a": 0.1, "b": 0.2}, FoldsConfig(inner_share=0), np.random.default_rng(0))


def test_an_edited_file_that_splits_a_subject_is_refused(tmp_path: Path) -> None:
    cases = {f"c{i}": f"s{i // 2}" for i in range(12)}
    folds = make_folds(cases, dict.fromkeys(cases, 0.0), FoldsConfig(count=3), np.random.default_rng(0))
    path = tmp_path / "folds.json"
    write_folds(path, folds, "key")
    assert read_folds(path, cases) == folds
    moved = folds[0].validation[0]
    text = path.read_text().replace(f'"{moved}"', '"swap"', 1)
    other = folds[0].train[0]
    text = text.replace(f'"{other}"', f'"{moved}"', 1).replace('"swap"', f'"{other}"', 1)
    path.write_text(text)
    with pytest.raises(InputError, match=r"fold 0: the subject 's\d'"):
        read_folds(path, cases)


@pytest.mark.parametrize("text", ["", "[]", '{"folds": [1]}', '{"folds": [{"train": []}]}'])
def test_a_file_that_is_no_table_of_folds_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "folds.json"
    path.write_text(text)
    with pytest.raises(InputError, match="not a table of folds"):
        read_folds(path, {})
