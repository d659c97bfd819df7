"""An atlas from files and from the command line: what is found, converted, listed, refused and taken up again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from neoseg.atlas import files
from neoseg.atlas.configs import AtlasConfig
from neoseg.atlas.files import HealthyScans, build_atlas_from_files, healthy_scans, made_with, work_folder
from neoseg.cli.app import app
from neoseg.errors import ConfigError, InputError, MachineError
from neoseg.io import write_volume
from neoseg.prepare.atlas import Atlas
from neoseg.prepare.bias_field import BiasFieldConfig
from neoseg.register.configs import AffineConfig, FfdConfig
from neoseg.register.transforms import grid_points
from neoseg.volume import Grid, Volume

TOY = AtlasConfig(
    spacing_mm=5.0,
    margin_mm=6.0,
    rounds=1,
    smooth_mm=6.0,
    affine=AffineConfig(levels_mm=(8.0,), turn_degrees=0, iterations=8),
    ffd=FfdConfig(grid_mm=(30.0,), image_mm=(8.0,), iterations=3),
)


def toy_head(seed: int) -> tuple[Volume, Volume]:
    """An ellipsoid with a ventricle and noise on a grid that is stored flipped, and its halves: 1 left, 2 right."""
    rng = np.random.default_rng(seed)
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = [-46, -54, -45]
    grid = Grid((20, 23, 19), affine)
    size = np.array([36, 44, 34]) * (1 + rng.normal(0, 0.03, 3))
    place = (grid_points(grid) - rng.normal(0, 2, 3)) / size
    inside = np.linalg.norm(place, axis=1) < 1
    fluid = np.linalg.norm((place - [0, 0.1, 0.05]) / [0.5, 0.3, 0.25], axis=1) < 1
    adc = np.where(fluid, 2400, 1200 + 200 * place[:, 1]) + rng.normal(0, 60, len(place))
    image, labels = (np.where(inside, a, 0).reshape(1, *grid.shape) for a in (adc, np.where(place[:, 0] > 0, 2, 1)))
    return Volume(image.astype(np.float32), grid), Volume(labels.astype(np.uint8), grid)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six heads in two formats and two units, one file that is no image, and labels of five of them."""
    for i in range(6):
        image, labels = toy_head(i)
        if i == 2:
            image = image.with_array(image.array / np.float32(1000))
        write_volume(image, tmp_path / "scans" / (f"head{i}.nii.gz" if i % 2 else f"head{i}.mha"))
        if i != 4:
            write_volume(labels, tmp_path / "labels" / f"head{i}.nii.gz")
    (tmp_path / "scans" / "notes.txt").write_text("not an image")
    return tmp_path


def test_files_become_an_atlas_with_its_provenance(folder: Path) -> None:
    (folder / "scans" / "broken.nii.gz").write_bytes(b"not a nifti")
    image, _ = toy_head(9)
    write_volume(image.with_array(image.array / np.float32(30)), folder / "scans" / "odd.mha")
    scans = healthy_scans([folder / "scans"], regions=folder / "labels")
    assert list(scans.images) == ["broken", "head0", "head1", "head2", "head3", "head4", "head5", "odd"]
    build_atlas_from_files(scans, folder / "atlas", TOY)
    atlas = Atlas.load(folder / "atlas")
    assert not work_folder(folder / "atlas").exists()
    assert atlas.count == 6
    # one file is in 1e-3 mm2/s; not converted, it would pull the mean down by a sixth
    assert 1200 < atlas.mean.array[0][atlas.inside].mean() < 1450
    assert set(atlas.provenance["failed"]) == {"broken", "odd"}
    assert "no known unit" in atlas.provenance["failed"]["odd"]
    assert any("head4" in s and "no region labels" in s for s in atlas.warnings)
    assert atlas.regions is not None
    place = grid_points(atlas.grid).reshape(*atlas.regions.grid.shape, 3)
    assert place[atlas.regions.array[0] == 2][:, 0].mean() > 5
    assert place[atlas.regions.array[0] == 1][:, 0].mean() < -5
    assert len(atlas.provenance["files"]["head0"]["sha256"][0]) == 64
    assert atlas.provenance["bias_field"] is None
    assert atlas.provenance["config"]["spacing_mm"] == 5


