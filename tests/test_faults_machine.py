"""What the machine refuses: full disks, files too large, dead and hanging workers; and what is no fault at all."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fault_scene import (
    CONFIG,
    Done,
    Scene,
    assert_former_results_stay,
    assert_one_sentence,
    contents,
    cut_short,
    edit_json,
    leftovers,
)
from fault_states import well
from faults import State
from neoseg import machine
from neoseg.cluster import local
from neoseg.cluster.local import run_each
from neoseg.errors import MachineError
from neoseg.pipeline.out_of_memory import TrainingStep, require_memory
from neoseg.plan.cost import step_gib
from neoseg.plan.plan import read_plan
from neoseg.progress import Silent

# --- full disks -------------------------------------------------------------------------------------------------------

DISKS: tuple[tuple[str, State, str, int], ...] = (
    ("import", "data", "import {data} --workspace {w}", 0),
    ("the plan", "imported", "plan", 0),
    ("the prepared cases", "prepared", "prepare --set prepare.bias_field={{}}", 60),
    ("a training's first file", "prepared", "train", 0),
    ("a checkpoint", "prepared", "train", 64),
    ("probabilities", "finished", "predict --set window.overlap=0.4", 0),
    ("masks", "finished", "predict --set postprocess.thresholds=[0.2]", 0),
    ("scores", "finished", "evaluate --set evaluate.tolerance_mm=3.0", 0),
    ("the report", "finished", "report", 0),
    ("a mask of a new scan", "finished", "predict {run} -i {images} -o {out}", 0),
    ("scores of any program's masks", "data", "evaluate --truth {labels} --prediction {labels} -o {out}/scores.csv", 0),
    ("a prepared NIfTI", "data", "prepare-volume {images}/scan0.nii.gz {out}/a.nii.gz", 8),
    ("a prepared MHA", "data", "prepare-volume {images}/scan0.nii.gz {out}/a.mha", 8),
    ("a prepared NRRD", "data", "prepare-volume {images}/scan0.nii.gz {out}/a.nrrd", 8),
    ("a prepared MHD", "data", "prepare-volume {images}/scan0.nii.gz {out}/a.mhd", 12),
)
"""What cannot be written, the state before, the command, and KiB that are left on the disk."""


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of 24 MiB in memory."""
    folder = tmp_path_factory.mktemp("disk")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=24m") != 0:
        pytest.skip(f"a small disk cannot be mounted here ({os.strerror(ctypes.get_errno())})")
    try:
        yield folder
    finally:
        assert libc.umount2(os.fsencode(folder), 2) == 0


