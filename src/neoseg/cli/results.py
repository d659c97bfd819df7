"""What the commands print about the scores of a run and the masks of new scans."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..wording import counted
from .console import print_json, print_lines

if TYPE_CHECKING:
    from ..pipeline.new_scans import PredictedScan

__all__ = ["show_scans", "show_summary"]


def show_summary(summary: dict[str, Any], folder: Path, as_json: bool) -> None:
    """Print what a run scored, with the place of its report, or its summary as JSON."""
    if as_json:
        print_json(summary)
        return
    for split, title in (("cv", "Cross-validation"), ("held_out", "Held-out")):
        numbers = summary[split]
        if numbers is None:
            continue
        print_lines([f"{title}: network {_dice(numbers['dice'])}", *_by_subject(numbers)])
        for name, rule in numbers["rules"].items():
            told = f"  rule {name}: {_dice(rule['dice'])}; {_gap(rule['network_minus_this'])}"
            print_lines([told, *_by_subject(rule)])
        empty = numbers["empty_cases"]
        if empty:
            print_lines([f"  false alarms on {empty['n_false']} of {counted(empty['n'], 'case')} with nothing to find"])
    if summary["failed"]:
        print_lines([f"Not prepared: {', '.join(summary['failed'])}"])
    print_lines([f"Report: {folder / 'report.html'}"])


def _by_subject(numbers: dict[str, Any]) -> list[str]:
    """Return the line about the means of subjects, where a subject has several cases."""
    found = numbers.get("dice_by_subject")
    if found is None:
        return []
    gap = numbers.get("network_minus_this_by_subject")
    against = f"; {_gap(gap)}" if gap is not None else ""
    return [f"  mean over {counted(found['n'], 'subject')}: Dice {found['mean']:.3f}{_shown_interval(found)}{against}"]


def _shown_interval(numbers: dict[str, Any]) -> str:
    return f" [{numbers['interval'][0]:.3f}, {numbers['interval'][1]:.3f}]" if numbers["interval"] else ""


def _dice(numbers: dict[str, Any]) -> str:
    if numbers["mean"] is None:
        return "Dice undefined (no scored case holds any of the classes)"
    return f"Dice {numbers['mean']:.3f}{_shown_interval(numbers)} on {counted(numbers['n'], 'case')}"


def _gap(difference: dict[str, Any]) -> str:
    if difference["mean"] is None:
        return "network and rule cannot be compared"
    return f"network minus rule {difference['mean']:.3f}{_shown_interval(difference)}"


def show_scans(found: Iterable[PredictedScan], as_json: bool) -> None:
    """Print what became of each new scan.

    Raises:
        Exit: with code 2, where one has no mask.
    """
    if as_json:
        print_json([{**vars(scan), "mask": str(scan.mask) if scan.mask else None} for scan in found])
    else:
        for scan in found:
            volumes = ", ".join(_volume(scan, name) for name in scan.volumes_ml)
            outcome = f"{volumes} -> {scan.mask}" if scan.mask else scan.error or "not a scan of this run"
            print_lines([f"{scan.case}: {outcome}"])
            print_lines([f"  note: {w}" for w in scan.warnings])
        print_lines(["Research use only; not a medical device."])
    if any(scan.error for scan in found):
        raise typer.Exit(2)


def _volume(scan: PredictedScan, name: str) -> str:
    digits = ".2f" if scan.unit == "mL" else ".0f"
    text = f"{name} {scan.volumes_ml[name]:{digits}} {scan.unit}"
    if name in scan.ranges_ml:
        low, high = scan.ranges_ml[name]
        text += f" ({low:{digits}} to {high:{digits}} by the single folds)"
    return text
