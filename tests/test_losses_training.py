"""A sum of all terms through the command line: trained, stored, and known again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from neoseg.config import load_resolved
from neoseg.losses.registry import TERMS
from small_run import SETS, called, weights

pytestmark = pytest.mark.slow


def test_a_training_with_every_term(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terms = ", ".join(f'{{kind = "{kind}", weight = 0.25}}' for kind in TERMS)
    words = (*SETS, "--folds", "0", "--steps", "2", "--set", "loss.dice_weight=0", "--set", f"loss.terms=[{terms}]")
    assert called(monkeypatch, "train", workspace, *words) == 0
    run = workspace / "runs" / "default"
    stored = load_resolved(run / "config.json").loss
    assert [term.kind for term in stored.terms] == list(TERMS)
    assert stored.dice_weight == 0
    (line,) = (json.loads(text) for text in (run / "fold0" / "log.jsonl").read_text().splitlines())
    assert math.isfinite(line["loss"])
    assert math.isfinite(line["validation_loss"])
    before = weights(workspace)
    assert called(monkeypatch, "train", workspace, *words) == 0
    assert weights(workspace) == before