@pytest.mark.parametrize(("what", "state", "command", "left_kib"), DISKS, ids=[disk[0] for disk in DISKS])
def test_a_full_disk_is_told_and_the_same_command_goes_on_when_there_is_room(
    what: str, state: State, command: str, left_kib: int, states: dict[State, Path], small_disk: Path
) -> None:
    scene = Scene(small_disk / "w")
    shutil.copytree(states[state], scene.root)
    try:
        before = contents(scene.root)
        ballast = small_disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
        os.truncate(ballast, ballast.stat().st_size // 4096 * 4096 - left_kib * 1024)
        done = scene.call(command)
        assert done.code == 1, done.out + done.err
        assert_one_sentence(done, "disk", str(small_disk))
        assert_former_results_stay(before, scene.root, written=("train", "fold0/", "plan.json", "config.json"))
        ballast.unlink()
        well(scene.call(command))
        assert not leftovers(scene.root)
    finally:
        shutil.rmtree(scene.root)
        (small_disk / "ballast").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("state", "command", "most"),
    [
        ("data", "import {data} --workspace {w}", 0),
        ("imported", "plan", 500),
        ("prepared", "train", 2000),
        ("prepared", "train", 20000),
        ("finished", "predict {run} -i {images} -o {out}", 0),
        ("finished", "report", 3000),
        ("data", "prepare-volume {images}/scan0.nii.gz {out}/a.mha", 2000),
        ("data", "prepare-volume {images}/scan0.nii.gz {out}/a.nrrd", 2000),
    ],
)
def test_a_file_that_may_not_become_that_large(
    state: State, command: str, most: int, scene_at: Callable[[State], Scene]
) -> None:
    scene = scene_at(state)
    before = contents(scene.root)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, old[1]))
    try:
        done = scene.call(command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert done.code == 1, done.out + done.err
    assert_one_sentence(done, str(scene.root))
    assert_former_results_stay(before, scene.root, written=("train", "fold0/", "plan.json", "config.json"))
    well(scene.call(command))


def test_a_disk_that_is_too_small_for_the_prepared_cases_is_told_before_the_work(
    scene_at: Callable[[State], Scene],
) -> None:
    scene = scene_at("imported")
    well(scene.call("plan"))
    read = mock.Mock(side_effect=AssertionError("work has begun"))
    free = mock.Mock(free=50_000)
    with mock.patch("shutil.disk_usage", return_value=free), mock.patch("neoseg.pipeline.prepare.load_images", read):
        done = scene.call("prepare")
    assert done.code == 1, done.err
    assert_one_sentence(done, "6 prepared cases", "free")
    assert not (scene.root / "prepared").exists()


def test_the_forecast_of_the_prepared_cases_is_near(states: dict[State, Path]) -> None:
    from neoseg.pipeline.disk_space import prepared_bytes
    from neoseg.plan.fingerprint import read_facts

    root = states["prepared"]
    forecast = prepared_bytes(read_facts(root / "fingerprint.json"), read_plan(root / "plan.json"), 6)
    taken = sum(p.stat().st_size for p in (root / "prepared").rglob("*.npy"))
    assert 0.7 * taken < forecast < 1.3 * taken


# --- what is not an error ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rewritten",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: (text + "\n\n").encode(),
    ],
    ids=["a byte order mark", "line ends of Windows", "empty lines at the end"],
)
def test_tables_as_spreadsheets_write_them(
    rewritten: Callable[[str], bytes], scene_at: Callable[[State], Scene]
) -> None:
    scene = scene_at("imported")
    scene.table.write_bytes(rewritten(scene.table.read_text()))
    well(scene.call("check"))


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(scene_at: Callable[[State], Scene]) -> None:
    scene = scene_at("finished")
    fold = scene.run / "fold0"
    (fold / "finished.json").unlink()
    cut_short(fold / "last" / "optimiser.safetensors")
    done = scene.call("train --loud")
    assert done.code == 0, done.err
    assert "damaged" in done.err and "the one before it, step 2" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("name", ["digests.json", "runs/default/probabilities/cv/scan0.json"])
def test_what_only_saves_time_is_made_again(name: str, scene_at: Callable[[State], Scene]) -> None:
    scene = scene_at("finished")
    (scene.root / name).write_text("[")
    (scene.run / "stages" / "predict.json").unlink()
    well(scene.call("predict"))
    json.loads((scene.root / name).read_text())


def test_other_versions_than_those_of_the_training_are_told(scene_at: Callable[[State], Scene]) -> None:
    scene = scene_at("finished")
    assert "trained with" not in scene.call("predict {run} -i {images} -o {out} --loud").err
    edit_json(scene.run / "environment.json", lambda e: e["packages"].update(torch="1.0.0"))
    done = scene.call("predict {run} -i {images} -o {out} --loud")
    assert done.code == 0, done.err
    assert "trained with torch 1.0.0 (here " in done.err


# --- workers and processes --------------------------------------------------------------------------------------------


def dying(*at: int) -> Callable[[int], int]:
    def work(number: int) -> int:
        import os
        import signal

        if number in at:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    return work


def sleeping(*at: int) -> Callable[[int], int]:
    def work(number: int) -> int:
        import time

        time.sleep(600 if number in at else 0)
        return number

    return work


def failing(*at: int) -> Callable[[int], int]:
    def work(number: int) -> int:
        if number in at:
            raise ZeroDivisionError(f"a defect at {number}")
        return number

    return work


