"""The command compare on finished runs: numbers of the reports, what is left out, what is refused."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fault_scene import Done
from neoseg.networks.build import build_network
from neoseg.networks.cost import NetworkCost
from neoseg.pipeline.finished_runs import FinishedRun, distinct_names
from neoseg.plan.plan import read_plan
from neoseg.report.summary import paired_difference
from small_run import SETS, called, read

Neoseg = Callable[..., Done]
Rows = list[dict[str, str]]


COUNTED: dict[str, NetworkCost] = {}


@pytest.fixture(autouse=True)
def counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count each network once for all tests; that takes longer than all the rest of a comparison."""
    count = FinishedRun.network_cost

    def once(run: FinishedRun) -> NetworkCost:
        if run.architecture not in COUNTED:
            COUNTED[run.architecture] = count(run)
        return COUNTED[run.architecture]

    monkeypatch.setattr(FinishedRun, "network_cost", once)


def scores_of(run: Path) -> Rows:
    return list(csv.DictReader((run / "scores.csv").read_text(encoding="utf-8").splitlines()))


def dice_of(run: Path) -> dict[str, float]:
    return {r["case"]: float(r["value"]) for r in scores_of(run) if r["metric"] == "dice" and r["method"] == "network"}


def rewrite(run: Path, change: Callable[[dict[str, str]], dict[str, str] | None]) -> None:
    """Change or drop rows of scores.csv."""
    write(run, [new for row in scores_of(run) if (new := change(dict(row))) is not None])


