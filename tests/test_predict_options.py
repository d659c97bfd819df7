"""Prediction of new scans with uncertainty, within a memory limit, one after the other, in one process or in more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from assembled_run import with_one_fold
from neoseg.errors import ConfigError
from neoseg.inference.configs import bytes_of
from neoseg.io import read_volume
from neoseg.pipeline.load_run import load_predictor
from neoseg.pipeline.new_scans import PredictOptions, predict_scans
from neoseg.progress import Silent

pytestmark = pytest.mark.slow

STREAM = """
import sys
from contextlib import contextmanager
from pathlib import Path
from neoseg.inference.memory import resident_bytes
from neoseg.pipeline.new_scans import predict_scans

class Watching:
    def say(self, text): pass
    @contextmanager
    def track(self, title, total):
        yield lambda count=1, name="": print(resident_bytes(), flush=True)

run, source, output = map(Path, sys.argv[1:4])
found = predict_scans(run, source, output, device="cpu", progress=Watching())
assert not any(scan.error for scan in found), found
"""

LIMITED = """
import sys
from pathlib import Path
from neoseg.inference.scratch import Scratch
from neoseg.machine import peak_bytes
from neoseg.pipeline.new_scans import PredictOptions, predict_scans
from neoseg.progress import Silent

on_disk, array = [], Scratch.array
Scratch.array = lambda self, *a: on_disk.append(self.folder is not None) or array(self, *a)
run, source, output = map(Path, sys.argv[1:4])
options = PredictOptions(uncertainty=True, max_memory=sys.argv[4] or None)
found = predict_scans(run, source, output, device="cpu", probabilities=True, options=options, progress=Silent())
assert not any(scan.error for scan in found), found
print(peak_bytes(), all(on_disk), len(on_disk))
"""

DAEMON = """
import multiprocessing, sys
from pathlib import Path

def work(run, source, output):
    from neoseg.pipeline.new_scans import predict_scans
    from neoseg.progress import Silent
    (found,) = predict_scans(run, source, output, device="cpu", progress=Silent())
    print(multiprocessing.current_process().daemon, found.case, found.error, flush=True)

process = multiprocessing.get_context("fork").Process(target=work, args=tuple(map(Path, sys.argv[1:4])), daemon=True)
process.start()
process.join(200)
sys.exit(process.exitcode)
"""


def script(text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )


def written(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(nib.load(path).dataobj) for path in sorted(folder.glob("*.nii.gz"))}


@pytest.fixture(scope="module")
def scan(blob_run: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of the scans."""
    folder = tmp_path_factory.mktemp("scan")
    shutil.copy(blob_run[1] / "images" / "scan1.nii.gz", folder / "scan1.nii.gz")
    return folder


def test_uncertainty_comes_as_maps_and_as_a_range_of_volumes(
    blob_run: tuple[Path, Path], scan: Path, tmp_path: Path
) -> None:
    run = blob_run[0]
    options = PredictOptions(uncertainty=True)
    (found,) = predict_scans(run, scan, tmp_path, device="cpu", probabilities=True, options=options, progress=Silent())
    maps, source = written(tmp_path), nib.load(scan / "scan1.nii.gz")
    ends = {"", "_probability_label_1", "_entropy", "_spread"}
    assert set(maps) == {f"scan1{end}.nii.gz" for end in ends}
    for name in ends - {""}:
        file = nib.load(tmp_path / f"scan1{name}.nii.gz")
        assert file.get_data_dtype() == np.float32 and file.shape == source.shape
        assert np.array_equal(file.affine, source.affine)
    p = maps["scan1_probability_label_1.nii.gz"].astype(np.float64)
    inside = p > 0
    share = np.clip(p, 1e-30, 1 - 1e-7)
    wanted = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    np.testing.assert_allclose(maps["scan1_entropy.nii.gz"][inside], wanted[inside], atol=2e-4)
    # each fold by itself, through a run that has no other
    each = []
    for index in (0, 1):
        alone = with_one_fold(run, tmp_path / f"alone{index}", index)
        predictor, channels = load_predictor(alone, "cpu")
        each.append(predictor.predict(read_volume(scan / "scan1.nii.gz"), channels))
    both = [one.probabilities.array[0] for one in each]
    np.testing.assert_allclose(maps["scan1_spread.nii.gz"], np.std(both, axis=0, ddof=1), atol=1e-5)
    np.testing.assert_allclose(p, np.mean(both, axis=0), atol=1e-5)
    volumes = sorted(float((one.label.array > 0).sum()) * 1.2 / 1000 for one in each)
    assert found.ranges_ml["label_1"] == pytest.approx(tuple(volumes), rel=1e-5)
    assert volumes[0] < volumes[1]


def test_one_fold_has_no_spread_and_says_so(blob_run: tuple[Path, Path], scan: Path, tmp_path: Path) -> None:
    run = with_one_fold(blob_run[0], tmp_path / "run", 0)
    (found,) = predict_scans(run, scan, tmp_path / "out", options=PredictOptions(uncertainty=True), progress=Silent())
    assert set(written(tmp_path / "out")) == {"scan1.nii.gz", "scan1_entropy.nii.gz"}
    assert not found.ranges_ml and any("One fold predicts" in warning for warning in found.warnings)