def test_the_same_call_again_does_nothing_and_another_one_asks_first(folder: Path) -> None:
    scans = healthy_scans(sorted((folder / "scans").glob("head*")))
    done: list[int] = []

    def each(function: Any, items: Sequence[Any]) -> list[Any]:
        done.append(len(items))
        return [function(item) for item in items]

    build_atlas_from_files(scans, folder / "atlas", TOY, run_each=each)
    assert done
    done.clear()
    again = build_atlas_from_files(scans, folder / "atlas", TOY, run_each=each)
    assert not done
    assert again.provenance["key"] == made_with(folder / "atlas")
    other = TOY.model_copy(update={"smooth_mm": 8.0})
    with pytest.raises(InputError, match="another atlas lies here"):
        build_atlas_from_files(scans, folder / "atlas", other)
    build_atlas_from_files(scans, folder / "atlas", other, overwrite=True)
    assert made_with(folder / "atlas") != again.provenance["key"]


def test_a_stopped_call_leaves_work_beside_the_folder_and_no_atlas(folder: Path) -> None:
    scans = healthy_scans([folder / "scans"])

    def stopped(function: Any, items: Sequence[Any]) -> list[Any]:
        results = [function(item) for item in items]
        if len(list(work_folder(folder / "atlas").glob("*.npz"))) > len(items):
            raise KeyboardInterrupt
        return results

    with pytest.raises(KeyboardInterrupt):
        build_atlas_from_files(scans, folder / "atlas", TOY, run_each=stopped)
    assert not (folder / "atlas").exists()
    assert len(list((folder / "atlas.work").glob("*.npz"))) == 12
    build_atlas_from_files(scans, folder / "atlas", TOY)
    assert not (folder / "atlas.work").exists()


def test_what_cannot_be_an_atlas_has_words(folder: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        healthy_scans([folder / "nowhere"])
    with pytest.raises(InputError, match="no image of a known format"):
        healthy_scans([folder / "scans" / "notes.txt"])
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="no image lies here"):
        healthy_scans([folder / "empty"])
    with pytest.raises(InputError, match="no label here has the name"):
        healthy_scans([folder / "scans"], regions=folder / "empty")
    with pytest.raises(InputError, match="has the same name"):
        healthy_scans([folder / "scans", folder / "labels"])
    four = healthy_scans(sorted((folder / "scans").glob("head[0-3]*")))
    with pytest.raises(InputError, match="4 of 4 healthy scans can be used, but an atlas needs 5"):
        build_atlas_from_files(four, folder / "atlas", TOY)


