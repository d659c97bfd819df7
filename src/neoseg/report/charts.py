"""Charts: as SVG learning curves, scores by lesion burden, predicted against true volume; as PNG runs compared."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from .compare import Standing
from .content import Curve, System
from .figures import plain_style

__all__ = ["bland_altman", "dice_by_burden", "forest", "learning_curves"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's colours, told apart with any colour vision; markers and line styles differ as well."""

MARKERS = ("o", "s", "^", "D", "v", "P")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def learning_curves(curves: Sequence[Curve]) -> str:
    """Draw the training loss and the validation Dice of each fold over the epochs; a ring marks the epoch used."""
    with plain_style():
        figure, (left, right) = _figure(9.6, 3.2, 2)
        for number, curve in enumerate(curves):
            style = {"color": _turn(COLOURS, number), "linestyle": _turn(STYLES, number), "linewidth": 1.4}
            loss, dice = _numbers(curve.loss), _numbers(curve.dice)
            left.plot(curve.epochs, loss, label=curve.name, **style)
            measured = np.isfinite(dice)
            right.plot(np.asarray(curve.epochs)[measured], dice[measured], label=curve.name, **style)
            if curve.best_epoch in curve.epochs:
                best = dice[curve.epochs.index(curve.best_epoch)]
                right.plot(curve.best_epoch, best, "o", color=style["color"], markerfacecolor="white", markersize=6)
        left.set(xlabel="epoch", ylabel="training loss")
        right.set(xlabel="epoch", ylabel="validation Dice", ylim=(0, 1))
        right.legend(frameon=False, fontsize=8, loc="lower right")
        return _svg(figure)


def dice_by_burden(systems: Sequence[System], metric: str = "Dice", region: str = "brain") -> str:
    """Draw the mean of each system with its interval in each burden bin, with the number of cases below."""
    with plain_style():
        figure, (axes,) = _figure(9.6, 3.2, 1)
        drawn = [system for system in systems if system.by_burden]
        bins = drawn[0].by_burden if drawn else ()
        for number, system in enumerate(drawn):
            shift = (number - (len(drawn) - 1) / 2) * 0.18
            colour, marker = _turn(COLOURS, number), _turn(MARKERS, number)
            for place, burden in enumerate(system.by_burden):
                mean, interval = burden.summary.mean, burden.summary.interval
                if mean is not None:
                    axes.plot(place + shift, mean, marker, color=colour, markersize=6)
                if interval is not None:
                    axes.plot([place + shift] * 2, interval, color=colour, linewidth=1.4)
            axes.plot([], [], marker, color=colour, label=system.name)
        names = [f"{burden.name}\nn = {burden.summary.n}" for burden in bins]
        axes.set_xticks(range(len(bins)), names)
        axes.set(
            xlabel=f"true size, share of the {region}",
            ylabel=metric,
            ylim=(-0.02, 1.02),
            xlim=(-0.5, len(bins) - 0.5),
        )
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return _svg(figure)


