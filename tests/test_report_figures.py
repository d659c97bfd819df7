"""Pictures: the patient's right stands where the page says, pixels keep their proportions, files are small."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from neoseg.report.charts import bland_altman, dice_by_burden, learning_curves
from neoseg.report.content import Curve, System
from neoseg.report.figures import CLASSES, PREDICTION, TRUTH, FieldOfView, case_panel, channel_of
from neoseg.report.slices import (
    Sides,
    Slice,
    bounding_box,
    choose_slices,
    cut,
    interlaced,
    outline,
    pixel_mm,
    sides,
)
from neoseg.report.summary import by_burden, summarise

SHAPE = (8, 10, 6)


def marker(x, y, z):
    array = np.zeros(SHAPE)
    array[x, y, z] = 1
    return array


def spot(picture):
    return tuple(int(i[0]) for i in np.nonzero(picture))


@pytest.mark.parametrize(("convention", "column"), [("radiological", 0), ("neurological", 7)])
def test_right_anterior_marker_lands_on_the_stated_side_of_the_axial_picture(convention, column):
    right_anterior = marker(7, 9, 3)
    picture = cut(right_anterior, Slice(2, 3), convention)
    assert picture.shape == (10, 8)
    assert spot(picture) == (0, column)
    letters = sides(Slice(2, 3), convention)
    assert (letters.left if column == 0 else letters.right) == "R"
    assert (letters.top, letters.bottom) == ("A", "P")


def test_coronal_and_sagittal_pictures_have_superior_on_top():
    right_anterior_superior = marker(7, 9, 5)
    assert spot(cut(right_anterior_superior, Slice(1, 9), "radiological")) == (0, 0)
    assert spot(cut(right_anterior_superior, Slice(1, 9), "neurological")) == (0, 7)
    assert spot(cut(right_anterior_superior, Slice(0, 7), "radiological")) == (0, 0)
    assert spot(cut(right_anterior_superior, Slice(0, 7), "neurological")) == (0, 0)
    assert sides(Slice(0, 7), "neurological") == Sides("A", "P", "S", "I")
    assert sides(Slice(1, 0), "radiological") == Sides("R", "L", "S", "I")


def test_pixel_sizes_follow_the_axes_of_the_picture():
    spacing = (1.0, 2.0, 5.0)
    assert pixel_mm(spacing, Slice(2, 0)) == (2.0, 1.0)
    assert pixel_mm(spacing, Slice(1, 0)) == (5.0, 1.0)
    assert pixel_mm(spacing, Slice(0, 0)) == (5.0, 2.0)


def test_slices_with_most_lesion_are_chosen_and_kept_apart():
    head = np.ones((64, 64, 40), dtype=bool)
    truth, prediction = np.zeros(head.shape, np.uint8), np.zeros(head.shape, np.uint8)
    truth[:10, :10, 20] = 1
    truth[:9, :10, 21] = 1
    prediction[:5, :5, 30] = 1
    truth[:2, :2, 5] = 1
    chosen = choose_slices([truth, prediction], head, (2.0, 2.0, 3.0), 3)
    assert [c.index for c in chosen] == [5, 20, 30]
    assert {c.plane for c in chosen} == {"axial"}


def test_without_lesion_the_slices_spread_over_the_head():
    head = np.zeros((64, 64, 40), dtype=bool)
    head[:, :, 10:30] = True
    chosen = choose_slices([np.zeros(head.shape)], head, (2.0, 2.0, 3.0), 3)
    assert [c.index for c in chosen] == [14, 19, 24]
    assert len(choose_slices([np.zeros(head.shape)], np.zeros_like(head), (2.0, 2.0, 3.0), 3)) == 3


def test_a_volume_of_one_slice_and_a_small_volume():
    assert choose_slices([np.zeros((99, 99, 1))], np.ones((99, 99, 1), bool), (1.0, 1.0, 5.0), 3) == (Slice(2, 0),)
    mask = np.zeros((40, 40, 40))
    mask[10:14, 20:24, 30] = 1
    mask[11, 20, 25:33] = 1
    assert [c.plane for c in choose_slices([mask], mask > 9, (1.0, 1.0, 1.0))] == ["axial", "coronal", "sagittal"]
    assert choose_slices([mask], mask > 9, (1.0, 1.0, 1.0))[0].index == 30


def test_outline_is_the_pixel_edge():
    one = np.zeros((4, 4))
    one[2, 1] = 1
    segments = outline(one)
    assert len(segments) == 4
    assert segments[..., 0].min() == 0.5 and segments[..., 0].max() == 1.5
    assert segments[..., 1].min() == 1.5 and segments[..., 1].max() == 2.5
    assert len(outline(np.ones((3, 5)))) == 2 * (3 + 5)
    assert len(outline(np.zeros((3, 5)))) == 0


def test_outlines_on_one_edge_alternate_and_others_stay_whole():
    square = np.zeros((30, 30))
    square[5:25, 5:25] = 1
    edges = outline(square)
    assert 0.3 < len(interlaced(edges, edges)) / len(edges) < 0.7
    assert len(interlaced(edges, outline(np.zeros((30, 30))))) == len(edges)


def test_bounding_box():
    mask = np.zeros((10, 10, 10))
    mask[4:6, 0, 9] = 1
    assert bounding_box(mask, 2) == (slice(2, 8), slice(0, 3), slice(7, 10))
    assert bounding_box(np.zeros((3, 4))) == (slice(0, 3), slice(0, 4))


def test_channels_are_shown_by_their_unit():
    array = np.linspace(-5, 20, 1000).reshape(10, 10, 10)
    adc, z = channel_of("ADC", array, "1e-6 mm2/s"), channel_of("Z", array, "z")
    assert (adc.low, adc.high, adc.colours) == (0, 2500, "gray")
    assert (z.low, z.high, z.colours) == (-6, 6, "diverging")
    other = channel_of("T1", array, "a.u.")
    assert -5 < other.low < -4.7 and 19.7 < other.high < 20
    assert channel_of("empty", np.zeros((2, 2, 2))).high > channel_of("empty", np.zeros((2, 2, 2))).low


def scene():
    rng = np.random.default_rng(0)
    shape, spacing = (96, 112, 20), (1.5, 1.5, 4.0)
    x, y, z = np.meshgrid(*((np.arange(n) - n / 2) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    head = (x / 55) ** 2 + (y / 66) ** 2 + (z / 38) ** 2 < 1
    truth = ((x - 25) ** 2 + (y - 15) ** 2 + z**2 < 14**2).astype(np.uint8)
    adc = np.where(head, np.where(truth, 700, 1400) + rng.normal(0, 80, shape), 0)
    zmap = np.where(head, np.where(truth, -4, 0) + rng.normal(0, 1, shape), 0)
    return adc, zmap, truth, np.roll(truth, -3, 1), spacing


def opened(png):
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


def near(pixels, colour, tolerance=12):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return (np.abs(pixels - wanted) <= tolerance).all(-1)


def test_panel_shows_truth_green_and_prediction_purple_on_the_patients_right():
    adc, zmap, truth, prediction, spacing = scene()
    channels = [channel_of("ADC", adc, "1e-6 mm2/s"), channel_of("Z-ADC", zmap, "z")]
    drawn = {}
    for convention in ("radiological", "neurological"):
        png = case_panel(channels, truth, prediction, view=FieldOfView(spacing), convention=convention)
        assert len(png) < 100_000
        drawn[convention] = opened(png)
    for convention, pixels in drawn.items():
        height, width, _ = pixels.shape
        body = pixels[: height - 60]
        column, rows = width / 5, {}
        for place, colour in ((1, TRUTH), (2, PREDICTION)):
            found = near(body, colour)
            assert found.sum() > 200
            down, inside = np.nonzero(found[:, int(place * column) : int((place + 1) * column)])
            assert len(inside) > 100
            rows[colour] = down.mean()
            # the lesion is at positive x, the patient's right
            assert (inside.mean() < column / 2) == (convention == "radiological")
        assert rows[TRUTH] + 5 < rows[PREDICTION]  # the prediction lies further back
        assert not near(body[:, : int(column)], TRUTH).any()


def test_panel_is_the_same_for_the_same_input():
    adc, zmap, truth, prediction, spacing = scene()
    channels = [channel_of("ADC", adc, "1e-6 mm2/s"), channel_of("Z-ADC", zmap, "z")]
    first, second = (case_panel(channels, truth, prediction, view=FieldOfView(spacing), slices=1) for _ in range(2))
    assert first == second


def test_slices_of_a_part_have_the_numbers_of_the_scan():
    adc, _, truth, prediction, spacing = scene()
    adc[:, :, :5] = 0  # below the head, so that the part begins above the first slice
    whole = case_panel([channel_of("T2", adc)], truth, prediction, view=FieldOfView(spacing), slices=2)
    part = np.s_[10:90, 8:, 3:]
    cut = [array[part] for array in (adc, truth, prediction)]
    view = FieldOfView(spacing, (10, 8, 3), adc.shape)
    assert case_panel([channel_of("T2", cut[0])], *cut[1:], view=view, slices=2) == whole
    assert case_panel([channel_of("T2", cut[0])], *cut[1:], view=FieldOfView(spacing), slices=2) != whole


def test_panel_keeps_the_proportions_of_the_head():
    shape, spacing = (40, 40, 12), (1.0, 3.0, 10.0)
    box = np.ones(shape)
    png = case_panel([channel_of("T2", box)], None, np.zeros(shape, np.uint8), view=FieldOfView(spacing), slices=1)
    pixels = opened(png)
    bright = (pixels[24:-60] > 250).all(-1)
    bright[:, : pixels.shape[1] // 2] = False
    rows, columns = np.nonzero(bright.any(1))[0], np.nonzero(bright.any(0))[0]
    ratio = (rows[-1] - rows[0] + 1) / (columns[-1] - columns[0] + 1)
    assert ratio == pytest.approx(3.0, rel=0.08)


def test_panel_of_classes_without_truth_and_without_content():
    rng = np.random.default_rng(1)
    image, labels = rng.random((35, 50, 30)), np.zeros((35, 50, 30), np.uint8)
    labels[10:20, 10:20, 10:20], labels[10:20, 25:40, 10:20] = 1, 2
    names = ("anterior", "posterior")
    for truth in (labels, None):
        png = case_panel([channel_of("T1", image)], truth, labels, view=FieldOfView((1.0, 1.0, 1.0)), label_names=names)
        pixels = opened(png)
        assert near(pixels, CLASSES[0]).sum() > 100 and near(pixels, CLASSES[1]).sum() > 100
    nothing = np.zeros((35, 50, 30))
    assert opened(case_panel([channel_of("T1", nothing)], None, nothing, view=FieldOfView((1.0, 1.0, 1.0)))).size


def test_charts_are_small_svg_without_outside_references():
    rng = np.random.default_rng(2)
    score = summarise([0.5, 0.7], [0.0, 0.0], generator=rng)
    bins = by_burden([0.5, 0.7, 0.2], [0.0] * 3, [0.2, 0.4, 30.0], generator=rng)
    curve = Curve(name="fold 0", epochs=(1, 2, 3), loss=(1.0, None, 0.5), dice=(None, 0.2, 0.4), best_epoch=3)
    drawings = [
        lambda: learning_curves([curve]),
        lambda: dice_by_burden([System(name="network", score=score, by_burden=bins)]),
        lambda: bland_altman([0.0, 1.0, 200.0], [0.1, 0.9, 150.0]),
        lambda: bland_altman([], []),
    ]
    for draw in drawings:
        svg = draw()
        assert svg.lstrip().startswith("<?xml") and svg.rstrip().endswith("</svg>")
        assert len(svg) < 80_000
        assert 'href="http' not in svg
        assert svg == draw()


def test_a_name_with_dollar_signs_is_no_formula():
    rng = np.random.default_rng(3)
    name = r"$\left$ of $x^$"  # as a formula it cannot be read
    image, labels = rng.random((20, 24, 12)), np.zeros((20, 24, 12), np.uint8)
    labels[4:9, 4:9, 4:8], labels[12:16, 12:16, 4:8] = 1, 2
    shown = {"view": FieldOfView((1.0, 1.0, 1.0)), "label_names": (name, "other")}
    assert opened(case_panel([channel_of(name, image)], labels, labels, **shown)).size
    score = summarise([0.5, 0.7], [0.0, 0.0], generator=rng)
    bins = by_burden([0.5, 0.7], [0.0] * 2, [0.2, 30.0], generator=rng)
    assert dice_by_burden([System(name=name, score=score, by_burden=bins)], name, name)
    assert learning_curves([Curve(name=name, epochs=(1,), loss=(1.0,), dice=(0.2,))])


def test_a_name_in_letters_that_no_font_has_is_drawn_without_a_warning() -> None:
    curve = Curve(name="脑部", epochs=(1, 2), loss=(0.5, 0.4), dice=(0.1, 0.2), best_epoch=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "<svg" in learning_curves([curve])