def test_a_worker_that_dies_is_told_and_the_next_work_has_new_ones() -> None:
    with pytest.raises(MachineError, match=r"Preparing: a worker process died at an item or beside it.*`jobs`"):
        run_each(dying(2), range(4), title="Preparing", progress=Silent(), jobs=2)
    assert [o.value for o in run_each(dying(), range(4), title="Preparing", progress=Silent(), jobs=2)] == [0, 1, 2, 3]


def test_a_worker_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "LONGEST_S", 3.0)
    start = time.monotonic()
    with pytest.raises(MachineError, match=r"Preparing: an item gave no answer for 3 s"):
        run_each(sleeping(1), range(3), title="Preparing", progress=Silent(), jobs=2)
    assert time.monotonic() - start < 60


def test_a_defect_in_a_worker_shows_its_own_error() -> None:
    with pytest.raises(ZeroDivisionError, match="a defect at 1"):
        run_each(failing(1), range(3), title="Preparing", progress=Silent(), jobs=2)


@pytest.mark.parametrize("jobs", [0, 2])
def test_a_full_disk_or_no_memory_ends_the_work_and_blames_no_item(jobs: int) -> None:
    def full(number: int) -> int:
        raise MachineError("the disk is full.")

    def short(number: int) -> int:
        raise MemoryError

    for work, words in ((full, "the disk is full"), (short, "not enough memory")):
        with pytest.raises(MachineError, match=words):
            run_each(work, range(3), title="Preparing", progress=Silent(), jobs=jobs)


def test_a_training_that_does_not_fit_is_told_before_it_starts_and_the_named_patch_does(
    scene_at: Callable[[State], Scene],
) -> None:
    scene = scene_at("prepared")
    plan = read_plan(scene.root / "plan.json")
    free = 0.6 * step_gib(plan.network, plan.patch, plan.batch)
    with mock.patch("neoseg.pipeline.out_of_memory.free_memory_gib", return_value=free):
        done = scene.call("train")
        assert done.code == 1, done.out
        assert_one_sentence(done, "memory does not suffice to train on cpu: a step of 2 patches of 16 x 16 x 16 voxels")
        assert "another `name`" not in done.err
        assert not list(scene.run.rglob("training.json")) and not (scene.run / "config.json").exists()
        named = re.search(r"set plan\.patch = (\[.*?\]) and training\.batch_size = (\d+)", done.err)
        assert named is not None, done.err
        changes = f"--set plan.patch={named[1].replace(' ', '')} --set training.batch_size={named[2]}"
        for command in ("plan", "prepare", "train"):
            well(scene.call(f"{command} {changes}"))
    assert (scene.run / "fold1" / "finished.json").is_file()


def test_a_job_that_cannot_be_trained_is_refused_before_its_cases_are_prepared(
    scene_at: Callable[[State], Scene],
) -> None:
    scene = scene_at("imported")
    with mock.patch("neoseg.pipeline.out_of_memory.free_memory_gib", return_value=1e-4):
        done = scene.call("run {w}/neoseg.toml")
    assert done.code == 1, done.out
    assert_one_sentence(done, "memory does not suffice to train on cpu")
    done = scene.call("run {w}/neoseg.toml --set training.patch_scales=[1,1.01]")
    assert done.code == 2, done.out
    assert_one_sentence(done, "training.patch_scales")
    assert (scene.root / "plan.json").is_file() and not (scene.root / "prepared").exists()


def test_a_job_that_is_trained_needs_no_memory_for_it(scene_at: Callable[[State], Scene]) -> None:
    scene = scene_at("finished")
    with mock.patch("neoseg.pipeline.out_of_memory.free_memory_gib", return_value=1e-4):
        well(scene.call("run {w}/neoseg.toml"))


