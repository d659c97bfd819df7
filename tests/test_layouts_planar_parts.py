"""Where pictures and masks may lie: by patient, a folder a picture, beside each other, as nnU-Net's; and grey edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neoseg.data.layouts import ImportedData, ImportOptions, guess_layout, import_data
from neoseg.data.layouts.planar_folders import matches
from neoseg.data.layouts.planar_masks import has_grey_edges
from neoseg.errors import InputError
from neoseg.pipeline.import_data import import_folder

DISC = (np.hypot(*(np.indices((32, 40)) - np.array([15, 19]).reshape(2, 1, 1))) < 9).astype(np.uint8)


def write(root: Path, *names: str, mask: bool = False) -> None:
    """Write pictures of noise, or masks of a disc."""
    generator = np.random.default_rng(len(names))
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 * DISC if mask else generator.integers(0, 256, DISC.shape).astype(np.uint8)).save(path)


def pairs(data: ImportedData) -> dict[str, tuple[str, str]]:
    """Return case to its subject and the name of its mask."""
    return {case.case: (case.subject, case.label.name if case.label else "") for case in data.cases}


@pytest.mark.parametrize("place", ["", "train"])
@pytest.mark.parametrize("folder", ["masks", "Ground_Truth", "annotations", "gt"])
def test_folders_of_patients_give_subjects(tmp_path: Path, place: str, folder: str) -> None:
    root = tmp_path / place
    for patient in ("ann", "bob"):
        write(root, f"images/{patient}/0.png", f"images/{patient}/1.png")
        write(root, f"{folder}/{patient}/0_mask.png", f"{folder}/{patient}/1_mask.png", mask=True)
    layout, reason = guess_layout(tmp_path)
    assert layout == "planar_folders" and "4 pictures" in reason
    data = import_data(tmp_path, layout)
    assert pairs(data) == {
        "ann_0": ("ann", "0_mask.png"), "ann_1": ("ann", "1_mask.png"),
        "bob_0": ("bob", "0_mask.png"), "bob_1": ("bob", "1_mask.png"),
    }  # fmt: skip
    assert data.labels == {"foreground": 255}
    assert not [note for note in data.notes if "not imported" in note or "--subject-pattern" in note]


def test_a_folder_a_picture_has_one_mask_or_one_file_an_instance(tmp_path: Path) -> None:
    for name in ("n1", "n2"):
        write(tmp_path, f"stage1_train/{name}/images/{name}.png")
        write(tmp_path, f"stage1_train/{name}/masks/whole.png", mask=True)
    layout, _ = guess_layout(tmp_path)
    data = import_data(tmp_path, layout)
    assert pairs(data) == {"n1": ("n1", "whole.png"), "n2": ("n2", "whole.png")} and not data.merged
    write(tmp_path, "stage1_test/t1/images/t1.png", "stage1_test/t2/images/t2.png")
    assert [note for note in import_data(tmp_path, layout).notes if "left out" in note or "imported" in note] == [
        "stage1_test/t1/images/, stage1_test/t2/images/ have no masks and were left out; predict with `neoseg predict`."
    ]
    write(tmp_path, "stage1_train/n1/masks/other.png", mask=True)
    data = import_data(tmp_path, layout)
    assert {name: sorted(file.name for file in files) for name, files in data.merged.items()} == {
        "n1": ["other.png", "whole.png"],
        "n2": ["whole.png"],
    }
    import_folder(tmp_path, tmp_path / "work")
    with Image.open(tmp_path / "work" / "merged_masks" / "n1.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), 255 * DISC)


@pytest.mark.parametrize("place", ["", "images"])
def test_masks_beside_their_pictures(tmp_path: Path, place: str) -> None:
    write(tmp_path / place, "a.png", "b.png", "c.tif")
    write(tmp_path / place, "a_mask.png", "b_Mask.png", mask=True)
    layout, reason = guess_layout(tmp_path)
    assert layout == "planar_folders" and "masks beside them, 3 pictures" in reason
    assert pairs(import_data(tmp_path, layout)) == {"a": ("a", "a_mask.png"), "b": ("b", "b_Mask.png"), "c": ("c", "")}


def test_masks_beside_their_pictures_in_folders_of_patients(tmp_path: Path) -> None:
    for patient in ("TCGA_1", "TCGA_2"):
        write(tmp_path, f"{patient}/{patient}_7.tif")
        write(tmp_path, f"{patient}/{patient}_7_mask.tif", mask=True)
    layout, _ = guess_layout(tmp_path)
    assert pairs(import_data(tmp_path, layout)) == {
        "TCGA_1_7": ("TCGA_1", "TCGA_1_7_mask.tif"),
        "TCGA_2_7": ("TCGA_2", "TCGA_2_7_mask.tif"),
    }


def test_pictures_as_nnunet_has_them(tmp_path: Path) -> None:
    write(tmp_path, "imagesTr/p0_0000.png", "imagesTr/p1_0000.png")
    write(tmp_path, "labelsTr/p0.png", "labelsTr/p1.png", mask=True)
    assert pairs(import_data(tmp_path, "planar_folders")) == {"p0": ("p0", "p0.png"), "p1": ("p1", "p1.png")}


def test_a_number_behind_the_name_is_part_of_it_where_the_masks_have_it(tmp_path: Path) -> None:
    write(tmp_path, "images/p_0000.png", "images/p_0001.png")
    write(tmp_path, "masks/p_0000.png", "masks/p_0001.png", mask=True)
    assert list(pairs(import_data(tmp_path, "planar_folders"))) == ["p_0000", "p_0001"]


def test_names_of_bids_tell_the_subject_and_others_are_asked_about(tmp_path: Path) -> None:
    names = [f"sub-0{s}_ses-{i}.png" for s in range(2) for i in range(2)]
    write(tmp_path, *(f"images/{name}" for name in names))
    write(tmp_path, *(f"masks/{name}" for name in names), mask=True)
    data = import_data(tmp_path, "planar_folders")
    assert sorted({case.subject for case in data.cases}) == ["sub-00", "sub-01"]
    assert not [note for note in data.notes if "--subject-pattern" in note]
    write(tmp_path, *(f"more/{folder}/p1_visit{i}.png" for folder in ("images", "masks") for i in range(2)), mask=True)
    told = [note for note in import_data(tmp_path / "more", "planar_folders").notes if "--subject-pattern" in note]
    assert len(told) == 1 and "p1_visit0 and p1_visit1 look like scans of one person" in told[0]


def test_pictures_none_of_which_has_a_mask_are_told_where_masks_are_looked_for(tmp_path: Path) -> None:
    write(tmp_path, "images/a.png", "images/b.png")
    write(tmp_path, "drawn/a.png", "drawn/b.png", mask=True)
    notes = " ".join(import_data(tmp_path, "planar_folders").notes)
    assert "Images without a mask (2): a, b. Masks are looked for in masks/, labels/" in notes
    assert "Images in drawn/ were not imported" in notes


def test_pictures_get_the_network_that_learns_most_from_them_and_hear_of_the_recipes(tmp_path: Path) -> None:
    write(tmp_path / "data", "images/a.png", "images/b.png")
    write(tmp_path / "data", "masks/a.png", "masks/b.png", mask=True)
    done = import_folder(tmp_path / "data", tmp_path / "work")
    assert 'kind = "unet"' in done.config.read_text(encoding="utf-8")
    assert any("--recipe microscopy" in note and "--recipe planar" in note for note in done.data.notes)
    done = import_folder(tmp_path / "data", tmp_path / "other", recipe="planar")
    assert not any("--recipe" in note for note in done.data.notes)


def smaller(mask: Image.Image) -> Image.Image:
    return mask.resize((20, 16), Image.Resampling.BOX)


def test_grey_edges_are_refused_and_thin_classes_are_not(tmp_path: Path) -> None:
    write(tmp_path, "images/a.png", "images/b.png")
    for name in ("a", "b"):
        path = tmp_path / "masks" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        smaller(Image.fromarray(255 * DISC)).save(path)
    with pytest.raises(InputError, match=r"2 masks \(a.png, b.png\) with grey edges from 0 to 255.* above 127"):
        import_data(tmp_path, "planar_folders")
    data = import_data(tmp_path, "planar_folders", ImportOptions(masks="classes"))
    assert len(data.labels) > 2
    # a mask with a whole area of such a value shows that the values are classes
    area = np.zeros((16, 20), np.uint8)
    area[1:14, 2:16] = 64
    Image.fromarray(area).save(tmp_path / "masks" / "b.png")
    assert "label_64" in import_data(tmp_path, "planar_folders").labels


@pytest.mark.parametrize("method", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
@pytest.mark.parametrize("size", [(20, 16), (60, 48), (37, 29)])
def test_edges_of_a_resized_mask_are_grey(method: Image.Resampling, size: tuple[int, int]) -> None:
    assert has_grey_edges(np.asarray(Image.fromarray(255 * DISC).resize(size, method)).T)


def test_edges_that_are_a_class_areas_and_two_values_are_not_grey_edges() -> None:
    border = 255 * DISC
    border[1:-1, 1:-1][(DISC[1:-1, 1:-1] == 0) & (DISC[2:, 1:-1] == 1)] = 100
    border[1:-1, 1:-1][(DISC[1:-1, 1:-1] == 0) & (DISC[:-2, 1:-1] == 1)] = 50
    assert not has_grey_edges(border)
    areas = 255 * DISC
    areas[:3, :5], areas[-6:, -9:], areas[:5, -4:] = 40, 80, 120
    assert not has_grey_edges(areas)
    assert not has_grey_edges(255 * DISC) and not has_grey_edges(DISC) and not has_grey_edges(0 * DISC)


def volumes(root: Path, *names: str) -> None:
    """Write empty files with the names of volumes, which is all that telling a layout looks at."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.mark.parametrize("place", ["images", "images/adc", "."])
