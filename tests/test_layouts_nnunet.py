"""Folders as nnU-Net has them: repeated channel names, regions, an ignore label, and the older dataset.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from neoseg.config import load_config
from neoseg.data.layouts import ImportOptions, guess_layout, import_data
from neoseg.data.layouts.dataset_json import channel_names, declared
from neoseg.errors import ConfigError, InputError
from neoseg.labels import LabelSet
from neoseg.pipeline.import_data import import_folder
from test_layouts_import import image, label

BRATS = {
    "labels": {"background": 0, "whole_tumor": [1, 2, 3], "tumor_core": [2, 3], "enhancing_tumor": [3]},
    "regions_class_order": [1, 2, 3],
}


def tree(root: Path, described: dict[str, Any], *values: int, channels: int = 2) -> Path:
    for name in ("p1", "p2"):
        for number in range(channels):
            image(root / "imagesTr" / f"{name}_{number:04d}.nii.gz")
        label(root / "labelsTr" / f"{name}.nii.gz", *values)
    (root / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"0": "CT", "1": "CT"}, ["ct_0", "ct_1"]),
        ({"1": "ADC", "0": "T2 w"}, ["t2_w", "adc"]),
        (["noNorm", "noNorm"], ["nonorm_0", "nonorm_1"]),
        ({"0": ""}, ["channel_0"]),
        ({"a": "CT"}, []),
        (None, []),
    ],
)
def test_channels_keep_their_order_and_no_name_stands_for_two(given: object, names: list[str]) -> None:
    assert channel_names(given) == names


def test_channels_of_one_name_are_all_imported(tmp_path: Path) -> None:
    described = {"channel_names": {"0": "CT", "1": "CT"}, "labels": {"background": 0, "liver": 1}}
    data = import_data(tree(tmp_path, described, 1), "folders")
    assert data.channels == {"ct_0": "ct", "ct_1": "ct"}
    assert [file.name for file in data.cases[0].images.values()] == ["p1_0000.nii.gz", "p1_0001.nii.gz"]


def test_region_labels_become_classes_and_regions_that_the_configuration_takes(tmp_path: Path) -> None:
    done = import_folder(tree(tmp_path / "data", BRATS, 1, 2, 3), tmp_path / "work")
    config = load_config(done.config)
    assert config.labels == {"label_1": 1, "label_2": 2, "enhancing_tumor": 3}
    assert config.targets.names == ("whole_tumor", "tumor_core", "enhancing_tumor")
    # what each region paints is what regions_class_order says
    written = [config.label_set.values[index - 1][0] for index in config.targets.painted]
    assert written == BRATS["regions_class_order"]


def test_values_that_no_region_tells_apart_are_one_class_written_as_nnunet_writes_it() -> None:
    content = {
        "labels": {"background": 0, "whole": [1, 2, 3, 4], "core": [1, 3, 4], "enhancing": 4},
        "regions_class_order": [2, 3, 4],
    }
    found = declared(content)
    assert found.labels == {"label_2": 2, "label_3": [3, 1], "enhancing": 4}
    assert found.regions == {"whole": ("label_3", "label_2", "enhancing"), "core": ("label_3", "enhancing"),
                             "enhancing": ("enhancing",)}  # fmt: skip


def test_regions_from_which_classes_do_not_follow_are_left_out_with_a_note(tmp_path: Path) -> None:
    described = {"labels": {"background": 0, "inner": [1], "whole": [1, 2]}, "regions_class_order": [1, 2]}
    done = import_folder(tree(tmp_path / "data", described, 1, 2), tmp_path / "work")
    config = load_config(done.config)
    assert config.regions is None and config.labels == {"inner": 1, "label_2": 2}
    assert any("regions of dataset.json were left out" in note for note in done.data.notes)


def test_a_label_to_be_ignored_is_told_and_found_by_the_checks(tmp_path: Path) -> None:
    described = {"labels": {"background": 0, "lesion": 1, "ignore": 2}}
    data = import_data(tree(tmp_path, described, 1, 2), "folders")
    assert data.labels == {"lesion": 1}
    assert any("'ignore' = 2" in note and "neoseg check" in note for note in data.notes)


def test_names_that_no_file_can_have_are_changed_and_values_of_one_name_are_one_class() -> None:
    found = declared({"labels": {"0": "background", "1": "edema/infiltration", "2": "core", "3": "core"}})
    assert found.labels == {"edema_infiltration": 1, "core": [2, 3]} and found.regions == {}
    assert "edema_infiltration" in found.notes[0]
    with pytest.raises(ConfigError, match=r"'a/b' becomes part of files' names"):
        LabelSet.of({"a/b": 1})


@pytest.mark.parametrize("value", [1.5, True, None, "one", float("nan")])
def test_a_value_that_is_no_whole_number_is_not_rounded(value: object) -> None:
    found = declared({"labels": {"background": 0, "tumour": value}})
    assert found.labels == {} and "no whole numbers" in found.notes[0]
    assert declared({"labels": {"background": 0, "tumour": 1.0, "edge": "2"}}).labels == {"tumour": 1, "edge": 2}


def test_the_older_dataset_json_lists_files_without_the_suffix(tmp_path: Path) -> None:
    described = {
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "lesion"},
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("p1", "p2")],
    }
    tree(tmp_path, described, 1)
    assert guess_layout(tmp_path)[0] == "folders"
    data = import_data(tmp_path, "folders")
    assert (data.channels, data.labels) == ({"t2": "mr", "adc": "adc"}, {"lesion": 1})
    assert all(file.is_file() for case in data.cases for file in case.images.values())


def test_many_values_may_be_instances_so_a_person_is_asked(tmp_path: Path) -> None:
    tree(tmp_path, {}, *range(1, 21), channels=1)
    with pytest.raises(InputError, match=r"20 different values .*--masks instances"):
        import_data(tmp_path, "folders")
    assert len(import_data(tmp_path, "folders", ImportOptions(masks="classes")).labels) == 20
    done = import_folder(tmp_path, tmp_path / "work", "folders", options=ImportOptions(masks="instances"))
    config = load_config(done.config)
    assert config.label_instances and config.labels == {"foreground": 1}


def test_more_classes_than_indices_are_refused() -> None:
    with pytest.raises(ConfigError, match="256 classes were given, at most 255"):
        LabelSet.of({f"label_{value}": value for value in range(1, 257)})


def test_numbers_of_channels_begin_at_0_and_have_no_gap(tmp_path: Path) -> None:
    for numbers in ((0, 2), (1,)):
        root = tmp_path / f"{len(numbers)}"
        for case in ("a", "b"):
            for folder, name in (("labelsTr", case), *(("imagesTr", f"{case}_000{n}") for n in numbers)):
                label(root / folder / f"{name}.nii.gz")
        with pytest.raises(
            InputError, match=r"the names of images end in the numbers .*channels are counted from 0 without a gap"
        ):
            import_data(root, "folders")


def test_the_one_channel_has_its_name_also_without_a_number(tmp_path: Path) -> None:
    for folder in ("images", "mask"):
        for case in ("a", "b"):
            name = f"{case}.seg.nii.gz" if folder == "mask" else f"{case}.nii.gz"
            label(tmp_path / folder / name)
    (tmp_path / "dataset.json").write_text('{"channel_names": {"CT": 0}, "labels": {"background": 0, "x": 1}}')
    data = import_data(tmp_path, "folders")
    assert data.channels == {"ct": "ct"} and all(case.label for case in data.cases)
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "CT", "1": "PET"}, "labels": {"x": 1}}')
    data = import_data(tmp_path, "folders")
    assert list(data.channels) == ["image"]
    assert any("names 2 channels (ct, pet), but the images have 1 (image)" in note for note in data.notes)


def test_a_folder_called_mask_is_no_channel(tmp_path: Path) -> None:
    for folder in ("images/t1", "images/mask", "labels"):
        label(tmp_path / folder / "a.nii.gz")
    with pytest.raises(InputError, match=r"images/mask: no channel can be called 'mask'"):
        import_data(tmp_path, "folders")