def test_the_command_builds_lists_and_takes_its_settings_from_a_configuration(folder: Path) -> None:
    (folder / "scans" / "broken.nii.gz").write_bytes(b"not a nifti")
    settings = f"""
        jobs = 2
        [labels]
        lesion = 1
        [atlas]
        spacing_mm = 5.0
        margin_mm = 6.0
        rounds = 0
        [atlas.affine]
        levels_mm = [8.0]
        turn_degrees = 0
        iterations = {TOY.affine.iterations}
    """
    (folder / "neoseg.toml").write_text(settings)
    call = ["atlas", "build", str(folder / "scans"), "--output", str(folder / "atlas"), "--quiet", "--json"]
    call += ["--config", str(folder / "neoseg.toml"), "--set", "atlas.smooth_mm=6"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["heads"] == 6
    assert list(told["failed"]) == ["broken"]
    atlas = Atlas.load(folder / "atlas")
    assert atlas.provenance["config"]["rounds"] == 0
    assert atlas.provenance["config"]["smooth_mm"] == 6
    assert atlas.calibration is not None
    assert atlas.calibration.heads == 6
    missing = CliRunner().invoke(app, [*call[:3], "-o", str(folder / "b"), "--set", "atlas.rounds=0"])
    assert "--config" in str(missing.exception)


@pytest.mark.parametrize(
    ("setting", "options", "wanted"),
    [
        ("", ["--n4"], BiasFieldConfig(method="n4")),
        ("", [], "none"),
        ("[prepare.bias_field]", [], BiasFieldConfig()),
        ('[prepare.bias_field]\nmethod = "n4"\nlevels = 3', [], BiasFieldConfig(method="n4", levels=3)),
        ('[prepare.bias_field]\nmethod = "n4"\nlevels = 3', ["--n4"], BiasFieldConfig(method="n4", levels=3)),
        ("[prepare]\nbias_field = false", ["--n4"], BiasFieldConfig(method="n4")),
        ("[prepare.bias_field]", ["--n4"], "pairs"),
        ('[prepare.bias_field]\nmethod = "pairs"\nlevels = 3', ["--n4"], "pairs"),
    ],
)
def test_n4_on_the_command_line_and_in_the_configuration_are_one(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    options: list[str],
    wanted: BiasFieldConfig | str | None,
) -> None:
    asked: list[BiasFieldConfig | None] = []

    def build(scans: HealthyScans, *_: Any, **__: Any) -> Atlas:
        asked.append(scans.bias_field)
        raise InputError("seen")

    monkeypatch.setattr(files, "build_atlas_from_files", build)
    (folder / "neoseg.toml").write_text(f"[labels]\nlesion = 1\n{setting}\n")
    call = ["atlas", "build", str(folder / "scans"), "-o", str(folder / "atlas"), *options]
    done = CliRunner().invoke(app, [*call, "--config", str(folder / "neoseg.toml")])
    if wanted == "none":
        assert asked == [None]
    elif isinstance(wanted, str):
        assert isinstance(done.exception, ConfigError)
        told = str(done.exception)
        assert f'prepare.bias_field.method = "{wanted}"' in told and "--n4" in told and "neoseg.toml" in told
        assert not asked
    else:
        assert asked == [wanted]


@pytest.mark.parametrize(
    ("fields", "unit"),
    [
        ({}, "1e-6 mm2/s"),
        ({"channel": "adc_b1000", "unit": "1e-6 mm2/s"}, "1e-6 mm2/s"),
        ({"channel": "t2"}, "as stored"),
        ({"channel": "t2", "unit": "ms"}, "ms"),
        ({"unit": "1e-3 mm2/s"}, None),
        ({"channel": "ADC", "unit": "um2/s"}, None),
    ],
)
def test_the_unit_of_adc_is_the_one_that_it_is_converted_to(fields: dict[str, str], unit: str | None) -> None:
    if unit is None:
        with pytest.raises(ValueError, match="ADC is converted to 1e-6 mm2/s when it is read; leave unit out"):
            AtlasConfig.model_validate(fields)
    else:
        config = AtlasConfig.model_validate(fields)
        assert config.unit == unit
        assert AtlasConfig.model_validate(config.model_dump(mode="json")) == config


def test_the_folder_of_the_command_can_be_that_of_the_atlas(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    assert work_folder(Path()) == work_folder(folder / "here") == (folder / "here.work").resolve()
    assert work_folder(Path("..")) == folder.resolve().with_name(f"{folder.name}.work")
    config = TOY.model_copy(update={"rounds": 0, "channel": "t2", "unit": "ms"})
    build_atlas_from_files(healthy_scans([folder / "scans"]), Path(), config)
    atlas = Atlas.load(folder / "here")
    assert (atlas.channel, atlas.unit) == ("t2", "ms")
    assert not (folder / "here.work").exists()


def small_atlas(value: float) -> Atlas:
    grid = Grid.of_spacing((4, 4, 4), (2.0, 2.0, 2.0))
    full = Volume(np.full((1, *grid.shape), value, np.float32), grid)
    return Atlas(full, full, full.with_array(np.ones_like(full.array, np.uint8)), count=5, unit="1e-6 mm2/s")


def test_an_atlas_is_never_made_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_atlas(1.0).save(tmp_path)

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(MachineError, match="disk is full"):
        patch.setattr(np, "savez_compressed", full_disk)
        small_atlas(2.0).save(tmp_path)
    assert float(Atlas.load(tmp_path).mean.array.max()) == 1.0

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("neoseg.prepare.atlas.write_json", killed)
        small_atlas(2.0).save(tmp_path)
    assert made_with(tmp_path) is None
    with pytest.raises(InputError, match=r"no atlas lies here \(atlas\.json is missing\)"):
        Atlas.load(tmp_path)
    small_atlas(2.0).save(tmp_path)
    assert float(Atlas.load(tmp_path).mean.array.max()) == 2.0