def test_a_limit_on_the_memory_is_kept_and_changes_nothing(blob_run: tuple[Path, Path], tmp_path: Path) -> None:
    """A volume of 160^3 voxels with something in two corners: its probabilities and maps alone take 150 MB."""
    generator = np.random.default_rng(0)
    values = np.zeros((160, 160, 160), dtype=np.float32)
    for corner in (np.s_[2:26, 2:26, 2:26], np.s_[-26:-2, -26:-2, -26:-2]):
        values[corner] = generator.normal(120, 20, (24, 24, 24))
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 1.2, 1.0])), tmp_path / "in" / "large.nii.gz")
    peaks = {}
    for limit in ("", "700M"):
        done = script(LIMITED, blob_run[0], tmp_path / "in", tmp_path / f"out{limit}", limit)
        assert done.returncode == 0, done.stderr
        peak, on_disk, arrays = done.stdout.split()
        assert (on_disk, arrays) == (str(bool(limit)), "4")
        peaks[limit] = int(peak)
    assert peaks["700M"] <= bytes_of("700M")
    free, held = written(tmp_path / "out"), written(tmp_path / "out700M")
    assert set(free) == set(held) and len(free) == 4
    for name, values in free.items():
        np.testing.assert_allclose(held[name], values, atol=1e-5, err_msg=name)
    assert held["large_probability_label_1.nii.gz"].any()


@pytest.mark.parametrize("way", ["option", "configuration"])
def test_what_cannot_be_kept_is_refused_before_the_start(
    blob_run: tuple[Path, Path], scan: Path, tmp_path: Path, way: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(blob_run[0], run)
    if way == "configuration":
        config = json.loads((run / "config.json").read_text())
        config["window"]["max_memory"] = "60M"
        (run / "config.json").write_text(json.dumps(config))
    options = PredictOptions(max_memory="60M" if way == "option" else None)
    with pytest.raises(ConfigError, match=r"scan1 needs about \d\.\dG .* allow \d\.\dG or more"):
        predict_scans(run, scan, tmp_path / "out", options=options, progress=Silent())
    assert not (tmp_path / "out").exists()


def test_a_stage_within_a_limit_gives_the_same_and_refuses_too(
    blob_run: tuple[Path, Path], blob_changes: tuple[str, ...], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(blob_run[0].parents[1], work)
    config = work / "neoseg.toml"
    probabilities = sorted((work / "runs" / "default" / "probabilities").rglob("*.npy"))
    before = {path: np.load(path) for path in probabilities}
    for path in probabilities:
        path.unlink()
    (work / "runs" / "default" / "stages" / "predict.json").unlink()
    changes = [a for change in blob_changes for a in ("--set", change)]
    command = [sys.executable, "-m", "neoseg", "predict", str(config), *changes]
    done = subprocess.run([*command, "--max-memory", "60M"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2 and "needs about" in done.stderr and "Traceback" not in done.stderr
    done = subprocess.run([*command, "--max-memory", "900M"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for path, values in before.items():
        np.testing.assert_allclose(np.load(path), values, atol=1e-3)


def test_thirty_scans_in_one_process_leave_the_memory_flat(blob_run: tuple[Path, Path], tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    image = nib.load(blob_run[1] / "images" / "scan0.nii.gz")
    values = image.get_fdata(dtype=np.float32)
    for number in range(30):
        rolled = np.roll(values, number % 5, axis=0)
        nib.save(nib.Nifti1Image(rolled, image.affine), source / f"scan{number:02d}.nii.gz")
    done = script(STREAM, blob_run[0], source, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    resident = [int(line) for line in done.stdout.split()]
    assert len(resident) == 30 == len(list((tmp_path / "out").glob("*.nii.gz")))
    assert max(resident[5:]) - resident[4] < 16 * 2**20


def test_it_works_in_a_daemonic_process_which_may_have_no_children(
    blob_run: tuple[Path, Path], scan: Path, tmp_path: Path
) -> None:
    done = script(DAEMON, blob_run[0], scan, tmp_path)
    assert (done.returncode, done.stdout.split()) == (0, ["True", "scan1", "None"]), done.stderr
    assert (tmp_path / "scan1.nii.gz").is_file()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="a small /dev/shm can be mounted by root only")
def test_it_works_with_64_mb_of_shared_memory(blob_run: tuple[Path, Path], scan: Path, tmp_path: Path) -> None:
    inner = f"mount -t tmpfs -o size=64m tmpfs /dev/shm && exec {sys.executable} -m neoseg predict {blob_run[0]} "
    inner += f"--input {scan} --output {tmp_path} --jobs 0 --device cpu"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inner], capture_output=True, text=True, timeout=300, check=False
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"this machine lets nothing be mounted: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "scan1.nii.gz").is_file()


def test_processes_that_prepare_ahead_change_nothing(blob_run: tuple[Path, Path], tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(4):
        shutil.copy(blob_run[1] / "images" / f"scan{number}.nii.gz", source)
    (source / "bad.nii.gz").write_text("not an image")
    found = {}
    for jobs in (0, 2):
        options = PredictOptions(jobs=jobs)
        scans = predict_scans(
            blob_run[0], source, tmp_path / f"out{jobs}", device="cpu", options=options, progress=Silent()
        )
        found[jobs] = {scan.case: (scan.error, scan.volumes_ml) for scan in scans}
    assert found[0] == found[2] and found[0]["bad"][0] is not None
    alone, ahead = written(tmp_path / "out0"), written(tmp_path / "out2")
    assert len(alone) == 4
    for name, values in alone.items():
        np.testing.assert_array_equal(ahead[name], values)