def bland_altman(
    true_ml: Sequence[float], predicted_ml: Sequence[float], flag_ml: float | None = 1.0, unit: str = "mL"
) -> str:
    """Draw predicted against true volume, and their difference against their mean with its limits of agreement.

    Other units than mL are those of areas.

    Volumes spread over four decades, so both axes of volume are linear up to 0.1 mL and logarithmic above. Limits:
    mean difference and 1.96 standard deviations to both sides (Bland and Altman, Lancet 1986).
    """
    true, predicted = np.asarray(true_ml, dtype=np.float64), np.asarray(predicted_ml, dtype=np.float64)
    amount = "volume" if unit == "mL" else "area"
    with plain_style():
        figure, (left, right) = _figure(9.6, 3.6, 2)
        top = max(float(np.max([true, predicted], initial=0.2)) * 1.5, 0.2)
        left.plot([0, top], [0, top], color="#999999", linewidth=1)
        if flag_ml is not None:
            left.axvline(flag_ml, color="#999999", linewidth=0.8, linestyle=":")
            left.axhline(flag_ml, color="#999999", linewidth=0.8, linestyle=":")
        left.plot(true, predicted, "o", color=COLOURS[0], markersize=4.5, alpha=0.75)
        left.set_xscale("symlog", linthresh=0.1)
        left.set_yscale("symlog", linthresh=0.1)
        left.set(xlabel=f"true {amount} ({unit})", ylabel=f"predicted {amount} ({unit})")
        left.set(xlim=(-0.02, top), ylim=(-0.02, top))
        difference = predicted - true
        right.plot((true + predicted) / 2, difference, "o", color=COLOURS[0], markersize=4.5, alpha=0.75)
        right.axhline(0, color="#999999", linewidth=1)
        if difference.size > 1:
            centre, spread = float(difference.mean()), 1.96 * float(difference.std(ddof=1))
            for level, style in ((centre, "-"), (centre - spread, "--"), (centre + spread, "--")):
                right.axhline(level, color=COLOURS[1], linewidth=1.1, linestyle=style)
        right.set_xscale("symlog", linthresh=0.1)
        right.set(xlabel=f"mean of true and predicted ({unit})", ylabel=f"predicted − true ({unit})")
        right.set(xlim=(-0.02, top))
        for axis in (left.xaxis, left.yaxis, right.xaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        return _svg(figure)


def forest(standings: Sequence[Standing], metric: str, title: str) -> bytes:
    """Draw the mean of each run with its interval, the best one on top, and beside it its distance to the best, as PNG.

    A hollow marker is the mean with the worst value put in, where that is another. The line on the right is the best.

    Args:
        standings: best first.
        metric: what the axis is called.
        title: what is compared.
    """
    filled = any(standing.summary.n_undefined for standing in standings)
    with plain_style():
        figure, (left, right) = _figure(9.6, 1.8 + 0.42 * len(standings), 2)
        figure.suptitle(title, fontsize="medium")
        for number, standing in enumerate(standings):
            summary, gap = standing.summary, standing.difference
            style = {"color": _turn(COLOURS, number), "linewidth": 1.6}
            marker = {"marker": _turn(MARKERS, number), "color": style["color"], "markersize": 6, "linestyle": "none"}
            if summary.interval is not None:
                left.plot(summary.interval, [number] * 2, **style)
            if summary.mean is not None:
                left.plot(summary.mean, number, **marker)
            if summary.mean_worst != summary.mean:
                if summary.interval_worst is not None:
                    left.plot(summary.interval_worst, [number] * 2, **style | {"linewidth": 0.8, "linestyle": ":"})
                left.plot(summary.mean_worst, number, **marker, markerfacecolor="white", zorder=1)
            if gap is not None and gap.interval is not None:
                right.plot(gap.interval, [number] * 2, **style)
            if gap is not None and gap.mean is not None:
                right.plot(gap.mean, number, **marker)
        right.axvline(0, color="#999999", linewidth=1)
        left.set_yticks(range(len(standings)), [standing.name for standing in standings])
        right.set_yticks(range(len(standings)), [""] * len(standings))
        for axis in (left, right):
            axis.set_ylim(len(standings) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
            axis.locator_params(axis="x", nbins=6)
        left.set(
            xlabel=f"{metric}, mean and 95 % interval" + ("\nhollow: undefined ones taken as worst" if filled else "")
        )
        put_in = "\nundefined ones taken as worst" if filled else ""
        right.set(xlabel=f"minus the best run, paired, 95 % interval{put_in}")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
        return stream.getvalue()


def _figure(width: float, height: float, count: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#e6e6e6", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def _numbers(values: Sequence[float | None]) -> Any:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _turn(choices: Sequence[Any], number: int) -> Any:
    return choices[number % len(choices)]


def _svg(figure: Any) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()