def write(run: Path, rows: Rows) -> None:
    with (run / "scores.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    record = read(path)
    change(record)
    path.write_text(json.dumps(record), encoding="utf-8")


@pytest.fixture
def first(finished: Path) -> Path:
    return finished / "runs" / "default"


@pytest.fixture
def second(first: Path) -> Path:
    """A copy of the run with every Dice a tenth lower, one of them half."""
    run = Path(shutil.copytree(first, first.with_name("second")))

    def lower(row: dict[str, str]) -> dict[str, str]:
        if row["metric"] == "dice":
            row["value"] = repr(float(row["value"]) * (0.5 if row["case"] == "scan1" else 0.9))
        return row

    rewrite(run, lower)
    return run


def compared(neoseg: Neoseg, *words: object) -> dict[str, Any]:
    done = neoseg("compare", *map(str, words), "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def refused(neoseg: Neoseg, *words: object) -> str:
    done = neoseg("compare", *map(str, words))
    assert done.code == 2 and not done.out
    assert done.err.count("\n") == 1 and done.err.startswith("neoseg: ")
    return done.err


def test_numbers_are_those_of_the_report_and_of_the_records(neoseg: Neoseg, first: Path, second: Path) -> None:
    found = compared(neoseg, second, first)
    best, other = found["runs"]
    assert (best["run"], other["run"], found["split"], best["n"]) == ("default", "second", "cv", 6)
    summary = read(first / "summary.json")["cv"]["dice"]
    assert {key: best[key] for key in summary} == summary
    mine, theirs = dice_of(first), dice_of(second)
    values = [[scores[case] for case in sorted(mine)] for scores in (theirs, mine)]
    expected = paired_difference(*values, np.random.default_rng(0), resamples=100)
    assert other["minus_best"] == expected.to_json()
    assert other["p"] == other["p_holm"] == 2 / 2**6
    plan = read_plan(first / "plan.json")
    network = build_network(plan.network, in_channels=1, classes=2, patch=plan.patch)
    assert best["parameters"] == sum(p.numel() for p in network.parameters())
    assert (best["kind"], best["patch"]) == ("unetr_pp", [16, 16, 16])
    logs = [json.loads(line) for f in first.glob("fold*/log.jsonl") for line in f.read_text().splitlines()]
    assert best["peak_gib"] == max(line["peak_gib"] for line in logs)
    seconds = [read(path)["seconds"] for path in first.glob("fold*/finished.json")]
    assert best["training_seconds"] == pytest.approx(np.mean(seconds))
    spent = [read(path)["seconds"] for path in first.glob("probabilities/cv/*.json")]
    assert len(spent) == 6 and min(spent) > 0
    assert best["prediction_seconds"] == pytest.approx(np.median(spent))


def name_subjects(run: Path, subjects: dict[str, str | None]) -> None:
    """Write whose each case is into the manifest of a run, or that nothing tells it."""

    def change(record: dict[str, Any]) -> None:
        for case, subject in subjects.items():
            record["cases"][case]["subject"] = subject
            if subject is None:
                del record["cases"][case]["subject"]

    edit(run / "manifest.json", change)


PAIRS: dict[str, str | None] = {f"scan{i}": f"child{i // 2}" for i in range(6)}


def test_subjects_with_several_scans_are_drawn_whole(neoseg: Neoseg, first: Path, second: Path) -> None:
    before = compared(neoseg, first, second)
    for run in (first, second):
        name_subjects(run, PAIRS)
    found = compared(neoseg, first, second)
    mine, theirs = dice_of(first), dice_of(second)
    values = [[scores[case] for case in sorted(mine)] for scores in (theirs, mine)]
    whose = [str(PAIRS[case]) for case in sorted(mine)]
    expected = paired_difference(*values, np.random.default_rng(0), resamples=100, subjects=whose)
    assert found["runs"][1]["minus_best"] == expected.to_json() != before["runs"][1]["minus_best"]
    assert found["runs"][1]["p"] == 2 / 2**3
    assert found["runs"][0]["interval"] != before["runs"][0]["interval"]
    assert found["runs"][0]["mean"] == before["runs"][0]["mean"]
    notes = found["notes"]
    assert any(note.startswith("The 6 cases are of 3 subjects. A subject was drawn whole") for note in notes)
    assert any("permutation test over the subjects" in note for note in notes)
    assert "With 3 subjects p cannot be below 0.25, however large a difference is." in notes


def test_runs_that_tell_other_subjects_or_none(neoseg: Neoseg, first: Path, second: Path) -> None:
    before = compared(neoseg, first, second)
    name_subjects(second, PAIRS)
    found = compared(neoseg, first, second)
    assert found["runs"][1]["p"] == 2 / 2**3
    assert any("those of second are taken, which are the fewest" in note for note in found["notes"])
    # other names of the same children
    name_subjects(first, {case: f"the {subject}" for case, subject in PAIRS.items()})
    again = compared(neoseg, first, second)
    assert again["runs"] == found["runs"] and not any("fewest" in note for note in again["notes"])
    name_subjects(first, dict.fromkeys(PAIRS))
    assert compared(neoseg, first, second)["runs"] == found["runs"]
    name_subjects(second, {"scan2": None})
    unknown = compared(neoseg, first, second)
    assert unknown["runs"] == before["runs"]
    assert any("No manifest.json tells whose the cases are" in note for note in unknown["notes"])


def test_tables_on_stdout_and_four_files(neoseg: Neoseg, first: Path, second: Path, tmp_path: Path) -> None:
    done = neoseg("compare", str(first), str(second), "--output", str(tmp_path / "out" / "both"))
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "Dice, higher is better, on 6 cross-validated cases; best first."
    rows = [line.split() for line in lines if line.lstrip().startswith(("default", "second"))]
    assert [row[0] for row in rows] == ["default", "second"] * 2
    assert rows[2][1] == "UNETR++"
    assert sum("(Holm)" in line for line in lines) == 1
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == ["both.csv", "both.json", "both.md", "both.png"]
    assert all(f"Written: {tmp_path / 'out' / name}" in lines for name in written)
    assert neoseg("compare", str(first), str(second), "-o", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out" / "compare.json").is_file()
    assert neoseg("compare", str(first), str(second), "-o", str(tmp_path / "out")).code == 0
    for name in ("cases.csv", "notes.md", "cases.json", "list.json", "empty.json"):
        words = {"list.json": '["metric", "split", "better", "runs"]', "empty.json": ""}.get(name, "[1, 2]")
        (tmp_path / name).write_text(words, encoding="utf-8")
        done = neoseg("compare", str(first), str(second), "-o", str(tmp_path / name.split(".")[0]))
        assert done.code == 2 and "this file is there already" in done.err
        assert (tmp_path / name).read_text(encoding="utf-8") == words
    assert not (tmp_path / "notes.csv").exists()


def test_what_was_never_recorded_is_a_dash_and_said(neoseg: Neoseg, first: Path, second: Path) -> None:
    for path in second.glob("probabilities/cv/*.json"):
        edit(path, lambda record: record.pop("seconds"))
    edit(next(first.glob("probabilities/cv/*.json")), lambda record: record.pop("seconds"))
    for path in second.glob("fold*/log.jsonl"):
        path.write_text(path.read_text().replace('"peak_gib"', '"other"'))
    found = compared(neoseg, first, second)
    assert found["runs"][1]["peak_gib"] is None and found["runs"][1]["prediction_seconds"] is None
    assert "Shown as -, because no record of it is there: peak memory of second." in found["notes"]
    assert "Shown as -, because no record of it is there: prediction of second." in found["notes"]
    assert "The seconds of prediction of default are recorded for 5 of 6 cases." in found["notes"]
    text = neoseg("compare", str(first), str(second)).out
    row = [line for line in text.splitlines() if line.lstrip().startswith("second")][1]
    assert row.split()[-1] == "-"


def test_only_shared_cases_count_and_a_failed_one_is_named(neoseg: Neoseg, first: Path, second: Path) -> None:
    rewrite(second, lambda row: None if row["case"] == "scan2" else row)
    edit(second / "stages" / "prepare.json", lambda record: record["failed"].update(scan2="it was damaged"))
    found = compared(neoseg, first, second)
    assert found["cases"] == ["scan0", "scan1", "scan3", "scan4", "scan5"]
    mine = dice_of(first)
    assert found["runs"][0]["mean"] == pytest.approx(np.mean([mine[case] for case in found["cases"]]))
    assert any("left out are of default scan2" in note for note in found["notes"])
    assert any("second could not prepare scan2" in note for note in found["notes"])
    assert any("p cannot be below 0.0625" in note for note in found["notes"])


def test_a_case_that_no_run_could_prepare_is_named(neoseg: Neoseg, first: Path, second: Path) -> None:
    for run in (first, second):
        rewrite(run, lambda row: None if row["case"] == "scan2" else row)
        edit(run / "stages" / "prepare.json", lambda record: record["failed"].update(scan2="it was damaged"))
    notes = compared(neoseg, first, second)["notes"]
    assert "No run could prepare scan2." in notes
    assert not [note for note in notes if "favours" in note or "left out" in note]


def emptied(alarm: bool) -> Callable[[dict[str, str]], dict[str, str]]:
    """Return what the scores of scan3 are when its truth is empty, with or without something predicted."""
    values = {"dice": 0.0, "sensitivity": math.nan} if alarm else {"dice": 1.0, "sensitivity": 1.0}

    def change(row: dict[str, str]) -> dict[str, str]:
        if row["case"] == "scan3" and row["metric"] in values:
            row["value"] = repr(values[row["metric"]])
        return row

    return change


def no_mask(run: Path) -> None:
    path = run / "predictions" / "cv" / "scan3.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), path)


@pytest.mark.parametrize("alarms", [(False, True), (True, True), (False, False)])
def test_cases_with_nothing_to_find_are_counted_apart(
    neoseg: Neoseg, first: Path, second: Path, alarms: tuple[bool, bool]
) -> None:
    for run, alarm in zip((first, second), alarms, strict=True):
        rewrite(run, emptied(alarm))
        if not alarm:
            no_mask(run)
    found = compared(neoseg, first, second)
    assert found["empty_cases"] == ["scan3"] and "scan3" not in found["cases"]
    assert [run["false_alarms"] for run in found["runs"]] == list(map(int, alarms))
    assert any(note.startswith("scan3 holds no ") for note in found["notes"])
    amounts = compared(neoseg, first, second, "--metric", "false_positive_volume")
    assert "scan3" in amounts["cases"] and amounts["better"] == "lower"


def test_a_perfect_mask_is_no_empty_case(neoseg: Neoseg, first: Path, second: Path) -> None:
    for run in (first, second):
        rewrite(run, emptied(alarm=False))
    assert "scan3" in compared(neoseg, first, second)["cases"]
    for run in (first, second):
        (run / "predictions" / "cv" / "scan3.nii.gz").unlink()
    assert "the mask of scan3 is not there" in refused(neoseg, first, second)


def test_signed_metrics_are_compared_by_size(neoseg: Neoseg, first: Path, second: Path) -> None:
    value = {first: "-0.5", second: "0.1"}
    for run in (first, second):
        rewrite(run, lambda row, v=value[run]: {**row, "value": v} if row["metric"] == "volume_difference" else row)  # type: ignore[misc]
    found = compared(neoseg, first, second, "--metric", "volume_difference")
    assert [run["run"] for run in found["runs"]] == ["second", "default"]
    assert [run["mean"] for run in found["runs"]] == pytest.approx([0.1, 0.5])


def add_a_class(run: Path) -> None:
    """Give the run a second class, "core", of Dice 0.25 and without a surface distance; scan5 has none of it."""
    edit(run / "config.json", lambda record: record["labels"].update(core=2))
    rows = scores_of(run)
    for row in [dict(row) for row in rows]:
        new = {"dice": "0.25", "masd": "nan"} if row["case"] != "scan5" else {"dice": "0.0", "sensitivity": "nan"}
        rows.append({**row, "label": "core", "value": new.get(row["metric"], row["value"])})
    write(run, rows)


def test_a_class_by_its_name_and_the_mean_over_classes(neoseg: Neoseg, first: Path, second: Path) -> None:
    for run in (first, second):
        add_a_class(run)
    (name,) = {row["label"] for row in scores_of(first)} - {"core"}
    whole, core = compared(neoseg, first, second), compared(neoseg, first, second, "--label", "core")
    assert core["runs"][0]["mean"] == 0.25 and core["runs"][0]["run"] == "default"
    assert core["empty_cases"] == ["scan5"]
    mine = dice_of_label(first, name)
    expected = [mine[case] if case == "scan5" else (mine[case] + 0.25) / 2 for case in mine]
    assert whole["runs"][0]["mean"] == pytest.approx(np.mean(expected))
    distance = compared(neoseg, first, second, "--metric", "masd")["runs"][0]
    assert distance["n_undefined"] == 5
    assert "--label nothing" in refused(neoseg, first, second, "--label", "nothing")
    edit(second / "config.json", lambda record: record["labels"].update(core=3))
    assert "only runs with the same labels" in refused(neoseg, first, second)
    assert "'core' does not mean the same in both" in refused(neoseg, first, second, "--label", "core")
    assert compared(neoseg, first, second, "--label", name)["label"] == name


def dice_of_label(run: Path, label: str) -> dict[str, float]:
    return {r["case"]: float(r["value"]) for r in scores_of(run) if r["metric"] == "dice" and r["label"] == label}


def test_held_out_cases_are_taken_where_every_run_has_them(neoseg: Neoseg, first: Path, second: Path) -> None:
    assert "has no scored held-out cases" in refused(neoseg, first, second, "--split", "held_out")
    for run in (first, second):
        rewrite(run, lambda row: {**row, "split": "held_out"} if row["case"] in ("scan0", "scan1") else row)
    found = compared(neoseg, first, second)
    assert (found["split"], found["cases"]) == ("held_out", ["scan0", "scan1"])
    assert len(compared(neoseg, first, second, "--split", "cv")["cases"]) == 4
    rewrite(second, lambda row: {**row, "split": "cv"})
    assert compared(neoseg, first, second)["split"] == "cv"


def test_other_folds_and_machines_are_said(neoseg: Neoseg, first: Path, second: Path) -> None:
    assert len(compared(neoseg, first, second)["notes"]) == 1
    edit(second / "folds.json", lambda record: record.reverse())
    edit(second / "environment.json", lambda record: record.update(cpu="another"))
    notes = compared(neoseg, first, second)["notes"]
    assert any("folds of the runs differ" in note for note in notes)
    assert any("different machines" in note and "another" in note for note in notes)


def test_other_shares_of_a_machine_are_said(neoseg: Neoseg, first: Path, second: Path) -> None:
    def notes() -> str:
        return " ".join(compared(neoseg, first, second)["notes"])

    (second / "environment.json").unlink()
    assert "not known on which machine second ran" in notes() and "different machines" not in notes()
    records = sorted((second / "stages").glob("train.fold*.json"))
    for record in records:
        edit(record, lambda record: record.update(span=[0.0, 9.0], processes=2))
    assert "do not compare: " in notes()
    assert "2 processes, of which one tells its memory, 2 folds at a time" in notes()
    records[1].unlink()
    (second / "stages" / "train.foldx.json").write_text("{}")
    assert "The seconds of training of second are of 1 of 2 folds." in notes()
    (second / "folds.json").unlink()
    assert "The folds of second are not known" in notes() and "folds of the runs differ" not in notes()


def test_values_that_number_instances_in_one_run_are_told(neoseg: Neoseg, first: Path, second: Path) -> None:
    edit(second / "config.json", lambda record: record.update(label_instances=True))
    told = refused(neoseg, first, second)
    assert "values being instances" in told and "only runs with the same labels" in told


def test_one_mask_of_all_runs_tells_what_an_empty_truth_is(neoseg: Neoseg, first: Path, second: Path) -> None:
    for run in (first, second):
        rewrite(run, lambda row: {**row, "value": "1.0"} if row["metric"] in ("dice", "sensitivity") else row)
    shutil.rmtree(second / "predictions")
    for order in ((first, second), (second, first)):
        assert len(compared(neoseg, *order)["cases"]) > 0
    shutil.rmtree(first / "predictions")
    assert "copy the masks too" in refused(neoseg, first, second)


def test_a_damaged_record_of_a_prediction_is_told(neoseg: Neoseg, first: Path, second: Path) -> None:
    record = next(second.rglob("probabilities/cv/*.json"))
    edit(record, lambda content: content.update(seconds="x"))
    assert "this record is damaged (seconds is 'x')" in refused(neoseg, first, second)


def test_a_run_alone_twice_or_unfinished_is_refused(neoseg: Neoseg, first: Path, second: Path) -> None:
    assert "two or more" in refused(neoseg, first)
    assert "given twice" in refused(neoseg, first, second, first / ".." / "default")
    assert "there is no such folder" in refused(neoseg, first, first / "nowhere")
    assert "this is a file; give folders of finished runs" in refused(neoseg, first, first / "plan.json")
    assert "give one of its runs (default, second)" in refused(neoseg, first, first.parents[1])
    assert "no finished run" in refused(neoseg, first, first / "fold0")
    assert "did you mean 'dice'" in refused(neoseg, first, second, "--metric", "dize")
    assert "--split test" in refused(neoseg, first, second, "--split", "test")
    (second / "folds.json").write_text("[")
    assert "folds.json: this file is damaged" in refused(neoseg, first, second)
    (second / "stages" / "evaluate.json").unlink()
    assert "'evaluate' has not finished" in refused(neoseg, first, second)


def test_scores_of_other_weights_are_refused(neoseg: Neoseg, first: Path, second: Path) -> None:
    shutil.copyfile(second / "fold1/best/model.safetensors", second / "fold0/best/model.safetensors")
    assert "other weights than those of now" in refused(neoseg, first, second)


def test_scores_older_than_the_predictions_are_refused(
    neoseg: Neoseg, first: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = (*SETS, "--set", "training.steps=4", "--set", "postprocess.thresholds=[0.3, 0.6]")
    assert called(monkeypatch, "predict", first.parents[1], *changed) == 0
    told = refused(neoseg, first, second)
    assert str(first) in told and "older than the predictions" in told
    assert called(monkeypatch, "evaluate", first.parents[1], *changed) == 0
    assert compared(neoseg, first, second)["metric"] == "dice"

    predicted, scored = (second / "stages" / f"{stage}.json" for stage in ("predict", "evaluate"))
    edit(predicted, lambda record: record.update(key="another"))
    assert "older than the predictions" in refused(neoseg, first, second)
    # the records of former versions do not say which predictions were scored
    edit(scored, lambda record: record.pop("predicted"))
    assert compared(neoseg, first, second)["metric"] == "dice"
    predicted.unlink()
    assert "older than the predictions" in refused(neoseg, first, second)


def test_another_tolerance_after_the_training_is_known(
    neoseg: Neoseg, first: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = (*SETS, "--set", "training.steps=4", "--set", "evaluate.tolerance_mm=5")
    assert called(monkeypatch, "evaluate", first.parents[1], *changed) == 0
    assert "default 5 mm, second 2 mm" in refused(neoseg, first, second, "--metric", "nsd")
    assert read(first / "config.json")["evaluate"]["tolerance_mm"] == 5.0


def test_the_unit_is_that_of_the_scores(neoseg: Neoseg, first: Path, second: Path) -> None:
    assert compared(neoseg, first, second, "--metric", "hd95")["unit"] == "mm"
    for run in (first, second):
        rewrite(run, lambda row: {**row, "unit": {"mm": "px", "mL": "px²"}.get(row["unit"], row["unit"])})
        if run == first:
            told = refused(neoseg, first, second, "--metric", "hd95")
            assert "the units of hd95 differ (default px, second mm)" in told
            assert compared(neoseg, first, second)["unit"] == ""
    assert compared(neoseg, first, second, "--metric", "hd95")["unit"] == "px"
    done = neoseg("compare", str(first), str(second), "--metric", "volume_difference")
    assert done.code == 0 and "(px²)" in done.out and "mL" not in done.out


def test_other_truths_cases_and_tolerances_are_refused(neoseg: Neoseg, first: Path, second: Path) -> None:
    def other_truth(record: dict[str, Any]) -> None:
        record["cases"]["scan4"]["files"]["label"] = "0123456789abcdef"

    scored = second / "stages" / "evaluate.json"
    edit(scored, lambda record: record.update(tolerance_mm=1.0))
    assert "different tolerances" in refused(neoseg, first, second, "--metric", "nsd")
    # the records of former versions do not hold it
    edit(scored, lambda record: record.pop("tolerance_mm"))
    assert compared(neoseg, first, second, "--metric", "nsd")["unit"] == ""
    edit(second / "config.json", lambda record: record["evaluate"].update(tolerance_mm=1.0))
    assert "different tolerances" in refused(neoseg, first, second, "--metric", "nsd")
    assert compared(neoseg, first, second)["metric"] == "dice"
    edit(second / "manifest.json", other_truth)
    assert "made against another label of scan4 than the run has now" in refused(neoseg, first, second)
    edit(scored, lambda record: record.pop("truth"))
    assert "label file of scan4 is not the same" in refused(neoseg, first, second)
    rewrite(second, lambda row: {**row, "case": f"other_{row['case']}"})
    assert "no case is among" in refused(neoseg, first, second)


def test_runs_of_one_name_are_told_apart_by_their_workspace(neoseg: Neoseg, first: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(first, tmp_path / "elsewhere" / "runs" / "default"))
    found = compared(neoseg, first, other)
    assert [run["run"] for run in found["runs"]] == ["work/default", "elsewhere/default"]
    assert distinct_names([Path("/first"), Path("/x/runs/first")]) == ["first", "x/first"]
    assert distinct_names([Path("/runs/first"), Path("/x/runs/second")]) == ["first", "second"]
    assert found["runs"][1]["p"] == 1 and found["runs"][1]["minus_best"]["mean"] == 0


def test_weights_that_have_seen_the_cases_are_told(neoseg: Neoseg, first: Path, second: Path) -> None:
    told = "the weights that it began with were trained with the images of scan1"
    edit(second / "stages" / "train.fold0.json", lambda record: record.update(warnings=[told]))
    assert f"second: {told}" in compared(neoseg, first, second)["notes"]
    assert not [note for note in compared(neoseg, first, second)["notes"] if note.startswith("default: ")]


def test_nothing_half_written_where_the_place_cannot_be_written(neoseg: Neoseg, first: Path, second: Path) -> None:
    (first.parent / "file").write_text("")
    assert "file" in refused(neoseg, first, second, "-o", first.parent / "file" / "compare")


@pytest.mark.slow
def test_two_trained_runs(neoseg: Neoseg, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ("--set", 'name="other"', "--set", "seed=1", "--steps", "6")
    for command in ("plan", "prepare", "run"):
        assert called(monkeypatch, command, finished, *SETS, *(more if command == "run" else more[:4])) == 0
    found = compared(neoseg, finished / "runs" / "default", finished / "runs" / "other")
    by_name = {run["run"]: run for run in found["runs"]}
    for name, run in by_name.items():
        summary = read(finished / "runs" / name / "summary.json")["cv"]["dice"]
        assert {key: run[key] for key in summary} == summary
        assert run["prediction_seconds"] > 0
    assert by_name["default"]["mean"] != by_name["other"]["mean"]
