"""Template space with heads: registration, a whole run, new scans; small analytic brains with a ball as lesion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from neoseg.config import config_from, load_config
from neoseg.data.cases import Case, read_cases, write_cases
from neoseg.data.loading import LoadedImages
from neoseg.data.store import CaseStore
from neoseg.errors import ConfigError, InputError
from neoseg.io import read_grid, read_volume, write_volume
from neoseg.metrics import dice
from neoseg.metrics.overlap import count_voxels
from neoseg.pipeline.load_run import load_predictor
from neoseg.pipeline.new_scans import predict_scans
from neoseg.pipeline.prepared import PreparedCase, transform_arrays
from neoseg.pipeline.run import run, run_stage
from neoseg.pipeline.session import open_session
from neoseg.plan.intensity import ChannelStatistics
from neoseg.prepare.case import physical_maps, prepared_array
from neoseg.prepare.configs import PrepareConfig, PrepareSettings, reference_channel
from neoseg.prepare.standardise import Template, register_to
from neoseg.progress import Silent
from neoseg.register.configs import AffineConfig, FfdConfig
from neoseg.register.transforms import Affine, grid_points, to_arrays
from neoseg.volume import Grid, Volume, same_grid

AXES_MM = np.array([42.0, 54.0, 38.0])


def anatomy(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """ADC and brain at points (mm) of the mean head: two unlike ventricles, a cortex, a texture."""
    radius = np.linalg.norm(points / AXES_MM, axis=1)
    adc = 1150 + 150 * np.cos(points @ [0.09, 0.05, 0.07]) + 350 / (1 + np.exp(-(radius - 0.85) * 30))
    for centre, size in (([12, 4, 6], [6, 16, 7]), ([-11, 0, 4], [5, 20, 6])):
        adc += 900 / (1 + np.exp(6 * (np.linalg.norm((points - centre) / size, axis=1) - 1)))
    return adc, radius < 1


def small_head(seed: int, *, lesion: bool = True, moved: bool = True) -> tuple[Volume, Volume, Affine]:
    """Image, label and the map from the head's world to the mean head's; 2.5 mm voxels in slices of 5 mm."""
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    if moved:
        turn = Rotation.from_rotvec(rng.normal(0, 0.08, 3)).as_matrix()
        matrix[:3, :3] = turn @ np.diag(rng.uniform(0.93, 1.07, 3))
        matrix[:3, 3] = rng.normal(0, 3, 3)
    affine = np.diag([2.5, 2.5, 5.0, 1.0])
    affine[:3, 3] = [-56, -66, -50]
    grid = Grid((46, 54, 21), affine)
    points = Affine(matrix).points(grid_points(grid))
    adc, brain = anatomy(points)
    label = np.zeros(len(points), dtype=bool)
    if lesion:
        centre = rng.uniform(-0.4, 0.4, 3) * AXES_MM
        label = brain & (np.linalg.norm(points - centre, axis=1) < rng.uniform(11, 15))
    image = np.where(brain, np.where(label, 0.5, 1.0) * adc * rng.normal(1, 0.02, len(adc)), 0)
    return (
        Volume(image.reshape(1, *grid.shape).astype(np.float32), grid),
        Volume(label.reshape(1, *grid.shape).astype(np.uint8), grid),
        Affine(matrix),
    )


def write_heads(folder: Path, *, patients: int, held_out: int, healthy: int) -> None:
    """Write ``cases.csv`` with images and labels, ``template.nii.gz`` and ``neoseg.toml``."""
    groups = ["train"] * patients + ["test"] * held_out + ["healthy"] * healthy
    cases = []
    for number, group in enumerate(groups):
        image, label, _ = small_head(number, lesion=group != "healthy")
        path = folder / "images" / f"head{number}.nii.gz"
        write_volume(image, path)
        truth = None
        if group != "healthy":
            truth = folder / "labels" / f"head{number}.nii.gz"
            write_volume(label, truth)
        cases.append(
            Case(
                case=f"head{number}",
                subject=f"head{number}",
                images={"adc": path},
                label=truth,
                group="healthy" if group == "healthy" else "patient",
                split="test" if group == "test" else "train",
                units={"adc": "1e-6 mm2/s"},
            )
        )
    write_cases(cases, folder / "cases.csv")
    write_volume(small_head(99, lesion=False, moved=False)[0], folder / "template.nii.gz")
    (folder / "neoseg.toml").write_text(CONFIG)


CONFIG = """
name = "small"
template = "template.nii.gz"

[labels]
lesion = 1

[folds]
count = 2

[prepare]
space = "template"

[prepare.affine]
levels_mm = [6.0]
turn_degrees = 0.0