def test_a_training_that_goes_on_is_told_to_take_another_name(scene_at: Callable[[State], Scene]) -> None:
    scene = scene_at("finished")
    (scene.run / "fold0" / "finished.json").unlink()
    (scene.run / "stages" / "train.fold0.json").unlink()
    before = contents(scene.run)
    with mock.patch("neoseg.pipeline.out_of_memory.free_memory_gib", return_value=1e-4):
        done = scene.call("train")
    assert done.code == 1, done.out
    assert_one_sentence(done, "memory does not suffice", "0.0001 GiB are free")
    assert contents(scene.run) == before
    well(scene.call("train"))


def test_folds_side_by_side_share_what_is_free(states: dict[State, Path]) -> None:
    plan = read_plan(states["prepared"] / "plan.json")
    step, two = TrainingStep(plan), ("cuda:0", "cuda:1")

    def told(free: float | None, devices: Sequence[str] = ("cpu",), **how: Any) -> str:
        gib = None if free is None else free * step.gib
        with mock.patch("neoseg.pipeline.out_of_memory._least_free", return_value=gib):
            try:
                require_memory(step, devices, **how)
            except MachineError as error:
                return str(error)
        return ""

    # forecasts may be a quarter too high
    assert not told(None) and not told(0.76) and not told(1.52, beside=2) and not told(0.76, two, beside=2)
    assert "train on cpu: " in told(0.74) and "fold_jobs" not in told(0.74)
    assert "train 3 folds side by side on cpu: " in told(2.0, beside=3)
    assert "set fold_jobs = 2 to train fewer at a time; for all of them, " in told(2.0, beside=3)
    assert "on cuda:0 and cuda:1" in told(1.4, two, beside=4) and "fold_jobs = 2 " in told(1.4, two, beside=4)
    assert "give the run another `name`" in told(0.7, begun=True)
    assert TrainingStep(plan, share=0.5).gib == pytest.approx(step.gib / 2)
    assert TrainingStep(plan, classes=5).gib > step.gib
    heavy = TrainingStep(plan, state_gib=3 * step.gib)
    assert (heavy.gib, heavy.sure_gib) == pytest.approx((4 * step.gib, 3.75 * step.gib))
    assert "not even the smallest patch" in heavy.advice(3 * step.gib, begun=False)
    assert "would take" in heavy.advice(3.6 * step.gib, begun=False)
    assert TrainingStep(plan, patches=((8, 8, 8), (32, 16, 16))).gib == pytest.approx(2 * step.gib)


def test_files_that_the_system_keeps_are_free_memory_of_a_container(tmp_path: Path) -> None:
    texts = {"max": "1000\n", "current": "900\n", "stat": "anon 300\nfile 550\ninactive_file 400\nactive_file 100\n"}
    for name, text in texts.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert machine._group_bytes(tmp_path) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert machine._group_bytes(tmp_path) is None


@pytest.mark.slow
def test_a_training_without_memory_names_a_patch_that_then_fits(scene_at: Callable[[State], Scene]) -> None:
    """A real one: the address space is closed 60 MB above what the program takes."""
    scene = scene_at("imported")
    scene.config.write_text(
        CONFIG.replace("[16, 16, 16]", "[128, 128, 128]").replace("feature_size = 4", "feature_size = 16")
    )
    for command in ("plan", "prepare"):
        well(scene.call(command))
    code = (
        "import resource, sys, torch, safetensors.torch, matplotlib.figure, neoseg.training.loop\n"
        "import neoseg.pipeline.train\n"
        "from neoseg.cli.app import run\n"
        # what is said before the start is not what is tried here
        "neoseg.pipeline.train.require_memory = lambda *_, **__: None\n"
        "torch.set_num_threads(1)\n"
        "size = next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmSize:')) * 1024\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 400 * 2**20,) * 2)\n"
        f"sys.argv = ['neoseg', 'train', '--quiet', '--workspace', {str(scene.root)!r}]\n"
        "sys.exit(run())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    assert_one_sentence(Done(done.returncode, done.stdout, done.stderr), "memory", "set plan.patch = [", "GiB")


def test_a_reader_that_has_seen_enough_ends_the_output_quietly() -> None:
    command = f"{sys.executable} -m neoseg info --json | head -c 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr, done.stderr
