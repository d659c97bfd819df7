"""What the page of a run says because of its channels, its classes and its training."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neoseg.pipeline.report import UNITS, _by_channels, _curve, _panel
from neoseg.pipeline.summary import _how
from neoseg.report.content import ADC_CAUTIONS
from neoseg.report.figures import FieldOfView, case_panel, channel_of
from neoseg.volume import Grid, Volume
from neoseg.workspace import Run


@pytest.mark.parametrize(
    ("channels", "axes", "makes_zmap", "region", "flag", "cautions"),
    [
        (("adc", "zadc"), 3, True, "brain", 1.0, 3),
        (("adc",), 3, False, "brain", 1.0, 2),
        (("zadc",), 3, False, "brain", 1.0, 2),
        (("ADC_map", "t2"), 3, False, "brain", 1.0, 2),
        (("adc",), 2, False, "image", None, 2),
        (("t1",), 3, False, "foreground", None, 0),
        (("t1",), 2, False, "image", None, 0),
    ],
)
def test_brain_flag_and_cautions_follow_from_channels_and_axes(
    channels: tuple[str, ...], axes: int, makes_zmap: bool, region: str, flag: float | None, cautions: int
) -> None:
    found = _by_channels(channels, axes, makes_zmap=makes_zmap)
    assert found == {"region": region, "flag_ml": flag, "cautions": ADC_CAUTIONS[:cautions]}


def test_diffusion_is_drawn_in_its_units() -> None:
    import numpy as np

    shown = {kind: channel_of(kind, np.ones((2, 2, 2)), unit) for kind, unit in UNITS.items()}
    assert (shown["adc"].low, shown["adc"].high, shown["z"].colours) == (0, 2500, "diverging")


def test_a_panel_numbers_the_slices_of_the_scan() -> None:
    import numpy as np

    grid = Grid((30, 32, 40), np.diag([1.0, 1.0, 1.0, 1.0]))
    scan, mask = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.uint8)
    scan[4:26, 4:28, 12:37] = np.random.default_rng(0).uniform(1, 2, (22, 24, 25))
    mask[10:16, 10:16, 18:24] = 1
    start, size = (1, 1, 8), (29, 31, 32)
    part = scan[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))]
    prepared = SimpleNamespace(
        physical=part[None], has_truth=False, start=start, box=SimpleNamespace(shape=size), native=grid
    )
    panel = _panel(prepared, Volume(mask[None], grid), SimpleNamespace(channels=("t1",)), ["lesion"])
    whole = case_panel([channel_of("t1", scan)], None, mask, view=FieldOfView(grid.spacing))
    assert panel == whole


@pytest.mark.parametrize(
    ("split", "classes", "picks", "words"),
    [
        ("held_out", 2, {"0": {}}, "no choice of any kind"),
        ("cv", 2, {"0": {}}, "has not seen it; its threshold was chosen on other folds."),
        ("cv", 3, {"0": {}}, "has not seen it; how many of the largest components of each class stay was chosen on"),
        ("cv", 3, {}, "has not seen it."),
        ("cv", 2, {}, "has not seen it."),
    ],
)
def test_what_was_chosen_on_other_folds_is_said_as_it_was(
    split: str, classes: int, picks: dict[str, Any], words: str
) -> None:
    told = _how(split, classes, picks)
    assert words in told and told.endswith(".") and ("threshold" in told) == ("threshold" in words)


def test_epochs_are_counted_from_one_as_on_the_command_line(tmp_path: Path) -> None:
    folder = tmp_path / "fold0"
    folder.mkdir()
    lines = [{"epoch": epoch, "loss": 1.0, "validation_dice": 0.5} for epoch in range(3)]
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    (folder / "finished.json").write_text(json.dumps({"best_epoch": 1}), encoding="utf-8")
    session: Any = SimpleNamespace(run=Run(tmp_path))
    curve = _curve(session, 0)
    assert (curve.epochs, curve.best_epoch) == ((1, 2, 3), 2)
    (folder / "finished.json").unlink()
    assert _curve(session, 0).best_epoch is None