[prepare.ffd]
grid_mm = [30.0]
image_mm = [5.0]
iterations = 8

[plan]
spacing_mm = [3.0, 3.0, 5.0]

[network]
dims = [8, 16, 32]
depths = [1, 1, 1]
proj = [16, 16, 16]
decoder_proj = 16
feature_size = 8

[training]
steps = 60
steps_per_epoch = 30
batch_size = 2
learning_rate = 3e-3

[evaluate]
resamples = 200
"""

FAST = PrepareConfig(
    space="template",
    affine=AffineConfig(levels_mm=(6.0,), turn_degrees=0),
    ffd=FfdConfig(grid_mm=(30.0,), image_mm=(5.0,), iterations=8),
)
SETTINGS = PrepareSettings(
    channels=("adc",),
    spacing_mm=(3.0, 3.0, 5.0),
    rules={"adc": "dataset"},
    statistics={"adc": ChannelStatistics(mean=1250, sd=200)},
)


def template() -> Template:
    """The mean head."""
    image = small_head(99, lesion=False, moved=False)[0]
    return Template(image, image.array[0] > 0)


def overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return dice(count_voxels(first, second, (1.0,) * first.ndim))


@pytest.mark.parametrize(("steps", "limit_mm"), [("none", 14.0), ("affine", 3.0), ("ffd", 3.0)])
def test_each_step_can_be_left_out(steps: str, limit_mm: float) -> None:
    image, _, truth = small_head(4, lesion=False)
    mask = image.array[0] > 0
    off = {"none": {"affine": False, "ffd": False}, "affine": {"ffd": False}, "ffd": {}}[steps]
    config = PrepareConfig.model_validate({**FAST.model_dump(), **off})
    found = register_to(template(), image, mask, config)
    places = image.grid.to_world(np.argwhere(mask))
    # The mean head is the template itself: its world is the template's.
    error = np.linalg.norm(found.transform.points(places) - truth.points(places), axis=1).mean()
    assert error < limit_mm
    assert ("affine_similarity" in found.facts) == (steps != "none")
    assert ("smallest_jacobian" in found.facts) == (steps == "ffd")
    if steps == "none":
        assert np.array_equal(
            found.transform.points(np.eye(3)) - np.eye(3), np.tile(found.affine.matrix[:3, 3], (3, 1))
        )


def test_a_case_is_brought_to_the_template_and_the_way_is_kept(tmp_path: Path) -> None:
    image, label, truth = small_head(2)
    goal = template()
    loaded = LoadedImages(image, ("adc",), ())
    physical = physical_maps(loaded, FAST, None, want=("adc",), template=goal)
    prepared = prepared_array(physical, FAST, SETTINGS, label, template=goal)
    assert prepared.image.shape == (1, *goal.grid(SETTINGS.spacing_mm).shape) == (1, *prepared.label.shape)
    assert prepared.warnings == ()
    # The lesion lies where the truth says, within a voxel.
    where = prepared.space.grid.to_world(np.argwhere(prepared.label)).mean(axis=0)
    wanted = truth.points(image.grid.to_world(np.argwhere(label.array[0]))).mean(axis=0)
    assert np.linalg.norm(where - wanted) < 3
    native = physical.image.grid
    record = {
        "native": {"shape": native.shape, "affine": native.affine.tolist()},
        "box": {"start": [0, 0, 0], "shape": native.shape},
        "prepared": {
            "space": "template",
            "shape": prepared.space.grid.shape,
            "affine": prepared.space.grid.affine.tolist(),
        },
        "transform": sorted(to_arrays(prepared.transform)),
    }
    store = CaseStore(tmp_path)
    store.write("c", "k", {"image": prepared.image, **transform_arrays(prepared.transform)}, record)
    again = PreparedCase(store, "c").space
    assert np.array_equal(again.points, prepared.space.points)
    assert np.array_equal(again.grid.affine, prepared.space.grid.affine)


def test_what_is_missing_is_said() -> None:
    loaded = LoadedImages(small_head(8)[0], ("adc",), ())
    with pytest.raises(InputError, match="there is no template"):
        physical_maps(loaded, FAST, None, want=("adc",))
    other = FAST.model_copy(update={"reference": "t2"})
    with pytest.raises(InputError, match="'t2' is registered"):
        physical_maps(loaded, other, None, want=("adc",), template=template())
    with pytest.raises(ConfigError, match="template"):
        config_from({"labels": {"lesion": 1}, "prepare": {"space": "templte"}}, "here")


def test_the_registered_channel() -> None:
    plain = PrepareConfig()
    assert reference_channel(plain, ("t2", "adc")) == "adc"
    assert reference_channel(plain, ("zadc", "t2")) == "t2"
    assert reference_channel(plain, ("zadc",)) == "adc"
    assert reference_channel(PrepareConfig.model_validate({"zmap": {}}), ("t2", "zadc")) == "adc"
    assert reference_channel(PrepareConfig(reference="t2"), ("adc", "t2")) == "t2"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a finished run in template space; head3 cannot be registered."""
    root = tmp_path_factory.mktemp("space")
    write_heads(root, patients=7, held_out=2, healthy=0)
    path = root / "images" / "head3.nii.gz"
    broken = read_volume(path)
    kept = np.zeros(broken.grid.shape, dtype=bool)
    kept[22:25, 26:29, 9:12] = True
    write_volume(broken.with_array(broken.array * kept), path)
    run(load_config(root / "neoseg.toml"))
    return root


