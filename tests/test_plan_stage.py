"""Stage plan on files: one bad case does not lose the others, edits are noticed, and every rule is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from neoseg.cli.app import app
from neoseg.config import load_config
from neoseg.data.cases import read_cases, write_cases
from neoseg.errors import ConfigError, InputError
from neoseg.pipeline.check import check
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.plan import compared, plan, plan_key
from neoseg.pipeline.session import Session, open_session


@pytest.fixture
def workspace(tmp_path: Path, blobs: Callable[[Path, int, int], None]) -> Path:
    """A workspace with six imported scans, not planned yet."""
    blobs(tmp_path / "data", 6, 1)
    import_folder(tmp_path / "data", tmp_path)
    return tmp_path


def session(workspace: Path, *changes: str) -> Session:
    return open_session(load_config(workspace / "neoseg.toml", ("folds.count=2", *changes)))


def spoil(workspace: Path, number: int, value: float) -> None:
    path = workspace / "data" / "images" / f"scan{number}.nii.gz"
    old = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(old.shape, value, dtype=np.float32), old.affine), path)


def test_a_case_that_cannot_be_used_is_told_and_the_others_are_planned(workspace: Path) -> None:
    spoil(workspace, 2, 0.0)
    spoil(workspace, 4, float("nan"))
    made = plan(session(workspace))
    reason = next(r for r in made.reasons if r.what == "cases")
    assert reason.value == "4 of 6"
    assert "scan2.nii.gz holds only zeros" in reason.why
    assert "scan4.nii.gz" in reason.why and "NaN" in reason.why
    # the folds hold all cases, so that one which is corrected later has its place
    assert sum(len(fold.validation) for fold in session(workspace).folds) == 6
    again = plan(session(workspace))
    assert again == made


def test_a_constant_image_and_one_of_a_single_slice_do_not_stop_the_plan(workspace: Path) -> None:
    spoil(workspace, 1, 5.0)
    for name in ("images", "labels"):
        path = workspace / "data" / name / "scan3.nii.gz"
        old = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(old.dataobj)[..., 14:15], old.affine), path)
    made = plan(session(workspace))
    assert "cases" not in {r.what for r in made.reasons}
    assert next(r for r in made.reasons if r.what == "spacing").inputs.startswith("6 training cases")


def test_too_few_cases_that_can_be_used_are_told_with_the_first_fault(workspace: Path) -> None:
    for number in range(4):
        spoil(workspace, number, 0.0)
    with pytest.raises(InputError, match=r"2 of 6 training cases can be used.*scan0\.nii\.gz"):
        plan(session(workspace))
    assert not (workspace / "plan.json").exists()


def test_labels_in_another_order_are_planned_and_prepared_anew(workspace: Path) -> None:
    one, other = (session(workspace, f"labels={order}") for order in ("{ball=1, rim=2}", "{rim=2, ball=1}"))
    assert plan_key(one) != plan_key(other)
    plan(one)
    assert one.store.folder != other.store.folder


def test_a_budget_that_is_too_small_names_the_least(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"plan\.core_minutes = 1e-05: .* allow at least that"):
        plan(session(workspace, "plan.core_minutes=1e-5"))
    with pytest.raises(ConfigError, match=r"plan\.memory_gib = 1e-05: .* allow at least that"):
        plan(session(workspace, "plan.memory_gib=1e-5"))


def test_channels_are_not_changed_in_the_plan(workspace: Path) -> None:
    made = plan(session(workspace))
    tree = made.model_dump(mode="json")
    channel = tree["channels"][0]
    tree |= {"channels": ["t2"], "rules": {"t2": tree["rules"][channel]}}
    (workspace / "plan.json").write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=r"channels is \['t2'\]"):
        plan(session(workspace))


def test_an_edited_fingerprint_with_nan_is_named(workspace: Path) -> None:
    plan(session(workspace))
    path = workspace / "fingerprint.json"
    tree = json.loads(path.read_text())
    tree["cases"][3]["spacing_mm"][0] = float("nan")
    path.write_text(json.dumps(tree))
    (workspace / "plan.json").unlink()
    with pytest.raises(InputError, match=r"fingerprint\.json: cases\.3\.spacing_mm\.0"):
        plan(session(workspace))


def test_a_fingerprint_of_an_earlier_version_is_made_anew(workspace: Path) -> None:
    made = plan(session(workspace))
    (workspace / "fingerprint.json").write_text("[]")
    stamp = workspace / "fingerprint.key"
    stamp.write_text(stamp.read_text().split()[0] + "\n")
    (workspace / "plan.json").unlink()
    assert plan(session(workspace)).decisions() == made.decisions()


def test_the_comparison_is_made_from_the_same_cases(workspace: Path) -> None:
    plan(session(workspace))
    told = {r.what: r for r in compared(session(workspace))}
    assert set(told) == {
        f"nnU-Net {key} ({title})"
        for key in ("2d", "3d_fullres")
        for title in ("plain U-Net, 8 GB", "residual encoder L, 24 GB")
    }
    assert told["nnU-Net 3d_fullres (plain U-Net, 8 GB)"].value.startswith("patch 32 x 40 x 28, batch 2")


def test_explain_prints_numbers_rule_and_value_of_each_decision(workspace: Path) -> None:
    call = ["plan", str(workspace / "neoseg.toml"), "--set", "folds.count=2", "--quiet"]
    short = CliRunner().invoke(app, call)
    assert short.exit_code == 0, short.output
    told = CliRunner().invoke(app, [*call, "--explain"])
    assert told.exit_code == 0, told.output
    made = plan(session(workspace))
    lines = told.stdout.splitlines()
    for reason in made.reasons:
        assert any(line.startswith(reason.what) and line.endswith(reason.value) for line in short.stdout.splitlines())
        place = lines.index(f"{reason.what}: {reason.value}")
        assert lines[place + 1] == f"    from  {reason.inputs}"
        assert lines[place + 2] == f"    rule  {reason.why}"
    assert any(line.startswith("nnU-Net 3d_fullres (plain U-Net, 8 GB): patch") for line in lines)
    tree = json.loads(CliRunner().invoke(app, [*call, "--explain", "--json"]).stdout)
    assert [r["what"] for r in tree["reasons"]] == [r.what for r in made.reasons]
    assert len(tree["comparison"]) == 4
    assert "comparison" not in json.loads(CliRunner().invoke(app, [*call, "--json"]).stdout)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("plan.patch=[32, 32]", "plan.patch: 2 numbers were given, but the images have 3 axes"),
        ("plan.spacing_mm=[1.0, 1.0]", "plan.spacing_mm: 2 numbers"),
        ("prepare.normalise.imge.rule='case'", "prepare.normalise.imge: this is not a channel (did you mean 'image'?)"),
        ("network.spatial_dims=2", "network.spatial_dims = 2, but the images have 3 axes"),
    ],
)
def test_settings_that_do_not_suit_the_images_are_told_by_the_check_too(
    workspace: Path, change: str, told: str
) -> None:
    assert not [p for p in check(session(workspace)) if p.severity == "error"]
    found = [p for p in check(session(workspace, change)) if p.severity == "error"]
    assert len(found) == 1 and told in found[0].told
    with pytest.raises(ConfigError) as raised:
        plan(session(workspace, change))
    assert str(raised.value) in found[0].told


@pytest.mark.parametrize(
    ("units", "rule"),
    [
        (["s"] * 6, "dataset"),
        (["s", "", "s", "s", "", "s"], "dataset"),
        (["a.u."] * 6, "case"),
        (["Arbitrary units"] * 6, "case"),
        (["", "s", "ms", "s", "s", "s"], "case"),
    ],
)
def test_a_channel_is_physical_when_its_images_share_a_unit(workspace: Path, units: list[str], rule: str) -> None:
    cases = read_cases(workspace / "cases.csv")
    told = [replace(c, units={"image": unit} if unit else {}) for c, unit in zip(cases, units, strict=True)]
    write_cases(told, workspace / "cases.csv")
    assert plan(session(workspace)).rules == {"image": rule}
