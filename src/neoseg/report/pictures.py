"""The panel of one picture: as it is, in colour where it has any, with the truth in green, the prediction in purple.

As the file has it: row 0 is at the top, column 0 at the left, and there is no left and right of a patient.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .figures import (
    DASH,
    GAP_PX,
    HEAD_PX,
    LINE_PX,
    PANEL_PX,
    PLAIN,
    PREDICTION,
    TRUTH,
    class_colours,
    draw_outlines,
    fill_mask,
    line_below,
    plain_style,
    wrapped,
)
from .slices import interlaced, outline
from .tile import Tile, axes_in_pixels

__all__ = ["picture_panel", "shown_colours"]

Columns = list[tuple[str, NDArray[Any] | None, tuple[str, ...], NDArray[Any] | None]]
"""Title, filled mask, its colours, and the mask whose outline is drawn on that."""


def picture_panel(
    picture: NDArray[Any],
    truth: NDArray[Any] | None,
    prediction: NDArray[Any],
    *,
    pixel: tuple[float, float] = (1.0, 1.0),
    label_names: Sequence[str] = ("foreground",),
) -> bytes:
    """Draw one picture as PNG: alone, with the truth, with the prediction, and with both outlines.

    Args:
        picture: ``(c, x, y)``, one channel or red, green and blue; of other numbers the first is shown.
        truth: class indices ``(x, y)``; None without a label.
        prediction: class indices ``(x, y)``.
        pixel: its width and height, in any unit.
        label_names: one a class; one class is green (truth) and purple (prediction), more take a colour a class.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    classes = len(label_names)
    of_truth, of_prediction = class_colours(classes, TRUTH), class_colours(classes, PREDICTION)
    titles = ["Image", *(["Truth"] if truth is not None else []), "Prediction"]
    titles += ["Both outlines"] if truth is not None else []
    tile = (PANEL_PX - GAP_PX) / 4 - GAP_PX
    wide, high = (n * side for n, side in zip(picture.shape[1:], pixel, strict=True))
    scale = min(tile / wide, 1.25 * tile / high)
    width, tall = GAP_PX + len(titles) * (tile + GAP_PX), high * scale
    keys = _keys(label_names, truth is not None)
    lines = wrapped(keys, width)
    foot = 10 + LINE_PX * len(lines)
    height = HEAD_PX + tall + GAP_PX + foot
    with plain_style():
        figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="black")
        canvas = FigureCanvasAgg(figure)
        axes = axes_in_pixels(figure, (width, height))
        for number, title in enumerate(titles):
            left = GAP_PX + number * (tile + GAP_PX) + (tile - wide * scale) / 2
            here = Tile(axes, left, foot, wide * scale, tall, prediction.T.shape)
            here.image(shown_colours(picture), interpolation="antialiased")
            if title == "Truth" and truth is not None:
                fill_mask(here, truth.T, of_truth)
            elif title == "Prediction":
                fill_mask(here, prediction.T, of_prediction)
            elif title == "Both outlines" and truth is not None:
                draw_outlines(here, truth.T, of_truth)
                _prediction_on_truth(here, truth.T, prediction.T, of_prediction)
            middle = GAP_PX + number * (tile + GAP_PX) + tile / 2
            axes.text(middle, foot + tall + 8, title, color="white", ha="center", fontsize=9.5)
        for number, line in enumerate(lines):
            line_below(figure, line, (width, height), 6 + LINE_PX * (len(lines) - 1 - number))
        canvas.draw()
        return _png(np.asarray(canvas.buffer_rgba()), [colour for colour, _ in keys])


def shown_colours(picture: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``(rows, columns, 3)`` in 0..1: the 0.5 and 99.5 percentiles of all channels together become 0 and 1.

    One window for all channels keeps the hue.
    """
    channels = np.asarray(picture if len(picture) == 3 else picture[:1], dtype=np.float64)
    low, high = np.percentile(channels, (0.5, 99.5))
    if not high > low:
        low, high = float(channels.min()), max(float(channels.max()), float(channels.min()) + 1)
    shown = np.clip((channels - low) / (high - low), 0, 1).transpose(2, 1, 0)
    return np.asarray(np.broadcast_to(shown, (*shown.shape[:2], 3)), dtype=np.float64)


def _prediction_on_truth(tile: Tile, truth: NDArray[Any], prediction: NDArray[Any], colours: Sequence[str]) -> None:
    """Draw the outlines of the prediction so that those of the truth stay to be seen."""
    for value, colour in enumerate(colours, start=1):
        segments = outline(prediction == value)
        if len(colours) > 1:
            middle = segments.mean(axis=1, keepdims=True)
            segments = middle + DASH * (segments - middle)
        else:
            segments = interlaced(segments, outline(truth == value))
        tile.lines(segments, colour)


def _keys(label_names: Sequence[str], has_truth: bool) -> list[tuple[str, str]]:
    if len(label_names) == 1:
        return [*([(TRUTH, "truth")] if has_truth else []), (PREDICTION, "prediction")]
    keys = list(zip(class_colours(len(label_names), ""), label_names, strict=True))
    return [*keys, (PLAIN, "outlines: truth solid, prediction dashed")] if has_truth else keys


def _png(pixels: NDArray[np.uint8], flat: Sequence[str]) -> bytes:
    """Encode with a palette: the flat colours, and those that the picture needs most."""
    from matplotlib.colors import to_rgb
    from PIL import Image

    image = Image.fromarray(pixels[..., :3].copy())
    own = np.rint(255 * np.array([to_rgb(colour) for colour in flat])).astype(np.uint8)
    found = image.quantize(256 - len(own), dither=Image.Dither.NONE).getpalette("RGB") or []
    colours = Image.new("P", (1, 1))
    colours.putpalette((own.tobytes() + bytes(found))[:768])
    stream = io.BytesIO()
    image.quantize(palette=colours, dither=Image.Dither.NONE).save(stream, "png", optimize=True)
    return stream.getvalue()
