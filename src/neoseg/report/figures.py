"""The panel of one case: slices of each channel with the truth in green and the prediction in purple.

A panel is a PNG of few colours on black, as image viewers show scans, so it reads the same on a light and a dark page.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .slices import Convention, Slice, bounding_box, choose_slices, cut, interlaced, outline, pixel_mm, sides
from .tile import Tile, axes_in_pixels

__all__ = ["ADC_WINDOW", "Z_WINDOW", "Channel", "FieldOfView", "case_panel", "channel_of"]

ADC_WINDOW = (0.0, 2500.0)
"""Display window of ADC in 1e-6 mm2/s: dark lesion (500), bright CSF (2500)."""

Z_WINDOW = (-6.0, 6.0)
"""Display window of Z maps."""

TRUTH, PREDICTION = "#35d06a", "#cf6bff"
CLASSES = ("#e69f00", "#56b4e9", "#f0e442", "#d55e00", "#cc79a7", "#009e73", "#0072b2")
"""Colours of the classes where there is more than one (Okabe and Ito, told apart with any colour vision)."""

PLAIN, LETTERS = "#d0d0d0", "#f5d76e"
FILL, DASH = 0.42, 0.5
STYLE = {"font.size": 9, "svg.hashsalt": "neoseg", "svg.fonttype": "path", "text.parse_math": False}
OTHER_LETTERS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "Microsoft YaHei",
                 "PingFang SC", "SimHei", "Arial Unicode MS")  # fmt: skip
TILE_PX, PANEL_PX = 232, 1080
GAP_PX, HEAD_PX, BAR_PX, LINE_PX = 6, 24, 40, 16
COLUMNS = 6

_WINDOWS = {"1e-6 mm2/s": (*ADC_WINDOW, "10⁻⁶ mm²/s"), "z": (*Z_WINDOW, "SD from healthy"), "HU": (-160.0, 240.0, "HU")}


@dataclass(frozen=True, eq=False)
class Channel:
    """One image of a panel and how it is shown.

    Attributes:
        name: column head.
        array: ``(x, y, z)``, RAS+.
        low: value shown darkest (gray) or most negative (diverging).
        high: value at the other end.
        unit: stands at the colour bar.
        colours: "gray", or "diverging" around 0.
    """

    name: str
    array: NDArray[Any]
    low: float
    high: float
    unit: str = ""
    colours: Literal["gray", "diverging"] = "gray"


@dataclass(frozen=True)
class FieldOfView:
    """Which part of a scan the arrays of a panel are, so that its slices have the scan's numbers.

    Attributes:
        spacing_mm: voxel size along x, y, z.
        start: the first voxel of the part.
        whole: voxels of the scan along x, y, z; None: the arrays are the whole scan.
    """

    spacing_mm: Sequence[float]
    start: Sequence[int] = (0, 0, 0)
    whole: Sequence[int] | None = None


@dataclass(frozen=True, eq=False)
class _Column:
    title: str
    channel: Channel
    filled: NDArray[Any] | None = None
    solid: NDArray[Any] | None = None
    dashed: NDArray[Any] | None = None
    colours: tuple[str, ...] = ()


def channel_of(name: str, array: NDArray[Any], unit: str = "") -> Channel:
    """Choose how a channel is shown: by its unit, else between the 0.5 and 99.5 percentile of what is not 0.

    Args:
        name: column head.
        array: ``(x, y, z)`` in the unit given.
        unit: as in ``cases.csv``; "1e-6 mm2/s" shows 0..2500, "z" shows -6..6 in diverging colours, "HU" -160..240.
    """
    if unit in _WINDOWS:
        low, high, shown = _WINDOWS[unit]
        return Channel(name, array, low, high, shown, "diverging" if unit == "z" else "gray")
    inside = array[np.isfinite(array) & (array != 0)]
    low, high = (float(v) for v in np.percentile(inside, (0.5, 99.5))) if inside.size else (0.0, 1.0)
    return Channel(name, array, low if high > low else low - 1.0, high, unit)


def case_panel(
    channels: Sequence[Channel],
    truth: NDArray[Any] | None,
    prediction: NDArray[Any],
    *,
    view: FieldOfView,
    label_names: Sequence[str] = ("lesion",),
    convention: Convention = "radiological",
    slices: int = 3,
) -> bytes:
    """Draw one case as PNG: a row a slice, columns for each channel, the truth, the prediction and both outlines.

    Args:
        channels: at least one; the masks are drawn on the first, both outlines on the second where there is one.
        truth: class indices ``(x, y, z)``; None without a label.
        prediction: class indices ``(x, y, z)``.
        view: of these arrays; pixels are drawn with their true proportions.
        label_names: one a class; one class is green (truth) and purple (prediction), more take a colour a class.
        convention: which side of the patient is at the left of the picture; it is written on the panel.
        slices: axial slices at most; small fields of view show one slice of each plane instead.
    """
    first = channels[0].array
    head = np.isfinite(first) & (first != 0)
    masks = [mask for mask in (truth, prediction) if mask is not None]
    box = bounding_box(np.any([head, *(mask != 0 for mask in masks)], axis=0))
    shown = [replace(channel, array=channel.array[box]) for channel in channels[: COLUMNS - 1]]
    where = choose_slices([mask[box] for mask in masks], head[box], view.spacing_mm, slices)
    columns = _columns(shown, None if truth is None else truth[box], prediction[box], len(label_names))[:COLUMNS]
    footer = _footer(label_names, truth is not None, convention)
    size = view.whole or first.shape
    names = [f"{w.plane} {w.index + box[w.axis].start + view.start[w.axis] + 1}/{size[w.axis]}" for w in where]
    with plain_style():
        return _drawn(columns, where, names, (view.spacing_mm, convention), footer)


@contextmanager
def plain_style() -> Iterator[None]:
    """Draw with matplotlib's own defaults, whatever the user's settings say; a name with $ in it is no formula.

    Names in letters that its font lacks are drawn in the first of :data:`OTHER_LETTERS` that the machine has; without
    any of them they are boxes.
    """
    import matplotlib.style
    from matplotlib.font_manager import get_font_names

    there = set(get_font_names())
    family = {"font.family": ["DejaVu Sans", *(name for name in OTHER_LETTERS if name in there)]}
    with matplotlib.style.context(["default", STYLE, family]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def class_colours(classes: int, single: str) -> tuple[str, ...]:
    """Return one colour a class: the given one for a single class, else the palette, repeated when it ends."""
    return (single,) if classes == 1 else tuple(CLASSES[i % len(CLASSES)] for i in range(classes))


def _columns(
    channels: Sequence[Channel], truth: NDArray[Any] | None, prediction: NDArray[Any], classes: int
) -> list[_Column]:
    truth_colours, colours = class_colours(classes, TRUTH), class_colours(classes, PREDICTION)
    first = channels[0]
    columns = [_Column(first.name, first)]
    if truth is not None:
        columns.append(_Column("Truth", first, filled=truth, colours=truth_colours))
    columns.append(_Column("Prediction", first, filled=prediction, colours=colours))
    if len(channels) > 1:
        columns.append(_Column(channels[1].name, channels[1]))
    both = channels[1] if len(channels) > 1 else first
    if truth is not None:
        title = f"{both.name}, both outlines"
        columns.append(_Column(title, both, solid=truth, dashed=prediction, colours=truth_colours + colours))
    elif len(channels) > 1:
        columns.append(_Column(f"{both.name}, outline", both, dashed=prediction, colours=colours + colours))
    return columns + [_Column(channel.name, channel) for channel in channels[2:]]


def _footer(label_names: Sequence[str], has_truth: bool, convention: Convention) -> list[tuple[str, str]]:
    """Return (colour, text) pieces of the line below the pictures."""
    side = "left" if convention == "radiological" else "right"
    if len(label_names) == 1:
        keys = [(TRUTH, "truth")] if has_truth else []
        keys.append((PREDICTION, "prediction"))
    else:
        keys = list(zip(class_colours(len(label_names), ""), label_names, strict=True))
        keys.append((PLAIN, "outlines: truth solid, prediction dashed" if has_truth else "prediction dashed"))
    return [*keys, (PLAIN, f"{convention}: the patient's right is at the {side} of the picture")]


def _drawn(
    columns: Sequence[_Column],
    where: Sequence[Slice],
    names: Sequence[str],
    geometry: tuple[Sequence[float], Convention],
    footer: Sequence[tuple[str, str]],
) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    spacing_mm, convention = geometry
    shapes = [cut(columns[0].channel.array, w, convention).shape for w in where]
    pixels = [pixel_mm(spacing_mm, w) for w in where]
    sizes = [(s[0] * mm[0], s[1] * mm[1]) for s, mm in zip(shapes, pixels, strict=True)]
    tile = min(TILE_PX, (PANEL_PX - GAP_PX) / len(columns) - GAP_PX)
    widest = max(size[1] for size in sizes)
    tallest = max(size[0] for size in sizes)
    scale = min(tile / widest, 1.25 * tile / tallest)
    heights = [size[0] * scale for size in sizes]
    width = GAP_PX + len(columns) * (tile + GAP_PX)
    lines = wrapped(footer, width)
    foot = BAR_PX + LINE_PX * len(lines)
    height = HEAD_PX + sum(heights) + GAP_PX * len(heights) + foot
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="black")
    canvas = FigureCanvasAgg(figure)
    axes, top = axes_in_pixels(figure, (width, height)), height - HEAD_PX
    for row, (w, size) in enumerate(zip(where, sizes, strict=True)):
        bottom = top - heights[row]
        for number, column in enumerate(columns):
            left = GAP_PX + number * (tile + GAP_PX) + (tile - size[1] * scale) / 2
            here = Tile(axes, left, bottom, size[1] * scale, heights[row], shapes[row])
            _picture(here, column, w, convention)
            if number == 0:
                _write(here, (0.02, 0.02), names[row], PLAIN, ("left", "bottom"))
            if row == 0:
                middle = GAP_PX + number * (tile + GAP_PX) + tile / 2
                axes.text(middle, top + 8, column.title, color="white", ha="center", fontsize=9.5)
        top = bottom - GAP_PX
    _bars(axes, columns, tile, foot - 14)
    for number, line in enumerate(lines):
        line_below(figure, line, (width, height), 6 + LINE_PX * (len(lines) - 1 - number))
    canvas.draw()
    return _png(np.asarray(canvas.buffer_rgba()), _palette(columns, footer))


def _picture(tile: Tile, column: _Column, where: Slice, convention: Convention) -> None:
    channel = column.channel
    picture = np.nan_to_num(cut(channel.array, where, convention).astype(np.float32))
    shown = np.ma.masked_where(picture == 0, picture) if channel.colours == "diverging" else picture
    tile.image(shown, cmap=_colours(channel), vmin=channel.low, vmax=channel.high, interpolation="nearest")
    if column.filled is not None:
        fill_mask(tile, cut(column.filled, where, convention), column.colours)
    _both_outlines(tile, column, where, convention)
    letters = sides(where, convention)
    _write(tile, (0.015, 0.5), letters.left, LETTERS, ("left", "center"))
    _write(tile, (0.985, 0.5), letters.right, LETTERS, ("right", "center"))
    _write(tile, (0.5, 0.985), letters.top, LETTERS, ("center", "top"))


def _write(tile: Tile, at: tuple[float, float], text: str, colour: str, align: tuple[str, str]) -> None:
    from matplotlib.patheffects import Normal, Stroke

    rim = [Stroke(linewidth=2, foreground="black"), Normal()]
    style = {"color": colour, "fontsize": 8.5, "ha": align[0], "va": align[1], "path_effects": rim}
    tile.text(at, text, **style)


def fill_mask(tile: Tile, mask: NDArray[Any], colours: Sequence[str]) -> None:
    from matplotlib.colors import to_rgb

    layer = np.zeros((*mask.shape, 4), dtype=np.float32)
    for value, colour in enumerate(colours, start=1):
        layer[mask == value] = (*to_rgb(colour), FILL)
    tile.image(layer, interpolation="nearest")
    draw_outlines(tile, mask, colours)


def draw_outlines(tile: Tile, mask: NDArray[Any], colours: Sequence[str]) -> None:
    for value, colour in enumerate(colours, start=1):
        tile.lines(outline(mask == value), colour)


def _both_outlines(tile: Tile, column: _Column, where: Slice, convention: Convention) -> None:
    """Draw the truth and on it the prediction; where both share an edge, two colours alternate along it.

    With more than one class truth and prediction share their colours, so the prediction is dashed.
    """
    half = len(column.colours) // 2
    if column.solid is not None:
        draw_outlines(tile, cut(column.solid, where, convention), column.colours[:half])
    if column.dashed is None:
        return
    for value, colour in enumerate(column.colours[half:], start=1):
        segments = outline(cut(column.dashed, where, convention) == value)
        if half > 1:
            middle = segments.mean(axis=1, keepdims=True)
            segments = middle + DASH * (segments - middle)
        elif column.solid is not None:
            segments = interlaced(segments, outline(cut(column.solid, where, convention) == value))
        tile.lines(segments, colour)


def _colours(channel: Channel) -> Any:
    import matplotlib

    name = "RdBu_r" if channel.colours == "diverging" else "gray"
    return matplotlib.colormaps[name].with_extremes(bad="black")


def _bars(axes: Any, columns: Sequence[_Column], tile: float, bottom: float) -> None:
    """Draw a colour bar below the first column of each channel; ``tile`` is the width of a column."""
    done: set[str] = set()
    for number, column in enumerate(columns):
        channel = column.channel
        if channel.name in done:
            continue
        done.add(channel.name)
        bar = Tile(axes, 2 * GAP_PX + 4 + number * (tile + GAP_PX), bottom, tile - 20, 7, (1, 256))
        bar.image(np.linspace(channel.low, channel.high, 256)[None], cmap=_colours(channel))
        texts = (_tick(channel.low), channel.unit, _tick(channel.high))
        for at, text, side in zip((0, 0.5, 1), texts, ("left", "center", "right"), strict=True):
            bar.text((at, -0.4), text, fontsize=8, color=PLAIN, ha=side, va="top")


def _tick(value: float) -> str:
    return f"{value:.3g}".replace("-", "−") if abs(value) < 1000 else f"{value:.0f}".replace("-", "−")


def wrapped(pieces: Sequence[tuple[str, str]], width: float) -> list[list[tuple[str, str]]]:
    """Break the line of (colour, text) pieces where the panel ends, by the usual width of a letter."""
    lines: list[list[tuple[str, str]]] = [[]]
    filled = 0.0
    for piece in pieces:
        needed = 28 + 6.6 * len(piece[1])
        if lines[-1] and filled + needed > width:
            lines.append([])
            filled = 0.0
        lines[-1].append(piece)
        filled += needed
    return lines


def line_below(figure: Any, pieces: Sequence[tuple[str, str]], size: tuple[float, float], bottom: float) -> None:
    """Write the colour key and the convention, each piece in its colour."""
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

    areas: list[Any] = [
        TextArea(text if colour == PLAIN else f"■ {text}", textprops={"color": colour, "fontsize": 8.5})
        for colour, text in pieces
    ]
    packed = HPacker(children=areas, align="baseline", pad=0, sep=12)
    anchor = (GAP_PX / size[0], bottom / size[1])
    figure.add_artist(
        AnchoredOffsetbox(
            loc="lower left",
            child=packed,
            pad=0,
            frameon=False,
            bbox_to_anchor=anchor,
            bbox_transform=figure.transFigure,
            borderpad=0,
        )
    )


def _palette(columns: Sequence[_Column], footer: Sequence[tuple[str, str]]) -> NDArray[np.uint8]:
    """Return the 256 colours that a panel is made of: gray, the diverging map, the flat colours, fills over gray."""
    import matplotlib
    from matplotlib.colors import to_rgb

    flat = np.array([to_rgb(c) for c in dict.fromkeys([*(c for c, _ in footer), LETTERS])])
    fills = np.array(
        [to_rgb(c) for c in dict.fromkeys(c for column in columns if column.filled is not None for c in column.colours)]
    )
    parts = [np.repeat(np.linspace(0, 1, 64)[:, None], 3, axis=1), flat]
    if any(column.channel.colours == "diverging" for column in columns):
        parts.append(matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 80))[:, :3])
    levels = max(2, (256 - sum(len(part) for part in parts)) // max(1, len(fills)))
    ramp = np.linspace(0, 1, levels)[:, None]
    parts += [(1 - FILL) * ramp + FILL * colour for colour in fills]
    return np.asarray(np.rint(np.concatenate(parts)[:256] * 255), dtype=np.uint8)


def _png(pixels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """Encode as a PNG with a palette: a third of the size of full colour, without a visible difference."""
    from PIL import Image

    colours = Image.new("P", (1, 1))
    colours.putpalette(palette.tobytes())
    image = Image.fromarray(pixels[..., :3].copy()).quantize(palette=colours, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    image.save(stream, "png", optimize=True)
    return stream.getvalue()