def test_pictures_among_volumes_stay_previews(tmp_path: Path, place: str) -> None:
    volumes(tmp_path, f"{place}/a.nii.gz", f"{place}/b.nii.gz")
    write(tmp_path, "images/qc/a.png", "images/qc/b.png", "docs/images/c.png", "figures/d.png", "figures/d_mask.png")
    assert not matches(tmp_path)


def test_other_folders_do_not_take_the_place_of_the_training_pictures(tmp_path: Path) -> None:
    write(tmp_path, "train/images/a.png", "train/images/b.png", "val/images/v.png", "examples/c.png")
    write(tmp_path, "train/masks/a.png", "train/masks/b.png", "val/masks/v.png", "examples/c_mask.png", mask=True)
    data = import_data(tmp_path, guess_layout(tmp_path)[0])
    assert list(pairs(data)) == ["a", "b"]
    assert any("examples/" in note and "val/" in note and "not imported" in note for note in data.notes)


def test_folders_of_splits_inside_the_images(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write(tmp_path, f"images/{split}/{split}0.png")
        write(tmp_path, f"labels/{split}/{split}0.png", mask=True)
    data = import_data(tmp_path, guess_layout(tmp_path)[0])
    assert {case.case: (case.split, case.subject) for case in data.cases} == {
        "train0": ("train", "train0"),
        "test0": ("test", "test0"),
    }
    assert any("images/val/" in note and "not imported" in note for note in data.notes)


def test_names_of_pictures_that_begin_like_those_of_patients(tmp_path: Path) -> None:
    for patient in ("1", "10"):
        write(tmp_path, *(f"images/{patient}/{i}.png" for i in (1, 10)), f"images/{patient}/{patient}-x.png")
        write(tmp_path, *(f"masks/{patient}/{i}.png" for i in (1, 10)), f"masks/{patient}/{patient}-x.png", mask=True)
    assert {name: subject for name, (subject, _) in pairs(import_data(tmp_path, "planar_folders")).items()} == {
        "1": "1", "1_10": "1", "1-x": "1", "10_1": "10", "10": "10", "10-x": "10",
    }  # fmt: skip


def test_pictures_of_one_name_are_told_with_their_files(tmp_path: Path) -> None:
    write(tmp_path, "train/images/a.png", "test/images/a.png")
    write(tmp_path, "train/masks/a.png", "test/masks/a.png", mask=True)
    with pytest.raises(InputError, match=r"train/images/a\.png and test/images/a\.png have one name each"):
        import_data(tmp_path, "planar_folders")


def test_a_folder_with_images_and_masks_for_each_patient(tmp_path: Path) -> None:
    for name in ("p1/{}/a.png", "p1/{}/b.png", "P2/{}/c.png"):
        write(tmp_path, name.format("images"))
        write(tmp_path, name.format("Masks"), mask=True)
    assert pairs(import_data(tmp_path, guess_layout(tmp_path)[0])) == {
        "p1_a": ("p1", "a.png"), "p1_b": ("p1", "b.png"), "P2_c": ("P2", "c.png"),
    }  # fmt: skip


def test_folders_of_patients_are_paired_whatever_the_case_of_their_names(tmp_path: Path) -> None:
    write(tmp_path, "images/P1/a.png", "images/P2/a.png")
    write(tmp_path, "masks/p1/a.png", "masks/p2/a.png", mask=True)
    assert pairs(import_data(tmp_path, "planar_folders")) == {"P1_a": ("P1", "a.png"), "P2_a": ("P2", "a.png")}


def test_the_folder_around_a_data_set_is_not_one_of_patients(tmp_path: Path) -> None:
    write(tmp_path, "one/images/a.png", "one/images/b.png", "two/c.png")
    write(tmp_path, "one/masks/a.png", "one/masks/b.png", "two/c_mask.png", mask=True)
    assert not matches(tmp_path)
    with pytest.raises(InputError, match="this layout needs a folder images/"):
        import_data(tmp_path, "planar_folders")


def test_one_folder_among_the_images_is_no_patient(tmp_path: Path) -> None:
    write(tmp_path, "images/all/a.png", "images/all/b.png")
    write(tmp_path, "masks/all/a.png", "masks/all/b.png", mask=True)
    assert pairs(import_data(tmp_path, "planar_folders")) == {"a": ("a", "a.png"), "b": ("b", "b.png")}


def test_masks_in_jpeg_are_refused_in_a_folder_of_their_picture(tmp_path: Path) -> None:
    write(tmp_path, "n1/images/n1.png", "n2/images/n2.png")
    write(tmp_path, "n1/masks/n1.jpg", mask=True)
    with pytest.raises(InputError, match="1 of 1 masks are JPEG"):
        import_data(tmp_path, "planar_folders")


def test_nnunet_names_with_a_suffix_of_the_masks(tmp_path: Path) -> None:
    write(tmp_path, "images/p0_0000.png", "images/p1_0000.png")
    write(tmp_path, "masks/p0_mask.png", "masks/p1_mask.png", mask=True)
    assert pairs(import_data(tmp_path, "planar_folders")) == {"p0": ("p0", "p0_mask.png"), "p1": ("p1", "p1_mask.png")}


def test_small_objects_with_borders_of_255_are_classes(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.uint8)
    for value, x in ((1, 6), (2, 24), (3, 42)):
        mask[10:20, x : x + 10] = 255
        mask[12:18, x + 2 : x + 8] = value
    assert not has_grey_edges(mask)
    write(tmp_path, "images/a.png", "images/b.png")
    (tmp_path / "masks").mkdir()
    smaller(Image.fromarray(255 * DISC)).save(tmp_path / "masks" / "a.png")
    faint = np.zeros((16, 20), np.uint8)
    faint[3, 4:6] = 16, 48
    Image.fromarray(faint).save(tmp_path / "masks" / "b.png")
    with pytest.raises(InputError, match=r"1 mask \(a\.png\) with grey edges"):
        import_data(tmp_path, "planar_folders")
