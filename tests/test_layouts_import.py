from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fault_scene import Done
from neoseg.config import load_config
from neoseg.data.cases import read_cases, write_cases
from neoseg.data.layouts import LAYOUTS, ImportedData, ImportOptions, guess_layout, import_data
from neoseg.errors import ConfigError, GeometryError, InputError
from neoseg.io import read_volume, write_volume
from neoseg.pipeline.import_data import import_folder
from neoseg.volume import Grid, Volume

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not on this machine")
GRID = Grid.of_spacing((4, 5, 3), (1.5, 1.5, 4.0))


def image(path: Path, value: float = 1200.0, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full((channels, *GRID.shape), value, np.float32)
    array[:, 0] = 0
    array += np.arange(channels, dtype=np.float32)[:, None, None, None]
    write_volume(Volume(array, GRID), path)
    return path


def label(path: Path, *values: float, dtype: type = np.uint8) -> Path:
    array = np.zeros((1, *GRID.shape), dtype)
    array.flat[: len(values)] = values
    write_volume(Volume(array, GRID), path)
    return path


# Miniature trees, one a layout: what any layout must hold is tested on all of them.


def tree_folders(root: Path) -> None:
    for name in ("p1", "p2"):
        image(root / "images" / f"{name}.nii.gz")
        label(root / "labels" / f"{name}.nii.gz", 1, 2)


def tree_decathlon(root: Path) -> None:
    described = {
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "training": [],
        "test": ["./imagesTs/p9.nii.gz"],
    }
    for name in ("p1", "p2"):
        image(root / "imagesTr" / f"{name}.nii.gz", channels=2)
        label(root / "labelsTr" / f"{name}.nii.gz", 1, 2)
        described["training"].append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    image(root / "imagesTs" / "p9.nii.gz", channels=2)
    (root / "dataset.json").write_text(json.dumps(described), encoding="utf-8")


def tree_bonbid(root: Path) -> None:
    for part, number in (("Train", "010"), ("Train", "014"), ("Val", "028"), ("Test", "062")):
        folder = root / f"BONBID2023_{part}"
        name = f"MGHNICU_{number}-VISIT_01"
        image(folder / "1ADC_ss" / f"{name}-ADC_ss.mha", 1350)
        image(folder / "2Z_ADC" / f"Zmap_{name}-ADC_smooth2mm_clipped10.mha", -1)
        label(folder / "3LABEL" / f"{name}_lesion.mha", 1)


def picture(path: Path, *values: int, shape: tuple[int, ...] = GRID.shape[:2]) -> Path:
    """Write a PNG of (x, y) pixels: noise, grey or in colour, or a mask of the values given."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    x, y, *colours = shape
    array = np.random.default_rng(len(path.name)).integers(0, 256, (y, x, *colours)).astype(np.uint8)
    if values:
        array = np.zeros((y, x), np.uint16 if max(values) > 255 else np.uint8)
        array.flat[: len(values)] = values
    Image.fromarray(array).save(path)
    return path


def tree_planar_folders(root: Path) -> None:
    for name in ("p1", "p2"):
        picture(root / "images" / f"{name}.png")
        picture(root / "masks" / f"{name}.png", 255)


TREES = {
    "planar_folders": tree_planar_folders,
    "folders": tree_folders,
    "decathlon": tree_decathlon,
    "bonbid": tree_bonbid,
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_layout_keeps_its_contract(tmp_path: Path, layout) -> None:
    root = tmp_path / "data"
    TREES[layout.name](root)
    before = sorted(tmp_path.rglob("*"))
    name, reason = guess_layout(root)
    assert name == layout.name
    assert reason
    data = import_data(root, layout.name)
    assert sorted(tmp_path.rglob("*")) == before  # nothing is copied or written
    assert len({case.case for case in data.cases}) == len(data.cases) >= 2
    for case in data.cases:
        assert set(case.images) == set(data.channels)
        for channel, file in case.images.items():
            assert file.is_absolute()
            shape = read_volume(file, volume_index=case.channel_index.get(channel)).grid.shape
            assert shape == GRID.shape[: len(shape)]
        assert case.label is not None
        assert case.label.is_file()
        assert case.split in ("train", "test")
    assert data.labels
    assert set(data.channels.values()) <= {"adc", "z", "ct", "mr"}
    write_cases(data.cases, tmp_path / "cases.csv")
    assert read_cases(tmp_path / "cases.csv") == data.cases
    with pytest.raises(InputError, match=r"this layout needs .*, but there is no such"):
        layout.read(tmp_path)
    assert layout.matches(tmp_path) is None


def test_a_file_in_the_place_of_a_folder_is_called_one(tmp_path: Path) -> None:
    file = image(tmp_path / "images" / "a.nii.gz")
    for layout in (None, "folders"):
        with pytest.raises(InputError, match=r"a\.nii\.gz: this is a file, and a folder of data is wanted"):
            import_folder(file, tmp_path / "work", layout)


def test_guessing_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1ADC_ss/.*dataset\.json.*images/.*--layout"):
        guess_layout(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        guess_layout(tmp_path / "none")
    with pytest.raises(InputError, match="does not exist"):
        import_data(tmp_path / "none", "folders")
    with pytest.raises(ConfigError, match=r"'folder' is not known \(did you mean 'folders'"):
        import_data(tmp_path, "folder")


# folders


@pytest.mark.parametrize(("images", "labels"), [("Images", "LABELS"), ("imagesTr", "labelsTr"), ("image", "masks")])
@pytest.mark.parametrize("suffix", ["", "_seg", "-mask", "_Seg"])
def test_folder_names_and_label_endings(tmp_path: Path, images: str, labels: str, suffix: str) -> None:
    image(tmp_path / images / "a.b.nii.gz")
    label(tmp_path / labels / f"a.b{suffix}.mha", 1)
    (tmp_path / images / "readme.txt").write_text("x", encoding="utf-8")
    (tmp_path / images / "._a.b.nii.gz").write_bytes(b"Mac")
    (case,) = import_data(tmp_path, "folders").cases
    assert (case.case, case.label) == ("a.b", tmp_path / labels / f"a.b{suffix}.mha")


@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        (None, {"label_1": 1, "label_2": 2}),
        ("hippocampus", {"anterior": 1, "posterior": 2}),
        ("planar", {"label_1": 1, "label_2": 2}),
    ],
)
def test_the_labels_told_are_those_of_the_configuration_written(
    tmp_path: Path, recipe: str | None, wanted: dict[str, int]
) -> None:
    image(tmp_path / "data" / "images" / "a.nii.gz")
    label(tmp_path / "data" / "labels" / "a.nii.gz", 1, 2)
    done = import_folder(tmp_path / "data", tmp_path / "work", recipe=recipe)
    assert done.labels == load_config(done.config).labels == wanted


def test_a_recipe_whose_labels_are_others_is_told(tmp_path: Path) -> None:
    image(tmp_path / "data" / "images" / "a.nii.gz")
    (tmp_path / "data" / "labels").mkdir()
    label(tmp_path / "data" / "labels" / "a.nii.gz", 1, 255)
    told = "[labels] is that of the recipe 'hippocampus', but the labels also hold 255; correct it in "
    done = import_folder(tmp_path / "data", tmp_path / "work", recipe="hippocampus")
    assert any(note.startswith(told) for note in done.data.notes)
    done = import_folder(tmp_path / "data", tmp_path / "work", recipe="planar", overwrite=True)
    assert not any("of the recipe" in note for note in done.data.notes)
    label(tmp_path / "data" / "labels" / "a.nii.gz", 1)
    done = import_folder(tmp_path / "data", tmp_path / "work", recipe="hippocampus", overwrite=True)
    assert any("but no label holds 2; correct it" in note for note in done.data.notes)
    described = {"channel_names": {"0": "t1"}, "labels": {"background": 0, "tumour": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(described))
    done = import_folder(tmp_path / "data", tmp_path / "work", recipe="hippocampus", overwrite=True)
    assert any("(anterior, posterior), but the data call the classes tumour" in note for note in done.data.notes)


def test_channels_by_suffix_are_named_by_dataset_json(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        for number in (0, 1):
            image(tmp_path / "imagesTr" / f"{name}_{number:04d}.nii.gz")
        label(tmp_path / "labelsTr" / f"{name}.nii.gz", 1)
    data = import_data(tmp_path, "folders")
    assert data.channels == {"channel_0": "mr", "channel_1": "mr"}
    assert [case.case for case in data.cases] == ["p1", "p2"]
    described = {"channel_names": {"0": "CT", "1": "ADC"}, "labels": {"background": 0, "lesion": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    data = import_data(tmp_path, "folders")
    assert data.channels == {"ct": "ct", "adc": "adc"}
    assert data.labels == {"lesion": 1}
    assert data.cases[0].images["adc"].name == "p1_0001.nii.gz"


@pytest.mark.parametrize("suffix", ["", "_seg", "-mask"])
def test_four_digits_may_be_the_number_of_a_case(tmp_path: Path, suffix: str) -> None:
    for name in ("case_0000", "case_0001"):
        image(tmp_path / "images" / f"{name}.nii.gz")
        label(tmp_path / "labels" / f"{name}{suffix}.nii.gz", 1)
    data = import_data(tmp_path, "folders")
    assert [(case.case, case.label is not None) for case in data.cases] == [("case_0000", True), ("case_0001", True)]
    assert data.channels == {"image": "mr"}


def test_one_channel_with_suffix(tmp_path: Path) -> None:
    image(tmp_path / "imagesTr" / "p1_0000.nii.gz")
    label(tmp_path / "labelsTr" / "p1.nii.gz", 1)
    (case,) = import_data(tmp_path, "folders").cases
    assert (case.case, list(case.images)) == ("p1", ["image"])


def test_channels_by_sub_folder(tmp_path: Path) -> None:
    for channel in ("adc", "dwi"):
        image(tmp_path / "images" / channel / "p1.mha")
    label(tmp_path / "labels" / "p1.mha", 1)
    data = import_data(tmp_path, "folders")
    assert data.channels == {"adc": "adc", "dwi": "mr"}
    assert data.cases[0].images["dwi"] == tmp_path / "images" / "dwi" / "p1.mha"


def test_test_folders_are_held_out_or_left_out(tmp_path: Path) -> None:
    image(tmp_path / "imagesTr" / "a.nii.gz")
    label(tmp_path / "labelsTr" / "a.nii.gz", 1)
    image(tmp_path / "imagesTs" / "b.nii.gz")
    data = import_data(tmp_path, "folders")
    assert [case.case for case in data.cases] == ["a"]
    assert any("imagesTs/ has no labels" in note for note in data.notes)
    (tmp_path / "labelsTs").mkdir()
    label(tmp_path / "labelsTs" / "b.nii.gz", 1)
    assert [(case.case, case.split) for case in import_data(tmp_path, "folders").cases] == [
        ("a", "train"),
        ("b", "test"),
    ]


def test_odd_label_values_are_not_declared_but_told(tmp_path: Path) -> None:
    for name, values in (("a", (255.0, 2)), ("b", (0.99999997,)), ("c", (-1.0, np.nan))):
        image(tmp_path / "images" / f"{name}.nii.gz")
        (tmp_path / "labels").mkdir(exist_ok=True)
        label(tmp_path / "labels" / f"{name}.nii.gz", *values, dtype=np.float64)
    (tmp_path / "labels" / "c.nii.gz").write_bytes(b"text")
    data = import_data(tmp_path, "folders")
    assert data.labels == {"label_2": 2, "label_255": 255}
    assert any("0.99999997 (b.nii.gz)" in note for note in data.notes)
    assert any("c.nii.gz" in note for note in data.notes)


def test_bids_names_give_the_subject(tmp_path: Path) -> None:
    for session in (1, 2):
        image(tmp_path / "images" / f"sub-07_ses-{session}.nii.gz")
        label(tmp_path / "labels" / f"sub-07_ses-{session}.nii.gz", 1)
    assert {case.subject for case in import_data(tmp_path, "folders").cases} == {"sub-07"}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("patient001_frame01", "patient001_frame12"), True),
        (("knee7_L", "knee7_R"), True),
        (("p1_visit-1", "p2_visit-1"), False),
        (("mri_scan1", "mri_scan2"), False),
        (("case_01", "case_02"), False),
    ],
)
def test_names_that_look_like_one_person_are_told(tmp_path: Path, names: tuple[str, ...], told: bool) -> None:
    for name in names:
        image(tmp_path / "images" / f"{name}.nii.gz")
        label(tmp_path / "labels" / f"{name}.nii.gz", 1)
    notes = [note for note in import_data(tmp_path, "folders").notes if "look like scans of one person" in note]
    assert bool(notes) == told
    options = ImportOptions(subject_pattern="^(.+)[._-]")
    assert not any("one person" in note for note in import_data(tmp_path, "folders", options).notes)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.nii.gz")
    image(tmp_path / "images" / "a.mha")
    with pytest.raises(InputError, match=r"a\.nii\.gz: the file .*a\.mha has the same name"):
        import_data(tmp_path, "folders")


@needs_data
def test_hippocampus() -> None:
    root = DATA / "msd_hippocampus"
    assert guess_layout(root) == ("folders", "it holds images/ and labels/")
    data = import_data(root, "folders")
    assert len(data.cases) == 182
    assert all(case.label is not None and case.label.name == case.images["image"].name for case in data.cases)
    assert data.labels == {"label_1": 1, "label_2": 2}
    (note,) = data.notes
    assert note.startswith("Images in unpaired_negatives/ were not imported")


@needs_data
def test_hippocampus_unpaired() -> None:
    data = import_data(DATA / "msd_hippocampus" / "unpaired_negatives", "folders")
    assert [(case.case[-3:], bool(case.images), bool(case.label)) for case in data.cases] == [
        ("010", False, True),
        ("118", True, False),
        ("281", False, True),
    ]
    assert data.notes == [
        "Images without a label (1): hippocampus_118.",
        "Labels without an image (2): hippocampus_010, hippocampus_281.",
    ]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"background": 0, "a\nb": 1}, r"'a\\nb' becomes part of files' names"),
        ({"background": 0, "": 1}, "'' becomes part of files' names"),
        ({"background": 0, "t": -1}, r"from 1 to 65535, but \[-1.0\]"),
        ({"background": 0, "t": 255000}, r"from 1 to 65535, but \[255000.0\]"),
    ],
)
def test_classes_that_the_next_command_would_refuse_leave_nothing(
    tmp_path: Path, labels: dict[str, int], told: str
) -> None:
    tree_folders(tmp_path / "data")
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": labels}), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"data: what the data declare cannot be imported\. .*{told}"):
        import_folder(tmp_path / "data", tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_any_name_of_a_class_is_written_so_that_it_is_read(tmp_path: Path) -> None:
    tree_folders(tmp_path / "data")
    names = ('a "b"', "größe, 中", "x.y")
    described = {"labels": {"background": 0} | {name: i for i, name in enumerate(names, start=1)}}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    done = import_folder(tmp_path / "data", tmp_path / "work")
    assert tuple(load_config(done.config).labels) == names


# planar_folders


def planar(root: Path, **options: str) -> ImportedData:
    return import_data(root, "planar_folders", ImportOptions(**options))


@pytest.mark.parametrize("values", [(255,), (1,)])
def test_a_binary_mask_is_declared_with_its_own_value(tmp_path: Path, values: tuple[int, ...]) -> None:
    picture(tmp_path / "Images" / "a.png")
    picture(tmp_path / "Labels" / "a_mask.png", *values)
    data = planar(tmp_path)
    assert data.labels == {"foreground": values[0]}
    assert data.channels == {"grey": "mr"}
    assert data.cases[0].channel_index == {}
    assert data.cases[0].label == tmp_path / "Labels" / "a_mask.png"


def test_masks_of_1_and_of_255_are_one_class_and_told(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 255)):
        picture(tmp_path / "images" / f"{name}.png")
        picture(tmp_path / "masks" / f"{name}.png", value)
    data = planar(tmp_path)
    assert data.labels == {"foreground": [255, 1]}
    assert any("Some masks hold 1 and others 255" in note for note in data.notes)


def test_a_mask_of_1_and_255_has_two_classes(tmp_path: Path) -> None:
    for name, values in (("a", (1, 255)), ("b", (1,))):
        picture(tmp_path / "images" / f"{name}.png")
        picture(tmp_path / "masks" / f"{name}.png", *values)
    data = planar(tmp_path)
    assert data.labels == {"label_1": 1, "label_255": 255}
    assert any(note.startswith("Masks that hold 255 beside other values (a.png) have it") for note in data.notes)


def test_255_beside_classes_is_told(tmp_path: Path) -> None:
    for name, values in (("a", (3, 15, 255)), ("b", (3,)), ("c", (255,))):
        picture(tmp_path / "images" / f"{name}.png", shape=(9, 9))
        picture(tmp_path / "masks" / f"{name}.png", *values, shape=(9, 9))
    data = planar(tmp_path)
    assert data.labels == {"label_3": 3, "label_15": 15, "label_255": 255}
    assert any("255 beside other values (a.png)" in note and "borders" in note for note in data.notes)


def test_a_mask_that_bears_the_name_of_a_picture_is_of_that_picture(tmp_path: Path) -> None:
    for name in ("a", "a_seg", "b"):
        picture(tmp_path / "images" / f"{name}.png")
    for name in ("a_seg", "b_seg"):
        picture(tmp_path / "masks" / f"{name}.png", 1)
    found = {case.case: case.label and case.label.name for case in planar(tmp_path).cases}
    assert found == {"a": None, "a_seg": "a_seg.png", "b": "b_seg.png"}
    picture(tmp_path / "masks" / "a.png", 1)
    found = {case.case: case.label and case.label.name for case in planar(tmp_path).cases}
    assert found == {"a": "a.png", "a_seg": "a_seg.png", "b": "b_seg.png"}


def test_a_folder_among_masks_that_belongs_to_no_picture_is_named_and_left_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "images" / f"{name}.png")
        picture(tmp_path / "masks" / f"{name}.png", 1)
    picture(tmp_path / "masks" / "preview" / "x.png", 255)
    data = planar(tmp_path)
    assert data.labels == {"foreground": 1} and not data.merged
    assert [case.case for case in data.cases] == ["a", "b"]
    assert any("Images in masks/preview/ were not imported" in note for note in data.notes)


def test_an_empty_folder_of_instances_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "images" / f"{name}.png")
    picture(tmp_path / "masks" / "a" / "1.png", 255)
    (tmp_path / "masks" / "b").mkdir()
    data = planar(tmp_path)
    assert list(data.merged) == ["a"]
    assert any("masks/b: this folder holds no mask, so b.png counts as not labelled" in note for note in data.notes)


def test_values_are_classes_and_many_have_to_be_told(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png", shape=(9, 9))
    picture(tmp_path / "masks" / "a.png", 1, 2, 7, shape=(9, 9))
    data = planar(tmp_path)
    assert data.labels == {"label_1": 1, "label_2": 2, "label_7": 7}
    assert any("--masks instances" in note for note in data.notes)
    picture(tmp_path / "masks" / "a.png", *range(1, 40), shape=(9, 9))
    with pytest.raises(
        InputError, match=r"39 different values \(1, 2, 3, 4, 5 and 34 more\).*--masks instances .*--masks classes"
    ):
        planar(tmp_path)
    assert len(planar(tmp_path, masks="classes").labels) == 39
    data = planar(tmp_path, masks="instances")
    assert (data.labels, data.instances) == ({"foreground": 255}, True)
    (tmp_path / "masks").rename(tmp_path / "instance_labels")
    data = planar(tmp_path)
    assert (data.labels, data.instances) == ({"foreground": 255}, True)
    assert any("By the name instance_labels/" in note for note in data.notes)
    with pytest.raises(ConfigError, match="'decathlon' does not take this option"):
        import_data(tmp_path, "decathlon", ImportOptions(masks="instances"))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 0.5])
def test_a_mask_with_what_is_no_whole_number_is_told(tmp_path: Path, odd: float) -> None:
    from PIL import Image

    picture(tmp_path / "images" / "a.png", shape=(9, 9))
    mask = np.zeros((9, 9), np.float32)
    mask[2, 3], mask[4, 5] = 7, odd
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.tif")
    data = planar(tmp_path)
    assert data.labels == {"label_7": 7}
    assert f"a.tif: the values [{odd}] are no whole numbers from 1 to 65535 and were not declared." in data.notes


def test_one_file_an_instance_becomes_one_mask(tmp_path: Path) -> None:
    root = tmp_path / "data"
    picture(root / "images" / "a.png", shape=(6, 4))
    picture(root / "masks" / "a" / "n1.png", 255, shape=(6, 4))
    picture(root / "masks" / "a" / "n2.png", 0, 0, 9, shape=(6, 4))
    picture(root / "images" / "b.png", shape=(6, 4))
    data = planar(root)
    assert data.merged == {"a": [root / "masks" / "a" / "n1.png", root / "masks" / "a" / "n2.png"]}
    assert "2 files with one instance each are merged to 1 mask of one class." in data.notes
    assert "Images without a mask (1): b." in data.notes
    done = import_folder(root, tmp_path / "work")
    first, second = read_cases(done.cases)
    assert second.label is None
    assert first.label == tmp_path / "work" / "merged_masks" / "a.png"
    assert read_volume(first.label).array[0].T.ravel()[:4].tolist() == [255, 0, 255, 0]
    assert load_config(done.config).labels == {"foreground": 255}
    picture(root / "masks" / "a" / "n3.png", 1, shape=(6, 5))
    with pytest.raises(GeometryError, match=r"n3\.png: .*\(6, 5\) pixels, but n1\.png beside it has \(6, 4\)"):
        import_folder(root, tmp_path / "again")
    assert list((tmp_path / "again").iterdir()) == []


def test_merged_masks_replace_no_file_of_the_data(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "images" / f"{name}.png", shape=(6, 4))
        picture(tmp_path / "masks" / name / "n1.png", 255, shape=(6, 4))
    own = picture(tmp_path / "labels" / "a.png", 7, shape=(6, 4))
    before = own.read_bytes()
    import_folder(tmp_path, tmp_path)
    assert own.read_bytes() == before
    (tmp_path / "cases.csv").unlink()
    (tmp_path / "neoseg.toml").unlink()
    with pytest.raises(InputError, match=r"merged_masks exist; give --overwrite"):
        import_folder(tmp_path, tmp_path)
    done = import_folder(tmp_path, tmp_path, overwrite=True)  # what an import wrote is no input of the next
    assert [c.label for c in read_cases(done.cases)] == [tmp_path / "merged_masks" / f"{n}.png" for n in ("a", "b")]


def test_a_mask_and_a_folder_of_masks_for_one_picture_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "masks" / "a.png", 255)
    picture(tmp_path / "masks" / "a" / "n1.png", 255)
    with pytest.raises(InputError, match=r"masks: a\.png and a/ are all masks of a\.png; keep one\."):
        planar(tmp_path)


def test_endings_of_masks_do_not_mind_capital_letters(tmp_path: Path) -> None:
    for name in ("p0", "p1", "A_SEG", "A"):
        picture(tmp_path / "images" / f"{name}.png")
    picture(tmp_path / "masks" / "p0_Mask.png", 255)
    picture(tmp_path / "masks" / "p1_MASKS" / "1.png", 255)
    picture(tmp_path / "masks" / "A_SEG.png", 255)
    data = planar(tmp_path)
    assert {c.case: c.label.name for c in data.cases if c.label} == {"p0": "p0_Mask.png", "A_SEG": "A_SEG.png"}
    assert list(data.merged) == ["p1"]


def test_files_of_other_kinds_are_told(tmp_path: Path) -> None:
    for name in ("images/p1.png", "images/j.gif", "images/l.WebP", "masks/p1.png", "masks/j.gif", "masks/p3/a.gif"):
        picture(tmp_path / name)
    told = "(images/j.gif, images/l.WebP, masks/j.gif, masks/p3/a.gif); convert them to PNG."
    assert any(
        note.startswith("4 files of kinds") and note.endswith(told) for note in planar(tmp_path, masks="classes").notes
    )
    (tmp_path / "images" / "p1.png").unlink()
    for attempt in (lambda: guess_layout(tmp_path), lambda: planar(tmp_path)):
        with pytest.raises(InputError, match=r"4 files of kinds .*j\.gif.*convert them to PNG\.$"):
            attempt()


def test_an_instance_of_another_kind_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "p3.png")
    picture(tmp_path / "masks" / "p3" / "a.gif")
    picture(tmp_path / "masks" / "p3" / "b.png", 255)
    with pytest.raises(InputError, match=r"p3/a\.gif: this file lies among masks of one instance each.*to PNG\."):
        planar(tmp_path)


def test_pictures_of_a_camera_are_imported_and_masks_in_its_format_refused(tmp_path: Path) -> None:
    for name in ("images/p1.jpg", "images/p2.JPEG", "images/p3.bmp"):
        picture(tmp_path / name)
    for name in ("masks/p1.png", "masks/p2_segmentation.bmp", "masks/p3.tif"):
        picture(tmp_path / name, 255)
    assert guess_layout(tmp_path)[0] == "planar_folders"
    data = planar(tmp_path)
    assert [(c.case, c.images["grey"].name, c.label and c.label.name) for c in data.cases] == [
        ("p1", "p1.jpg", "p1.png"),
        ("p2", "p2.JPEG", "p2_segmentation.bmp"),
        ("p3", "p3.bmp", "p3.tif"),
    ]
    assert data.labels == {"foreground": 255}
    (tmp_path / "masks" / "p1.png").rename(tmp_path / "masks" / "p1.jpg")
    with pytest.raises(InputError, match=r"masks: 1 of 3 masks are JPEG \(p1\.jpg\), .*save them as PNG"):
        planar(tmp_path)


def test_an_instance_in_jpeg_is_refused_when_it_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "p3.png")
    picture(tmp_path / "masks" / "p3" / "a.jpg", 255)
    with pytest.raises(InputError, match=r"a\.jpg: a JPEG does not keep the numbers"):
        import_folder(tmp_path, tmp_path / "work")


def test_volumes_of_other_kinds_and_pictures_as_labels_of_volumes_are_told(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.mha")
    for name in ("b.hdr", "b.img", "c.mgz", "a.jpg"):
        (tmp_path / "images" / name).write_bytes(b"x")
    picture(tmp_path / "labels" / "a.png", 1)
    notes = import_data(tmp_path, "folders").notes
    told = "3 files of kinds that are not read here were left out (images/b.hdr, images/c.mgz, labels/a.png); convert"
    assert any(note.startswith(told) and note.endswith("NIfTI.") for note in notes)
    label(tmp_path / "labels" / "a.nrrd", 1)  # then the pictures are previews
    assert any("(images/b.hdr, images/c.mgz)" in note for note in import_data(tmp_path, "folders").notes)


def test_folders_beside_the_chosen_ones_are_named(tmp_path: Path) -> None:
    for part in ("", "train", "val", "valid", "images"):
        picture(tmp_path / part / "images" / f"x{part}.png")
        picture(tmp_path / part / "masks" / f"x{part}.png", 255)
    (tmp_path / "docs").mkdir()
    told = "Images in images/images/, images/masks/, train/, val/, valid/ were not imported; move those"
    assert any(note.startswith(told) for note in planar(tmp_path).notes)
    volumes = tmp_path / "volumes"
    for name in ("images/a", "imagesVal/b", "test/images/c"):
        image(volumes / f"{name}.nii.gz")
    told = "Images in imagesVal/, test/ were not imported; move those"
    assert any(note.startswith(told) for note in import_data(volumes, "folders").notes)


def test_images_beside_folders_of_channels_are_refused(tmp_path: Path) -> None:
    for name in ("t1/a", "t2/a", "stray"):
        image(tmp_path / "images" / f"{name}.nii.gz")
    with pytest.raises(InputError, match=r"images: images \(stray\.nii\.gz\) lie beside folders of images \(t1, t2\)"):
        import_data(tmp_path, "folders")


def test_names_that_no_case_may_have_are_changed_and_told(tmp_path: Path) -> None:
    for name in ("img (1)", "img _1_", "a,b", "-x", "good"):
        picture(tmp_path / "images" / f"{name}.png")
        picture(tmp_path / "masks" / f"{name}.png", 255)
    picture(tmp_path / "masks" / "x#1" / "n.png", 255)
    picture(tmp_path / "images" / "x#1.png")
    data = planar(tmp_path)
    assert any(
        "Names of cases hold what no name may (4)" in note and "'a,b' is called 'a_b'" in note for note in data.notes
    )
    done = import_folder(tmp_path, tmp_path / "work")
    cases = {c.case: c for c in read_cases(done.cases)}
    assert sorted(cases) == ["_x", "a_b", "good", "img _1_", "img _1__", "x_1"]
    assert all(c.subject == c.case for c in cases.values())
    assert (cases["a_b"].images["grey"].name, cases["a_b"].label.name) == ("a,b.png", "a,b.png")
    assert cases["img _1__"].label.name == "img (1).png"
    assert cases["x_1"].label == tmp_path / "work" / "merged_masks" / "x_1.png"
    subjects = {c.case: c.subject for c in planar(tmp_path, subject_pattern=r"\w(?=.?.?.?$)").cases}
    assert subjects["a_b"] == "a"


def test_accents_in_two_spellings_are_one_name(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "e\u0301t.png")
    picture(tmp_path / "masks" / "\u00e9t_mask.png", 255)
    picture(tmp_path / "images" / "o\u0308.png")
    picture(tmp_path / "masks" / "o\u0308" / "1.png", 255)
    data = planar(tmp_path)
    assert [(c.case, c.label is not None) for c in data.cases] == [("\u00e9t", True), ("\u00f6", False)]
    assert list(data.merged) == ["\u00f6"]
    assert [c.case for c in read_cases(import_folder(tmp_path, tmp_path / "work").cases)] == ["\u00e9t", "\u00f6"]


def test_one_picture_in_colour_makes_all_red_green_and_blue(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "grey.png")
    picture(tmp_path / "images" / "red.png", shape=(*GRID.shape[:2], 3))
    data = planar(tmp_path)
    assert list(data.channels) == ["red", "green", "blue"]
    assert all(case.channel_index == {"red": 0, "green": 1, "blue": 2} for case in data.cases)
    assert any(note.startswith("1 of 2 images are grey;") for note in data.notes)


def test_the_subject_is_what_the_pattern_finds(tmp_path: Path) -> None:
    for name in ("SC-N-02-IM-1", "SC-N-02-IM-2", "SC-HF-I-1-IM-1"):
        picture(tmp_path / "images" / f"{name}.png")
    assert any("--subject-pattern" in note for note in planar(tmp_path).notes)
    data = planar(tmp_path, subject_pattern=r"^(SC-.*)-IM")
    assert [case.subject for case in data.cases] == ["SC-HF-I-1", "SC-N-02", "SC-N-02"]
    assert not any("--subject-pattern" in note for note in data.notes)
    with pytest.raises(ConfigError, match=r"finds no subject in 1 of 3 names \(SC-HF-I-1-IM-1\)"):
        planar(tmp_path, subject_pattern="SC-N-..")
    with pytest.raises(ConfigError, match="no regular expression"):
        planar(tmp_path, subject_pattern="(")


def test_train_and_test_folders_and_what_lacks_a_partner(tmp_path: Path) -> None:
    for part, name in (("train", "a"), ("train", "b"), ("test", "c")):
        picture(tmp_path / part / "images" / f"{name}.png")
        picture(tmp_path / part / "masks" / f"{name}.png", 255)
    (tmp_path / "train" / "masks" / "b.png").rename(tmp_path / "train" / "masks" / "z.png")
    data = planar(tmp_path)
    assert [(c.case, c.split, bool(c.images), bool(c.label)) for c in data.cases] == [
        ("a", "train", True, True),
        ("b", "train", True, False),
        ("c", "test", True, True),
        ("z", "train", False, True),
    ]
    assert {"Images without a mask (1): b.", "Masks without an image (1): z."} <= set(data.notes)


def test_a_dataset_json_beside_pictures_names_their_class(tmp_path: Path) -> None:
    tree_planar_folders(tmp_path)
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "tumour": 255}}', encoding="utf-8")
    assert planar(tmp_path).labels == {"tumour": 255}


def test_pictures_beside_volumes_are_previews(tmp_path: Path) -> None:
    tree_folders(tmp_path)
    picture(tmp_path / "images" / "p1.png")
    assert guess_layout(tmp_path)[0] == "folders"
    assert [case.images["image"].name for case in import_data(tmp_path, "folders").cases] == ["p1.nii.gz", "p2.nii.gz"]


@needs_data
def test_nuclei() -> None:
    root = DATA / "dsb2018_nuclei"
    assert guess_layout(root) == ("planar_folders", "it holds images/ and instance_labels/, 77 pictures")
    data = import_data(root, "planar_folders")
    assert (len(data.cases), data.labels, data.instances) == (77, {"foreground": 255}, True)
    assert list(data.channels) == ["red", "green", "blue"]
    assert any(note.startswith("60 of 77 images are grey;") for note in data.notes)


@needs_data
def test_heart_slices_of_one_patient_are_one_subject() -> None:
    root = DATA / "sunnybrook_lv_2d"
    data = planar(root, subject_pattern=r"^(SC-.*-\d+)-IM")
    assert (len(data.cases), len({case.subject for case in data.cases})) == (526, 30)
    assert data.labels == {"foreground": 255}
    assert list(data.channels) == ["grey"]
    assert data.notes == []


# decathlon


def test_a_4d_image_becomes_channels(tmp_path: Path) -> None:
    tree_decathlon(tmp_path)
    data = import_data(tmp_path, "decathlon")
    assert data.channels == {"t2": "mr", "adc": "adc"}
    assert data.labels == {"PZ": 1, "TZ": 2}
    case = data.cases[0]
    assert case.channel_index == {"t2": 0, "adc": 1}
    assert case.images["t2"] == case.images["adc"] == tmp_path / "imagesTr" / "p1.nii.gz"
    t2, adc = (read_volume(case.images[c], volume_index=case.channel_index[c]).array for c in ("t2", "adc"))
    np.testing.assert_array_equal(adc, t2 + 1)
    assert data.notes == ["Test images without a label (1) were left out; predict them with `neoseg predict`."]


@pytest.mark.parametrize(("modalities", "volumes"), [(1, 2), (2, 1), (3, 2)])
def test_another_number_of_modalities_is_refused(tmp_path: Path, modalities: int, volumes: int) -> None:
    tree_decathlon(tmp_path)
    described = json.loads((tmp_path / "dataset.json").read_text(encoding="utf-8"))
    described["modality"] = {str(i): "MRI" for i in range(modalities)}
    (tmp_path / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    image(tmp_path / "imagesTr" / "p1.nii.gz", channels=volumes)
    with pytest.raises(InputError, match=rf"p1\.nii\.gz: .* {volumes} volumes, but .* {modalities} modalities"):
        import_data(tmp_path, "decathlon")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"modality": {}}, '"modality" must name'),
        ({"modality": "MRI"}, '"modality" must name'),
        ({"labels": None}, '"labels" must give'),
        ({"labels": {"0": "background"}}, "only the background"),
        ({"labels": {"background": 0, "tumour": [1, 2]}}, "one whole number"),
        ({"training": []}, '"training" must list'),
        ({"labels": {"background": 0, "t": 1.5}}, "one whole number"),
        ({"labels": {"background": 0, "t": True}}, "one whole number"),
        ({"training": ["a.nii.gz"]}, "an entry must be"),
        ({"training": [{"image": "imagesTr/p1.nii.gz", "label": 5}]}, "an entry must be"),
        ({"training": [{"image": "imagesTr/p1.nii.gz", "label": ["a"]}]}, "an entry must be"),
        ({"test": 5}, '"test" must list images'),
        ({"test": {"a": 1}}, '"test" must list images'),
    ],
)
def test_bad_dataset_json(tmp_path: Path, change: dict[str, object], told: str) -> None:
    tree_decathlon(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(InputError, match=told):
        import_data(tmp_path, "decathlon")
    path.write_text("{'a': 1}", encoding="utf-8")
    with pytest.raises(InputError, match="not readable JSON"):
        import_data(tmp_path, "decathlon")


def test_no_test_images_may_be_written_as_null(tmp_path: Path) -> None:
    tree_decathlon(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"test": None}), encoding="utf-8")
    data = import_data(tmp_path, "decathlon")
    assert len(data.cases) == 2 and data.notes == []


def test_an_unreadable_image_is_left_to_the_checks(tmp_path: Path) -> None:
    tree_decathlon(tmp_path)
    (tmp_path / "imagesTr" / "p1.nii.gz").write_bytes(b"text")
    data = import_data(tmp_path, "decathlon")
    assert len(data.cases) == 2
    assert any("p1.nii.gz" in note for note in data.notes)


def test_one_modality_and_labels_written_the_other_way(tmp_path: Path) -> None:
    image(tmp_path / "imagesTr" / "a.nii.gz")
    (tmp_path / "labelsTr").mkdir()
    label(tmp_path / "labelsTr" / "a.nii.gz", 1)
    entry = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
    described = {"modality": ["CT"], "labels": {"background": 0, "spleen": 1}, "training": [entry], "test": [entry]}
    (tmp_path / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    data = import_data(tmp_path, "decathlon")
    assert data.channels == {"ct": "ct"}
    assert data.cases[0].channel_index == {}
    assert [case.split for case in data.cases] == ["train", "test"]


# BONBID-HIE


def test_bonbid_splits_subjects_sites_and_units(tmp_path: Path) -> None:
    tree_bonbid(tmp_path)
    image(tmp_path / "BONBID2023_Train" / "1ADC_ss" / "MGHNICU_010-VISIT_02-ADC_ss.mha", 1.3)
    image(tmp_path / "BONBID2023_Train" / "2Z_ADC" / "Zmap_MGHNICU_010-VISIT_02-ADC_smooth2mm_clipped10.mha", 1)
    image(tmp_path / "healthy" / "1ADC_ss" / "CONTROL_003-VISIT_01-ADC_ss.mha", 0.0013)
    data = import_data(tmp_path, "bonbid")
    assert [(c.case, c.subject, c.site, c.group, c.split, c.units.get("adc")) for c in data.cases] == [
        ("MGHNICU_062-VISIT_01", "MGHNICU_062", "MGHNICU", "patient", "test", "1e-6 mm2/s"),
        ("MGHNICU_010-VISIT_01", "MGHNICU_010", "MGHNICU", "patient", "train", "1e-6 mm2/s"),
        ("MGHNICU_010-VISIT_02", "MGHNICU_010", "MGHNICU", "patient", "train", "1e-3 mm2/s"),
        ("MGHNICU_014-VISIT_01", "MGHNICU_014", "MGHNICU", "patient", "train", "1e-6 mm2/s"),
        ("MGHNICU_028-VISIT_01", "MGHNICU_028", "MGHNICU", "patient", "train", "1e-6 mm2/s"),
        ("CONTROL_003-VISIT_01", "CONTROL_003", "", "healthy", "train", "mm2/s"),
    ]
    assert data.channels == {"adc": "adc", "zadc": "z"}
    assert data.labels == {"lesion": 1}
    assert data.cases[2].label is None  # for the checks to name
    assert data.cases[0].label == tmp_path / "BONBID2023_Test" / "3LABEL" / "MGHNICU_062-VISIT_01_lesion.mha"
    assert data.cases[0].units["zadc"] == "z"
    assert any("BONBID2023_Val/ join the training cases" in note for note in data.notes)


def test_bonbid_names_in_the_wild(tmp_path: Path) -> None:
    """Other cases of letters, 2ZMAP, one sub-folder a site, no Z maps, one split folder given."""
    root = tmp_path / "bonbid2023_train"
    for site, number in (("MGH", "MGHNICU_001"), ("BCH", "BCHNICU_002")):
        image(root / "1adc_SS" / site / f"{number}-VISIT_01-ADC_ss.mha")
        image(root / "2ZMAP" / site / f"Zmap_{number}-VISIT_01-ADC_smooth2mm_clipped10.mha")
        (root / "3Label").mkdir(exist_ok=True)
        label(root / "3Label" / f"{number}-VISIT_01_lesion.mha", 1)
    data = import_data(root, "bonbid")
    assert [(case.site, set(case.images), case.label is not None) for case in data.cases] == [
        ("BCHNICU", {"adc", "zadc"}, True),
        ("MGHNICU", {"adc", "zadc"}, True),
    ]
    assert guess_layout(root)[0] == "bonbid"


def test_bonbid_without_z_or_test_labels(tmp_path: Path) -> None:
    tree_bonbid(tmp_path)
    (tmp_path / "BONBID2023_Train/2Z_ADC/Zmap_MGHNICU_014-VISIT_01-ADC_smooth2mm_clipped10.mha").unlink()
    (tmp_path / "BONBID2023_Test/3LABEL/MGHNICU_062-VISIT_01_lesion.mha").unlink()
    data = import_data(tmp_path, "bonbid")
    assert data.channels == {"adc": "adc"}
    assert all(set(case.images) == {"adc"} and "zadc" not in case.units for case in data.cases)
    assert {case.split for case in data.cases} == {"train"}
    assert any("No Z map of 1 patient (MGHNICU_014-VISIT_01)" in note for note in data.notes)
    assert any("BONBID2023_Test/ has no labels" in note for note in data.notes)


def test_bonbid_two_files_of_one_case(tmp_path: Path) -> None:
    tree_bonbid(tmp_path)
    image(tmp_path / "BONBID2023_Train" / "1ADC_ss" / "MGHNICU_010-VISIT_01_ADC.mha")
    with pytest.raises(InputError, match="belongs to the same case MGHNICU_010-VISIT_01"):
        import_data(tmp_path, "bonbid")


@pytest.mark.parametrize(("folder", "split"), [("bonbid_latest", "train"), ("BONBID2023_Test", "test")])
def test_the_split_is_a_word_of_the_folder_s_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, split: str
) -> None:
    name = "MGHNICU_010-VISIT_01"
    image(tmp_path / folder / "1ADC_ss" / f"{name}-ADC_ss.mha", 1350)
    label(tmp_path / folder / "3LABEL" / f"{name}_lesion.mha", 1)
    monkeypatch.chdir(tmp_path / folder)
    data = import_data(Path(), "bonbid")
    assert [case.split for case in data.cases] == [split]
    assert any("holds test cases" in note for note in data.notes) == (split == "test")


@pytest.mark.parametrize(("one", "wanted"), [(255, {"label_1": [1, 255]}), (2, {"label_1": 1, "label_2": 2})])
def test_one_class_that_is_1_here_and_255_there_is_one(tmp_path: Path, one: int, wanted: dict[str, object]) -> None:
    for name, value in (("a", 1), ("b", one), ("c", 1)):
        mask = np.zeros((6, 6, 6), np.uint8)
        mask[2:4, 2:4, 2:4] = value
        for folder, array in (("images", mask + 3.0), ("labels", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / folder / f"{name}.nii.gz")
    found = import_data(tmp_path, "folders")
    assert found.labels == wanted
    assert any("1 and others 255" in note for note in found.notes) == (one == 255)


def test_labels_of_other_names_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / "images" / f"{name}.nii.gz")
        label(tmp_path / "labels" / f"truth_{name}.nii.gz", 1)
    with pytest.raises(InputError, match=r"images a, b, labels truth_a, truth_b; rename the labels"):
        import_folder(tmp_path, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_folders_of_patients_are_not_taken_for_channels(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        for channel in ("t1", "t2"):
            image(tmp_path / "images" / name / f"{channel}.nii.gz")
        label(tmp_path / "labels" / f"{name}.nii.gz", 1)
    with pytest.raises(InputError, match=r"images t1, t2, labels p1, p2\. The folders among the images were taken"):
        import_folder(tmp_path, tmp_path / "work")


@pytest.mark.parametrize(("images", "own"), [("imagesTr", "labelsTr"), ("images", "labels")])
def test_images_have_the_labels_of_their_convention(tmp_path: Path, images: str, own: str) -> None:
    image(tmp_path / images / "a.nii.gz")
    for folder in ("labels", "labelsTr"):
        label(tmp_path / folder / "a.nii.gz", 1)
    data = import_data(tmp_path, "folders")
    assert [c.label and c.label.parent.name for c in data.cases] == [own]
    assert any("were not imported" in note for note in data.notes)


def test_files_that_dataset_json_does_not_list_are_told(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        image(tmp_path / "imagesTr" / f"{name}.nii.gz")
        label(tmp_path / "labelsTr" / f"{name}.nii.gz", 1)
    listed = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("a", "b")]
    described = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "x"}, "training": listed}
    (tmp_path / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    told = "2 files that dataset.json does not list left out: imagesTr/c.nii.gz, labelsTr/c.nii.gz."
    assert told in import_data(tmp_path, "decathlon").notes


def test_arrays_packed_files_and_dicom_without_an_ending_are_told(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.nii.gz")
    for name in ("b.npy", "c.nii.bz2", "readme", "notes.txt"):
        (tmp_path / "images" / name).write_bytes(b"x" * 200)
    (tmp_path / "images" / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(20))
    told = "3 files of kinds that are not read here were left out (images/IM0001, images/b.npy, images/c.nii.bz2)"
    assert any(note.startswith(told) for note in import_data(tmp_path, "folders").notes)


def test_an_import_without_a_label_says_that_nothing_can_be_trained(
    tmp_path: Path, neoseg: Callable[..., Done]
) -> None:
    image(tmp_path / "data" / "images" / "p1.nii.gz")
    done = neoseg("import", str(tmp_path / "data"), "--workspace", str(tmp_path / "work"))
    assert done.code == 0 and "Nothing can be trained: no label was found." in done.out
    assert "Next: neoseg run" not in done.out


def test_a_recipe_for_pictures_is_doubted_for_volumes(tmp_path: Path) -> None:
    image(tmp_path / "data" / "images" / "p1.nii.gz")
    (tmp_path / "data" / "labels").mkdir()
    label(tmp_path / "data" / "labels" / "p1.nii.gz", 1)
    doubted = {"planar": True, "microscopy": True, "hippocampus": False, None: False}
    for number, (recipe, told) in enumerate(doubted.items()):
        done = import_folder(tmp_path / "data", tmp_path / f"w{number}", recipe=recipe)
        assert any("is for pictures, and these are volumes" in note for note in done.data.notes) is told
