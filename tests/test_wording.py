"""Counts and lists of names in sentences."""

from __future__ import annotations

import pytest

from neoseg.wording import counted, listed


@pytest.mark.parametrize(("count", "told"), [(0, "0 cases"), (1, "1 case"), (2, "2 cases"), (12_000, "12,000 cases")])
def test_one_is_told_in_the_singular_and_thousands_are_parted(count: int, told: str) -> None:
    assert counted(count, "case") == told


def test_names_keep_their_order_and_what_is_not_shown_is_counted() -> None:
    names = list("bacdef")
    assert listed(names[:5]) == "b, a, c, d, e"
    assert listed(names) == "b, a, c, d, e and 1 more"
    assert listed(names, 2) == "b, a and 4 more"
    assert listed([]) == ""
