"""Channels, one file each, told by the numbers behind names, and what a dataset.json beside pictures says."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neoseg.data.cases import Case, channels_of
from neoseg.data.layouts import ImportedData, ImportOptions, guess_layout, import_data
from neoseg.data.layouts.dataset_json import channel_names, declared
from neoseg.errors import InputError
from neoseg.pipeline.import_data import import_folder

TWO = {"channel_names": {"0": "DAPI", "1": "FITC"}}


def write(root: Path, *names: str, mask: int = 0) -> None:
    """Write pictures of noise, or masks that hold one value."""
    generator = np.random.default_rng(len(names))
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = generator.integers(0, 256, (32, 40)).astype(np.uint8)
        if mask:
            values = np.uint8(mask) * (np.indices(values.shape)[0] > 15)
        Image.fromarray(values.astype(np.uint8)).save(path)


def write_colour(path: Path) -> None:
    colours = np.zeros((32, 40, 3), np.uint8)
    colours[..., 0] = 9
    Image.fromarray(colours).save(path)


def describe(root: Path, **content: Any) -> None:
    (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def two_channels(root: Path, *cases: str, images: str = "imagesTr", masks: str | None = "labelsTr") -> None:
    for case in cases:
        write(root, f"{images}/{case}_0000.png", f"{images}/{case}_0001.png")
        if masks:
            write(root, f"{masks}/{case}.png", mask=1)


def planar(root: Path) -> ImportedData:
    return import_data(root, "planar_folders")


def channels(data: ImportedData) -> dict[str, list[str]]:
    return {case.case: list(case.images) for case in data.cases}


def test_each_file_is_a_channel_of_its_picture(tmp_path: Path) -> None:
    two_channels(tmp_path, "p0", "p1")
    layout, reason = guess_layout(tmp_path)
    assert layout == "planar_folders" and "2 pictures" in reason
    data = planar(tmp_path)
    assert data.channels == {"channel_0": "mr", "channel_1": "mr"}
    files = {channel: file.name for channel, file in data.cases[1].images.items()}
    assert files == {"channel_0": "p1_0000.png", "channel_1": "p1_0001.png"}
    write_colour(tmp_path / "imagesTr" / "p1_0001.png")
    with pytest.raises(InputError, match=r"p1_0001\.png: this is one of several channels of a picture, and in colour"):
        planar(tmp_path)
    (tmp_path / "imagesTr" / "p1_0001.png").rename(tmp_path / "imagesTr" / "p1_0002.png")
    (tmp_path / "imagesTr" / "p0_0001.png").unlink()
    with pytest.raises(InputError, match=r"end in the numbers 0000, 0002, but channels are counted from 0"):
        planar(tmp_path)


@pytest.mark.parametrize("ending", ["png", "nii.gz"])
def test_the_number_orders_the_channels_where_the_first_case_lacks_the_first(tmp_path: Path, ending: str) -> None:
    if ending == "png":
        two_channels(tmp_path, "p0", "p1")
    else:
        import nibabel as nib

        for name in ("imagesTr/p0_0000", "imagesTr/p0_0001", "imagesTr/p1_0000", "imagesTr/p1_0001",
                     "labelsTr/p0", "labelsTr/p1"):  # fmt: skip
            (tmp_path / name).parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / f"{name}.nii.gz")
    describe(tmp_path, **TWO)
    (tmp_path / "imagesTr" / f"p0_0000.{ending}").unlink()
    found = import_folder(tmp_path, tmp_path / "work")
    with (tmp_path / "work" / "cases.csv").open(newline="", encoding="utf-8") as stream:
        columns = next(csv.reader(stream))
    assert [c for c in columns if c.startswith("image_")] == ["image_dapi", "image_fitc"] and found.config.is_file()


def test_channels_stand_in_an_order_that_no_case_contradicts() -> None:
    orders = [["b", "d"], ["a", "b"], ["c", "d"], ["b", "c"]]
    cases = [Case(case=str(i), subject="", images=dict.fromkeys(o, Path())) for i, o in enumerate(orders)]
    assert channels_of(cases) == ("a", "b", "c", "d")
    assert set(channels_of([*cases, Case(case="", subject="", images=dict.fromkeys("da", Path()))])) == set("abcd")


def test_one_folder_does_not_decide_for_the_others(tmp_path: Path) -> None:
    two_channels(tmp_path, "p0", "p1", "p2")
    write(tmp_path, "imagesTs/t0_0000.png")
    write(tmp_path, "labelsTs/t0.png", mask=1)
    describe(tmp_path, **TWO)
    assert channels(planar(tmp_path)) == {f"p{i}": ["dapi", "fitc"] for i in range(3)} | {"t0": ["dapi"]}
    (tmp_path / "labelsTs" / "t0.png").unlink()
    data = planar(tmp_path)
    assert sorted(channels(data)) == ["p0", "p1", "p2"] and any("imagesTs/ has no masks" in n for n in data.notes)
    (tmp_path / "labelsTr" / "p2.png").rename(tmp_path / "labelsTr" / "p2_0000.png")
    assert sorted(channels(planar(tmp_path))) == ["p0", "p1", "p2", "p2_0000"]
    write(tmp_path, "imagesTr/overview.png")
    data = planar(tmp_path)
    assert "overview" not in channels(data) and any("left out: overview.png" in note for note in data.notes)


def test_numbers_are_names_where_most_masks_bear_them(tmp_path: Path) -> None:
    write(tmp_path, *(f"images/p_000{i}.png" for i in range(4)))
    write(tmp_path, *(f"masks/p_000{i}_manual.png" for i in range(4)), "masks/p.png", mask=1)
    data = planar(tmp_path)
    assert {case for case, own in channels(data).items() if own} == {f"p_000{i}" for i in range(4)}


def test_a_folder_a_picture_has_no_channels(tmp_path: Path) -> None:
    for name in ("s0", "s1"):
        write(tmp_path, f"{name}/images/im_0001.png")
        write(tmp_path, f"{name}/masks/im.png", mask=1)
    assert channels(planar(tmp_path)) == {"s0": ["grey"], "s1": ["grey"]}


def test_one_file_an_instance_beside_numbered_pictures(tmp_path: Path) -> None:
    two_channels(tmp_path, "p0", "p1", masks=None)
    write(tmp_path, *(f"labelsTr/p{i}/{k}.png" for i in range(2) for k in range(2)), mask=255)
    describe(tmp_path, **TWO, labels={"background": 0, "nucleus": 1})
    data = planar(tmp_path)
    assert channels(data) == {"p0": ["dapi", "fitc"], "p1": ["dapi", "fitc"]} and sorted(data.merged) == ["p0", "p1"]
    assert data.labels == {"nucleus": 255}


def test_a_description_names_classes_and_regions_of_pictures(tmp_path: Path) -> None:
    two_channels(tmp_path, "p0", "p1")
    write(tmp_path, "labelsTr/p1.png", mask=2)
    assert planar(tmp_path).labels == {"label_1": 1, "label_2": 2}
    describe(tmp_path, **TWO, labels={"background": 0, "rim": 1, "core": 2, "dead": 3})
    data = planar(tmp_path)
    assert data.labels == {"rim": 1, "core": 2, "dead": 3}
    assert "dataset.json declares dead = 3, which no mask holds." in data.notes
    describe(tmp_path, **TWO, labels={"background": 0, "whole": [1, 2], "core": [2]})
    assert planar(tmp_path).regions == {"whole": ("label_1", "core"), "core": ("core",)}
    data = import_data(tmp_path, "planar_folders", ImportOptions(masks="instances"))
    assert not data.regions and any("classes of dataset.json were not used" in note for note in data.notes)
    describe(tmp_path, channel_names={"0": "a"}, labels={"background": 0, "rim": 1})
    told = " ".join(planar(tmp_path).notes)
    assert "names 1 channel (a), but the images have 2 (channel_0, channel_1)" in told
    assert "Masks hold values that dataset.json does not declare: 2;" in told


@pytest.mark.parametrize("content", ['[{"image": "p0.png"}]', "{", '{"labels": {"p0.png": 0, "p1.png": 1}}',
                                     '{"labels": {"1": ["a"]}}', '{"channel_names": {"0": ["x"]}}'])  # fmt: skip
def test_a_description_of_something_else_is_told_and_not_used(tmp_path: Path, content: str) -> None:
    two_channels(tmp_path, "p0", "p1")
    plain = planar(tmp_path)
    (tmp_path / "dataset.json").write_text(content, encoding="utf-8")
    data = planar(tmp_path)
    assert (data.labels, data.channels) == (plain.labels, plain.channels)
    assert len([note for note in data.notes if "dataset.json" in note]) == 1


def test_names_of_channels_may_be_parts_of_names_of_files_and_columns() -> None:
    assert channel_names({"0": "a/b", "1": "x,y #1"}) == ["a_b", "x_y_1"]
    assert channel_names({"0": "grey", "1": "Mask"}) == ["grey", "mask_1"]
    assert channel_names({"\u00b2": "a"}) == [] and channel_names({"CT": 0, "PET": 1}) == ["ct", "pet"]


def test_classes_with_alike_names_stay_two_and_a_class_of_0_is_told() -> None:
    found = declared({"labels": {"background": 0, "a/b": 1, "a_b": 2}})
    assert found.labels == {"a_b": 1, "a_b_": 2} and not found.regions and len(found.notes) == 2
    found = declared({"labels": ["cell", "stroma"]})
    assert found.labels == {"stroma": 1} and "'cell' = 0; 0 is background here" in found.notes[0]
    assert "background is 0 here" in declared({"labels": {"background": 1, "cell": 2}}).notes[0]


def test_a_list_of_pictures_is_no_task_of_the_decathlon(tmp_path: Path) -> None:
    write(tmp_path, "imagesTr/p0.png", "imagesTr/p1.png")
    write(tmp_path, "labelsTr/p0.png", "labelsTr/p1.png", mask=1)
    listed = [{"image": f"./imagesTr/p{i}.png", "label": f"./labelsTr/p{i}.png"} for i in range(2)]
    describe(tmp_path, modality={"0": "RGB"}, labels={"0": "background", "1": "skin"}, training=listed)
    assert guess_layout(tmp_path)[0] == "planar_folders"
    assert planar(tmp_path).labels == {"skin": 1}


def test_a_stray_volume_does_not_make_numbers_part_of_the_names(tmp_path: Path) -> None:
    import nibabel as nib

    for name in (*(f"imagesTr/p{i}_000{n}" for i in range(3) for n in range(2)), *(f"labelsTr/p{i}" for i in range(3)),
                 "imagesTr/template"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / f"{name}.nii.gz")
    describe(tmp_path, **TWO)
    data = import_data(tmp_path, "folders")
    assert channels(data) == {f"p{i}": ["dapi", "fitc"] for i in range(3)}
    assert "Images with neither the number of a channel nor a mask were left out: template.nii.gz." in data.notes


@pytest.mark.parametrize("masks", [("p0", "p1", "p2", "p3", "p4"), ("p0_seg", "x", "y", "z")])
def test_masks_without_an_image_do_not_make_numbers_part_of_the_names(tmp_path: Path, masks: tuple[str, ...]) -> None:
    two_channels(tmp_path, "p0", "p1", masks=None)
    write(tmp_path, *(f"labelsTr/{name}.png" for name in masks), mask=1)
    found = {case: own for case, own in channels(planar(tmp_path)).items() if own}
    assert found == {f"p{i}": ["channel_0", "channel_1"] for i in range(2)}


def test_without_masks_numbers_are_channels_where_each_of_several_images_begins_with_0(tmp_path: Path) -> None:
    write(tmp_path, *(f"images/film_000{i}.png" for i in range(4)))
    assert len(planar(tmp_path).cases) == 4
    two_channels(tmp_path / "several", "p0", "p1", masks=None)
    assert channels(planar(tmp_path / "several")) == {f"p{i}": ["channel_0", "channel_1"] for i in range(2)}
