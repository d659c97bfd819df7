from __future__ import annotations

from pathlib import Path

import pytest

from neoseg.data.cases import Case, channels_of, read_cases, write_cases
from neoseg.errors import InputError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cases = [
        Case(
            case="a",
            subject="s1",
            site="MGH",
            images={"adc": tmp_path / "a, adc.mha", "zadc": Path("/elsewhere/a.mha")},
            units={"adc": "1e-6 mm2/s", "zadc": "z"},
            label=tmp_path / "sub" / "a.nii.gz",
        ),
        Case(case="b", subject="b", group="healthy", images={"adc": tmp_path / "bä.nrrd"}),
        Case(
            case="c",
            subject="s3",
            split="test",
            images={"adc": tmp_path / "c.nii", "zadc": tmp_path / "c.nii"},
            channel_index={"adc": 0, "zadc": 1},
        ),
        Case(case="d", subject="d", images={}, label=tmp_path / "d.mha"),
    ]
    write_cases(cases, tmp_path / "cases.csv")
    assert read_cases(tmp_path / "cases.csv") == cases
    assert channels_of(cases) == ("adc", "zadc")
    assert [f.name for f in tmp_path.iterdir()] == ["cases.csv"]
    assert str(tmp_path) not in (tmp_path / "cases.csv").read_text().split("/elsewhere")[0]


def test_a_folder_can_be_moved_with_its_table(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    case = Case(case="a", subject="a", images={"adc": tmp_path / "old" / "a.mha"})
    write_cases([case], tmp_path / "old" / "cases.csv")
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_cases(tmp_path / "new" / "cases.csv")[0].images["adc"] == tmp_path / "new" / "a.mha"


def test_a_small_table_is_enough(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("﻿case,image_t1\n p1 ,x.nii.gz\n", encoding="utf-8")
    (case,) = read_cases(tmp_path / "cases.csv")
    assert (case.case, case.subject, case.split, case.group, case.label) == ("p1", "p1", "train", "patient", None)
    assert case.images == {"t1": tmp_path / "x.nii.gz"}


def test_names_of_columns_may_have_spaces_around_them(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case, image_adc ,unit_adc \na,b.nii,mm2/s\n", encoding="utf-8")
    (case,) = read_cases(tmp_path / "cases.csv")
    assert case.images == {"adc": tmp_path / "b.nii"} and case.units == {"adc": "mm2/s"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("case,label\na,b\n", "at least `case` and one `image_<channel>`"),
        ("name,image_x\na,b\n", "at least `case`"),
        ("case,image_x,labels\na,b,c\n", "'labels' is not known .*'label'"),
        ("case,image_x,split\n\na,b,train\n\nc,d,training\n", "line 5: the split"),
        ("case,image_x,split\na,b,training\n", "line 2: the split 'training' is not known .*'train'"),
        ("case,image_x,group\na,b,control\n", "line 2: the group 'control'"),
        ("case,image_x\n,b\n", "line 2: a row needs a case name"),
        ("case,image_x\na,b,c\n", "at most 2 cells"),
        ("case,image_t1,image_t1\na,b,c\n", "the column 'image_t1' stands 2 times"),
        ("case,image_x,label,label\na,b,c,d\n", "the column 'label' stands 2 times"),
        ("case,image_\na,b\n", "the column 'image_' names no channel; call it image_<channel>"),
        ("case,image_x,unit_\na,b,c\n", "the column 'unit_' names no channel"),
        ("case,image_dwi,unit_DWI\na,b,c\n", "the column 'unit_DWI' has no image_DWI beside it .*'dwi'"),
        ("case,image_x,image_mask\na,b,c\n", "no channel can be called 'mask'"),
        ('case,image_x,site\na,b,"Boston\nb,c,Bern\n', "not a UTF-8 table with commas"),
        (f"case,image_x\na,{'b' * 256}.nii\n", "line 2: 'b{60}'... is no file name: a name may have 255 bytes"),
        (f"case,image_x,label\na,b,{'c/' * 2100}\n", "line 2: .*a path 4095"),
    ],
)
def test_a_bad_table_is_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "cases.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=told) as caught:
        read_cases(path)
    assert str(path) in str(caught.value)


def test_all_unfit_names_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text('case,image_x\nimg (1),b\nok,b\n"a,b",c\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"the case names 'img \(1\)' \(line 2\), 'a,b' \(line 4\) cannot be"):
        read_cases(tmp_path / "cases.csv")


def test_missing_and_binary_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_cases(tmp_path / "cases.csv")
    (tmp_path / "cases.csv").write_bytes(b"\xff\xfe\x00case")
    with pytest.raises(InputError, match="not a UTF-8 table"):
        read_cases(tmp_path / "cases.csv")