@pytest.fixture
def moved(finished: Path, tmp_path: Path) -> Path:
    """The run folder alone, somewhere else."""
    return Path(shutil.copytree(finished / "runs" / "small", tmp_path / "elsewhere"))


@pytest.mark.slow
def test_the_network_works_in_the_template_and_masks_lie_on_the_scans(finished: Path) -> None:
    folder = finished / "runs" / "small"
    cases = {c.case: c for c in read_cases(finished / "cases.csv")}
    plan = json.loads((folder / "plan.json").read_text())
    shape = Template.read(finished / "template.nii.gz").grid(tuple(plan["spacing_mm"])).shape
    assert all(p >= n for p, n in zip(plan["patch"], shape, strict=True))
    assert plan["reasons"][0]["what"] == "space"
    store = CaseStore(next((finished / "prepared").iterdir()))
    for split, names in (("cv", "012456"), ("held_out", "78")):
        for name in (f"head{n}" for n in names):
            prepared = PreparedCase(store, name)
            assert prepared.image.shape == (1, *shape)
            assert prepared.space.transform is not None
            assert prepared.record["prepared"]["space"] == "template"
            mask = read_volume(folder / "predictions" / split / f"{name}.nii.gz")
            assert same_grid(mask.grid, read_grid(cases[name].images["adc"]), 1e-6)
            assert set(np.unique(mask.array)) <= {0, 1}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["cv"]["dice"]["mean"] > 0.6
    assert summary["held_out"]["dice"]["mean"] > 0.6
    # Scores are those of the written masks on the scans' own grids.
    mask = read_volume(folder / "predictions" / "held_out" / "head7.nii.gz").array[0] > 0
    scored = [r for r in (folder / "scores.csv").read_text().splitlines() if ",head7,lesion,dice," in r]
    assert float(scored[0].split(",")[5]) == pytest.approx(
        overlap(mask, read_volume(cases["head7"].label).array[0] > 0)
    )


@pytest.mark.slow
def test_one_case_that_cannot_be_registered_does_not_lose_the_others(finished: Path) -> None:
    folder = finished / "runs" / "small"
    failed = json.loads((folder / "summary.json").read_text())["failed"]
    assert list(failed) == ["head3"]
    assert "registration needs 64 or more" in failed["head3"]
    assert "head3" in (folder / "report.html").read_text()
    assert not list(folder.rglob("head3*"))


@pytest.mark.slow
def test_a_copied_run_brings_new_scans_to_its_template(finished: Path, moved: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("head7", "head8", "head3"):
        shutil.copy(finished / "images" / f"{name}.nii.gz", tmp_path / "in")
    found = predict_scans(moved, tmp_path / "in", tmp_path / "out", device="cpu", progress=Silent())
    assert {f.case: f.error is None for f in found} == {"head3": False, "head7": True, "head8": True}
    for name in ("head7", "head8"):
        mine = read_volume(tmp_path / "out" / f"{name}.nii.gz")
        theirs = read_volume(finished / "runs" / "small" / "predictions" / "held_out" / f"{name}.nii.gz")
        assert theirs.array.any()
        assert overlap(mine.array[0] > 0, theirs.array[0] > 0) >= 0.999
        assert same_grid(mine.grid, theirs.grid, 1e-6)
    (moved / "template" / "template.npz").unlink()
    with pytest.raises(InputError, match="template cannot be read"):
        load_predictor(moved, "cpu")


@pytest.mark.slow
def test_one_scan_stored_otherwise_gives_the_same_mask_in_the_world(
    finished: Path, moved: Path, tmp_path: Path
) -> None:
    source = nib.load(finished / "images" / "head7.nii.gz")
    image, affine = source.get_fdata(dtype=np.float32), source.affine
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec([0.2, -0.1, 0.4]).as_matrix()
    turn[:3, 3] = [12, -30, 8]
    las = affine @ np.array([[-1, 0, 0, image.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    permuted = affine @ np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    (tmp_path / "in").mkdir()
    for name, array, where in (
        ("plain", image, affine),
        ("las", image[::-1], las),
        ("permuted", np.transpose(image, (1, 2, 0)), permuted),
        ("oblique", image, turn @ affine),
    ):
        nib.save(nib.Nifti1Image(np.ascontiguousarray(array), where), tmp_path / "in" / f"{name}.nii.gz")
    found = predict_scans(moved, tmp_path / "in", tmp_path / "out", device="cpu", progress=Silent())
    assert [f.error for f in found] == [None] * 4
    plain = read_volume(tmp_path / "out" / "plain.nii.gz")
    assert np.count_nonzero(plain.array) > 30
    places = plain.grid.to_world(np.argwhere(plain.array[0] > 0))
    for name, change in (("las", np.eye(4)), ("permuted", np.eye(4)), ("oblique", turn)):
        other = read_volume(tmp_path / "out" / f"{name}.nii.gz")
        index = np.rint(other.grid.to_index(Affine(change).points(places))).astype(int)
        again = np.zeros(other.grid.shape, dtype=bool)
        again[tuple(index.T)] = True
        assert overlap(again, other.array[0] > 0) >= 0.999, name


@pytest.mark.slow
def test_the_atlas_of_the_healthy_group_is_the_template_and_gives_the_z_map(tmp_path: Path) -> None:
    write_heads(tmp_path, patients=4, held_out=0, healthy=5)
    changes = ["prepare.zmap={}", "atlas.rounds=0", "atlas.spacing_mm=4.0", "training.steps=4", "plan.patch=[40,48,20]"]
    changes += ["atlas.affine.levels_mm=[6.0]", "atlas.affine.turn_degrees=0.0", "training.steps_per_epoch=4"]
    text = (tmp_path / "neoseg.toml").read_text().replace('template = "template.nii.gz"\n', "")
    (tmp_path / "neoseg.toml").write_text(text)
    run(load_config(tmp_path / "neoseg.toml", changes))
    folder = tmp_path / "runs" / "small"
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["channels"] == ["adc", "zadc"]
    healthy = {c.case for c in read_cases(tmp_path / "cases.csv") if c.group == "healthy"}
    assert set(json.loads((folder / "atlas" / "atlas.json").read_text())["provenance"]["cases"]) == healthy
    predictor, channels = load_predictor(folder, "cpu")
    assert channels == ("adc",)
    assert predictor.template is not None
    assert np.array_equal(predictor.template.image.array, predictor.atlas.mean.array)
    store = CaseStore(next((tmp_path / "prepared").iterdir()))
    grid = predictor.template.grid(tuple(plan["spacing_mm"]))
    for number in range(4):
        case = PreparedCase(store, f"head{number}")
        assert case.image.shape == (2, *grid.shape)
        # A lesion of half the normal ADC is far below normal, in the template too.
        assert np.median(case.image[1][case.label > 0]) < -2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["template=nowhere.nii.gz"], "no such file or folder"),
        (["prepare.zmap={}"], "folder of an atlas"),
        (["template=images"], "no atlas lies here"),
    ],
)
def test_templates_that_cannot_be_used_are_told(tmp_path: Path, changes: list[str], words: str) -> None:
    write_heads(tmp_path, patients=4, held_out=0, healthy=0)
    session = open_session(load_config(tmp_path / "neoseg.toml", changes))
    with pytest.raises(InputError, match=words):
        run_stage(session, "plan")
        run_stage(session, "prepare")


def test_template_space_without_a_healthy_group_is_told(tmp_path: Path) -> None:
    write_heads(tmp_path, patients=4, held_out=0, healthy=0)
    text = (tmp_path / "neoseg.toml").read_text().replace('template = "template.nii.gz"\n', "")
    (tmp_path / "neoseg.toml").write_text(text)
    with pytest.raises(InputError, match="group = healthy"):
        run_stage(open_session(load_config(tmp_path / "neoseg.toml")), "plan")


@pytest.mark.slow
def test_a_scan_that_lies_unlike_the_training_scans_is_not_passed_on_in_silence(finished: Path, moved: Path) -> None:
    predictor, channels = load_predictor(moved, "cpu")
    assert len(predictor.cohort) == 6
    scan = read_volume(finished / "images" / "head7.nii.gz")
    assert predictor.predict(scan, channels).warnings == ()
    turned = scan.with_array(np.ascontiguousarray(scan.array[:, ::-1, ::-1]))
    assert any("turned the head by" in w for w in predictor.predict(turned, channels).warnings)
    stage = json.loads((finished / "runs" / "small" / "stages" / "prepare.json").read_text())
    assert [w for w in stage["warnings"] if "registration" in w["text"]] == []
