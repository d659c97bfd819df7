import itertools
import json
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from neoseg.augment.augmentation import Augmentation
from neoseg.augment.configs import AugmentConfig
from neoseg.data.patches import PatchSampler
from neoseg.errors import InputError, NeosegError, StateError, Stopped
from neoseg.networks.blocks import short_axes
from neoseg.progress import Silent
from neoseg.report.charts import learning_curves
from neoseg.report.content import Curve
from neoseg.targets import Targets
from neoseg.training import log as log_file
from neoseg.training import loop, time_budget
from neoseg.training.batch import make_batch
from neoseg.training.configs import TrainingConfig
from neoseg.training.data import TrainingCase, TrainingData
from neoseg.training.guard import Guard
from neoseg.training.loader import Loader
from neoseg.training.loop import FoldRun, TrainingResult, train_fold
from neoseg.training.segments import Segment, write_segments
from neoseg.training.step import StepParts, next_batch, train_step

PATCH = (12, 10, 8)
MEASURED = {"seconds", "step_seconds", "wait_seconds", "peak_gib"}
"""What differs between two equal trainings."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Tiny(nn.Module):
    def __init__(self, seed: int = 0, classes: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv3d(1, 6, 3, padding=1)
            self.norm = nn.BatchNorm3d(6)
            self.dropout = nn.Dropout(dropout)
            self.last = nn.Conv3d(6, classes, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.last(self.dropout(torch.relu(self.norm(self.first(x))))),)


def cross_entropy(logits, target):
    return nn.functional.cross_entropy(logits[0], target)


def make_case(name: str, seed: int, *, empty: bool = False) -> TrainingCase:
    generator = np.random.default_rng(seed)
    label = np.zeros((16, 14, 10), dtype=np.uint8)
    if not empty:
        x, y, z = generator.integers(2, 6, 3)
        label[x : x + 6, y : y + 6, z : z + 3] = 1
    image = (label * 2.0 + generator.normal(0, 0.5, label.shape)).astype(np.float32)[None]
    return TrainingCase(name, image, label)


def make_data(**changes) -> TrainingData:
    given = {
        "train": [make_case(f"t{i}", i) for i in range(3)] + [make_case("t3", 3, empty=True)],
        "validation": [make_case("v0", 10), make_case("v1", 11, empty=True)],
        "spacing_mm": (1.0, 1.0, 2.0),
        "targets": Targets.of_classes(2),
        "patch": PATCH,
    }
    return TrainingData(**(given | changes))


CONFIG = TrainingConfig(epochs=3, steps_per_epoch=4, learning_rate=0.01, precision="float32")


def fit(folder: Path, config: TrainingConfig = CONFIG, progress=None, network=None, **changes) -> TrainingResult:
    augmentation = Augmentation(AugmentConfig())
    run = replace(FoldRun(folder, seed=7, augmentation=augmentation), **changes)
    network = network or Tiny()
    return train_fold(network, cross_entropy, data=make_data(), config=config, run=run, progress=progress or Silent())


class StopAfter:
    """A listener that interrupts as a person does, after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    @contextmanager
    def track(self, title: str, total: int) -> Iterator:
        def advance(steps: int, text: str) -> None:
            self.left -= bool(text)
            if self.left <= 0:
                raise KeyboardInterrupt

        yield advance

    def say(self, sentence: str) -> None:
        pass


def log_lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.parent.name}/{file.stem}/{name}": value
        for file in sorted(folder.glob("*/*.safetensors"))
        for name, value in load_file(file).items()
    }


def assert_same_bits(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys() and a
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_resumed_training_ends_with_the_same_bits(tmp_path, optimiser, ema_decay):
    # a checkpoint after every step, so that the interruption falls inside an epoch
    config = CONFIG.model_copy(
        update={"optimiser": optimiser, "ema_decay": ema_decay, "checkpoint_every_seconds": 1e-9}
    )
    whole = fit(tmp_path / "whole", config)
    for steps in (2, 4, 3):
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "parts", config, progress=StopAfter(steps))
    parts = fit(tmp_path / "parts", config)
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    assert replace(whole, seconds=0) == replace(parts, seconds=0)
    logs = [
        [{k: v for k, v in line.items() if k not in MEASURED} for line in log_lines(f)]
        for f in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert logs[0] == logs[1]
    assert [line["epoch"] for line in logs[0]] == [0, 1, 2]
    assert not list((tmp_path / "parts").glob(".*"))


def test_a_training_killed_while_a_checkpoint_is_exchanged_goes_on(tmp_path):
    fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "parts", progress=StopAfter(6))
    folder = tmp_path / "parts"
    (folder / "last").rename(folder / ".last.01234567.old")
    (folder / ".last.01234567.tmp").mkdir()
    fit(folder)
    assert_same_bits(tmp_path / "whole", folder)
    assert not list(folder.glob(".*"))


def test_what_a_training_killed_inside_a_write_left_is_removed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "fold0", CONFIG, progress=StopAfter(2))
    (tmp_path / "fold0" / ".log.e01e398e.tmp.jsonl").write_text("half")
    fit(tmp_path / "fold0", CONFIG)
    assert not list((tmp_path / "fold0").rglob(".*"))


def test_another_seed_gives_other_weights(tmp_path):
    fit(tmp_path / "a")
    fit(tmp_path / "b", seed=8)
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert not torch.equal(a["last/model/first.weight"], b["last/model/first.weight"])


def test_training_leaves_the_global_generator_alone(tmp_path):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    fit(tmp_path)
    assert torch.equal(torch.rand(3), wanted)


def test_a_finished_training_is_returned_at_once(tmp_path):
    network = Tiny()
    result = fit(tmp_path, network=network)
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")}
    again = Tiny(seed=99)
    assert fit(tmp_path, network=again, progress=StopAfter(0)) == result
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")} == before
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_it_learns_and_leaves_what_it_says(tmp_path):
    result = fit(tmp_path, CONFIG.model_copy(update={"epochs": 8, "steps_per_epoch": 8}))
    assert result.best_dice > 0.8
    assert (result.epochs, result.steps, result.stopped_early, result.precision) == (8, 64, False, "float32")
    assert {f.name for f in tmp_path.iterdir()} == {
        "training.json", "last", "last-before", "best", "log.jsonl", "progress.png", "finished.json",
    } | ({"tensorboard"} if find_spec("tensorboard") else set())  # fmt: skip
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert line["epoch"] == 7 and line["step"] == 64 and line["loss"] < 0.3
    assert line["false_positive_voxels"] is not None
    assert (tmp_path / "progress.png").read_bytes().startswith(b"\x89PNG")
    best = json.loads((tmp_path / "best" / "state.json").read_text())
    assert best["epoch"] == result.best_epoch and best["validation_dice"] == result.best_dice


def test_the_best_epoch_is_the_one_of_the_highest_smoothed_dice(tmp_path):
    result = fit(tmp_path, CONFIG.model_copy(update={"epochs": 6, "validation_smoothing": 0.7}))
    lines = log_lines(tmp_path)
    smoothed = lines[0]["validation_dice"]
    for line in lines:
        if line["epoch"]:
            smoothed = 0.7 * smoothed + 0.3 * line["validation_dice"]
        assert line["smoothed_dice"] == pytest.approx(smoothed)
    assert result.best_epoch == int(np.argmax([line["smoothed_dice"] for line in lines]))


def test_early_stop_counts_epochs_without_a_better_dice(tmp_path):
    # a rate of almost nothing: the Dice of the first epoch is never surpassed
    config = CONFIG.model_copy(update={"epochs": 50, "early_stop_patience": 3, "learning_rate": 1e-30})
    network = Tiny(dropout=0.0)
    network.norm = nn.Identity()
    result = fit(tmp_path, config, network=network)
    assert result.stopped_early and result.epochs == 4 and result.best_epoch == 0


STALE = {"learning_rate": 1e-30, "validation_smoothing": 0.0}
"""A rate of almost nothing: the Dice of the first validation is never surpassed."""


def fit_stale(folder: Path, changes: dict, **more) -> TrainingResult:
    network = Tiny(dropout=0.0)
    network.norm = nn.Identity()
    return fit(folder, CONFIG.model_copy(update=STALE | changes), network=network, **more)


def factors(folder: Path) -> list[float]:
    """Return by what the schedule "plateau" multiplied the rate in each epoch."""
    return [line["learning_rate"] / STALE["learning_rate"] for line in log_lines(folder)]


@pytest.mark.parametrize(("validate_every", "epochs"), [(1, 4), (3, 12), (5, 20)])
def test_early_stop_counts_validations_and_no_epoch_between_them(tmp_path, validate_every, epochs):
    changes = {"epochs": 50, "early_stop_patience": 3, "validate_every": validate_every, "steps_per_epoch": 1}
    result = fit_stale(tmp_path, changes)
    assert result.stopped_early and result.epochs == epochs and result.best_epoch == validate_every - 1
    lines = log_lines(tmp_path)
    assert sum(line["validation_dice"] is not None for line in lines[result.best_epoch + 1 :]) == 3


@pytest.mark.parametrize("validate_every", [1, 3])
def test_a_plateau_counts_validations_and_no_epoch_between_them(tmp_path, validate_every):
    changes = {"schedule": "plateau", "plateau_patience": 2, "plateau_factor": 0.5, "steps_per_epoch": 1}
    fit_stale(tmp_path, changes | {"epochs": 6 * validate_every, "validate_every": validate_every})
    # the first validation is the best; the second and third after it, and the next two, lower the rate
    wanted = [1.0] * 3 * validate_every + [0.5] * 2 * validate_every + [0.25] * validate_every
    assert factors(tmp_path) == pytest.approx(wanted)


@pytest.mark.parametrize("interrupted", [(), (1,), (4, 3)])
def test_a_longer_training_goes_through_the_plateaus_once_more(tmp_path, interrupted):
    changes = {"schedule": "plateau", "plateau_patience": 2, "plateau_factor": 0.5, "steps_per_epoch": 2}
    changes |= {"checkpoint_every_seconds": 1e-9}
    fit_stale(tmp_path, changes | {"epochs": 6})
    assert factors(tmp_path) == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25])
    for steps in interrupted:
        with pytest.raises(KeyboardInterrupt):
            fit_stale(tmp_path, changes | {"epochs": 11}, progress=StopAfter(steps))
    fit_stale(tmp_path, changes | {"epochs": 11})
    # no validation of the new segment is better than the first of all
    assert factors(tmp_path)[6:] == pytest.approx([1, 1, 0.5, 0.5, 0.25])


def test_a_longer_training_waits_for_its_own_validations(tmp_path):
    changes = {"early_stop_patience": 2, "validate_every": 2, "steps_per_epoch": 1}
    assert fit_stale(tmp_path, changes | {"epochs": 5}).epochs == 5
    result = fit_stale(tmp_path, changes | {"epochs": 50})
    # two validations of the new segment: after epochs 6 and 8
    assert result.stopped_early and result.epochs == 8


def test_a_longer_training_that_was_killed_before_its_first_step_is_not_taken_for_done(tmp_path):
    longer = CONFIG.model_copy(update={"epochs": 4})
    fit(tmp_path / "a", CONFIG.model_copy(update={"epochs": 2}))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    fit(tmp_path / "a", longer)
    shutil.copy(tmp_path / "a" / "training.json", tmp_path / "b")  # the second segment was written, and no more
    assert fit(tmp_path / "b", longer).epochs == 4
    assert (tmp_path / "a" / "training.json").read_bytes() == (tmp_path / "b" / "training.json").read_bytes()
    for name, value in weights(tmp_path / "a").items():
        assert torch.equal(value, weights(tmp_path / "b")[name])


def test_without_validation_cases_the_last_epoch_is_the_best(tmp_path):
    result = train_fold(
        Tiny(), cross_entropy, data=make_data(validation=[]), config=CONFIG, run=FoldRun(tmp_path, 1), progress=Silent()
    )
    assert result.best_epoch == 2 and result.best_dice is None


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.learning_rate", {"config": CONFIG.model_copy(update={"learning_rate": 0.5})}),
        ("seed", {"seed": 8}),
        ("network", {"network": Tiny(classes=3)}),
        ("augmentation", {"augmentation": None}),
    ],
)
def test_a_folder_of_another_training_is_refused_by_name(tmp_path, name, change):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, progress=StopAfter(1))
    with pytest.raises(StateError, match=rf"other values of {name};"):
        fit(tmp_path, **change)


def test_a_training_of_a_version_that_had_fewer_settings_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, progress=StopAfter(1))
    record = tmp_path / "training.json"
    now = json.loads(record.read_text())
    before = json.loads(record.read_text())
    del before["identity"]["config"]["validate_whole"], before["identity"]["augmentation"]["colour_probability"]
    record.write_text(json.dumps(before))
    with pytest.raises(StateError, match=r"other values of config\.validate_whole;"):
        fit(tmp_path, CONFIG.model_copy(update={"validate_whole": True}))
    assert fit(tmp_path).steps == 12
    assert json.loads(record.read_text()) == now


def test_prescribed_segments_are_done_and_then_belong_to_their_training(tmp_path):
    length = {"epochs": None, "steps": None, "time_budget_s": 900.0, "early_stop_patience": None}
    write_segments(tmp_path, [Segment(0, 5, 0, length)], None)
    config = CONFIG.model_copy(update={"time_budget_s": 900.0})
    assert fit(tmp_path, config).steps == 5
    with pytest.raises(StateError, match=r"other values of seed;"):
        fit(tmp_path, config, seed=8)


class Listener(StopAfter):
    def __init__(self, steps: int = 10**9) -> None:
        super().__init__(steps)
        self.heard: list[str] = []

    def say(self, sentence: str) -> None:
        self.heard.append(sentence)


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["short", "flipped", "absent"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_taken(tmp_path, name, damage):
    fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "parts", progress=StopAfter(10))
    file = tmp_path / "parts" / "last" / name
    data = file.read_bytes()
    middle = data.index(b"step") + 7 if name == "state.json" else len(data) * 2 // 3
    damaged = {"short": data[:middle], "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]}
    file.unlink()
    if damage in damaged:
        file.write_bytes(damaged[damage])
    listener = Listener()
    fit(tmp_path / "parts", progress=listener)
    assert any("last: this checkpoint is damaged" in said and "step 4" in said for said in listener.heard)
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")


def test_a_longer_training_goes_on_from_before_its_start_when_its_checkpoint_is_damaged(tmp_path):
    longer = CONFIG.model_copy(update={"steps": 22})
    for name in ("whole", "parts"):
        fit(tmp_path / name)
    fit(tmp_path / "whole", longer)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "parts", longer, progress=StopAfter(1))
    file = tmp_path / "parts" / "last" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    listener = Listener()
    fit(tmp_path / "parts", longer, progress=listener)
    assert any("last: this checkpoint is damaged" in said for said in listener.heard)
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    rates = [[line["learning_rate"] for line in log_lines(tmp_path / name)] for name in ("whole", "parts")]
    assert rates[0] == rates[1] and min(rates[0]) >= 0


def test_checkpoints_that_are_all_damaged_are_named(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, progress=StopAfter(6))
    file = tmp_path / "last" / "optimiser.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(StateError, match=r"damaged.*no other is whole"):
        fit(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after", [3, 5])
def test_a_signal_ends_after_the_step_with_a_checkpoint_and_loses_nothing(tmp_path, number, after):
    class Sends(StopAfter):
        @contextmanager
        def track(self, title: str, total: int) -> Iterator:
            def advance(steps: int, text: str) -> None:
                self.left -= bool(text)
                if self.left == 0:
                    signal.raise_signal(number)

            yield advance

    before = signal.getsignal(number)
    fit(tmp_path / "whole")
    with pytest.raises(Stopped, match=rf"after step {after} of 12, which is kept; the same command") as caught:
        fit(tmp_path / "parts", progress=Sends(after))
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    listener = Listener()
    fit(tmp_path / "parts", progress=listener)
    assert any(f"{12 - after} of 12 steps to do" in said for said in listener.heard)
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")


def test_a_finished_training_gets_another_segment(tmp_path):
    first = fit(tmp_path)
    with pytest.raises(StateError, match=r"finished after 12 steps.*not longer"):
        fit(tmp_path, CONFIG.model_copy(update={"epochs": 2}))
    longer = CONFIG.model_copy(update={"steps": 22})
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, longer, progress=StopAfter(5))
    with pytest.raises(StateError, match=r"unfinished.*22"):
        fit(tmp_path, CONFIG.model_copy(update={"steps": 40}))
    result = fit(tmp_path, longer)
    assert (result.steps, result.epochs) == (22, 6) and first.steps == 12
    segments = json.loads((tmp_path / "training.json").read_text())["segments"]
    assert [(s["first"], s["last"], s["epoch"]) for s in segments] == [(0, 12, 0), (12, 22, 3)]
    lines = log_lines(tmp_path)
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 22]
    # the rate of the new segment starts from the top again
    assert lines[3]["learning_rate"] > 5 * lines[2]["learning_rate"]
    assert fit(tmp_path, longer) == result


def test_a_step_without_a_finite_gradient_changes_nothing_and_the_rate_is_lowered(tmp_path):
    calls = []

    def sometimes(logits, target):
        calls.append(1)
        return cross_entropy(logits, target) * (float("nan") if len(calls) == 3 else 1)

    heard = Listener()
    config = CONFIG.model_copy(update={"epochs": 1, "schedule": "constant"})
    result = train_fold(
        Tiny(), sometimes, data=make_data(validation=[]), config=config, run=FoldRun(tmp_path, 1), progress=heard
    )
    assert result.steps == 4
    assert any("step 3: no finite gradient" in said and "learning rate times 0.5" in said for said in heard.heard)
    (line,) = log_lines(tmp_path)
    assert line["undone_steps"] == 1 and line["learning_rate"] == pytest.approx(0.005) and np.isfinite(line["loss"])
    assert int(weights(tmp_path)["last/model/norm.num_batches_tracked"]) == 3
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


@pytest.mark.parametrize(("steps", "told"), [(4, 4), (24, 16)])
@pytest.mark.parametrize("steps_per_epoch", [1, 4, 24])
def test_a_loss_that_stays_undefined_ends_the_training_in_words(tmp_path, steps, told, steps_per_epoch):
    def broken(logits, target):
        return cross_entropy(logits, target) * float("nan")

    config = CONFIG.model_copy(update={"steps": steps, "steps_per_epoch": steps_per_epoch})
    for _ in range(2):
        with pytest.raises(NeosegError, match=rf"broke down: {told} steps in a row gave no finite gradient"):
            train_fold(Tiny(), broken, data=make_data(), config=config, run=FoldRun(tmp_path, 1), progress=Silent())
        assert not (tmp_path / "finished.json").exists()


@pytest.mark.parametrize(("steps", "steps_per_epoch", "undone"), [(9, 4, {9}), (12, 4, {5, 6, 7, 8}), (9, 1, {1, 2})])
def test_an_epoch_without_a_good_step_is_told_and_passed(tmp_path, steps, steps_per_epoch, undone):
    calls = []

    def sometimes(logits, target):
        # validations give probabilities of whole volumes, whose loss needs no gradient
        calls.extend([1] if logits[0].requires_grad else [])
        bad = logits[0].requires_grad and len(calls) in undone
        return cross_entropy(logits, target) * (float("nan") if bad else 1)

    config = CONFIG.model_copy(update={"steps": steps, "steps_per_epoch": steps_per_epoch, "schedule": "plateau"})
    result = train_fold(Tiny(), sometimes, data=make_data(), config=config, run=FoldRun(tmp_path, 1), progress=Silent())
    lines = log_lines(tmp_path)
    assert result.steps == steps and lines[-1]["undone_steps"] == len(undone)
    ends = [line["step"] for line in lines]
    for start, end, line in zip([0, *ends], ends, lines, strict=False):
        assert (line["loss"] is None) == (set(range(start + 1, end + 1)) <= undone)
        assert line["validation_dice"] is not None
    assert any(line["loss"] is None for line in lines)
    assert (tmp_path / "progress.png").read_bytes().startswith(b"\x89PNG")
    epochs, losses, dices = (tuple(line[key] for line in lines) for key in ("epoch", "loss", "validation_dice"))
    curve = Curve(name="fold 0", epochs=epochs, loss=losses, dice=dices, best_epoch=result.best_epoch)
    assert "<svg" in learning_curves([curve])


def test_a_training_interrupted_after_an_epoch_without_a_good_step_goes_on(tmp_path):
    def undone(logits, target):
        return cross_entropy(logits, target) * float("nan")

    def trained(loss, folder, progress):
        run = FoldRun(folder, 1)
        config = CONFIG.model_copy(update={"steps": 8, "steps_per_epoch": 2})
        return train_fold(Tiny(), loss, data=make_data(), config=config, run=run, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        trained(undone, tmp_path, StopAfter(4))
    assert [line["loss"] for line in log_lines(tmp_path)] == [None]
    assert trained(cross_entropy, tmp_path, Silent()).steps == 8
    assert [line["loss"] is None for line in log_lines(tmp_path)] == [True, False, False, False]


def test_accumulated_batches_give_the_gradient_of_their_mean(tmp_path):
    network = Tiny(dropout=0.0)
    config = CONFIG.model_copy(update={"accumulate": 3, "gradient_clip": 1e9})
    data = make_data()
    sampler = PatchSampler([c.label for c in data.train], PATCH, foreground_fraction=0.5, lesion_power=0.5)
    parts = StepParts(cross_entropy, data, sampler, None, config, torch.device("cpu"), torch.float32, 3)
    losses = []
    for part in range(3):
        images, labels = next_batch(parts, 5, part)
        losses.append(cross_entropy(network(images), labels.long()))
    mean = sum(losses) / 3
    wanted = torch.autograd.grad(mean, network.first.weight)[0]
    value, _ = train_step(network, torch.optim.SGD(network.parameters(), lr=0.0), parts, 5, Guard())
    assert value == pytest.approx(mean.item(), rel=1e-6)
    assert torch.allclose(network.first.weight.grad, wanted, atol=1e-7)


def test_a_case_on_both_sides_is_refused():
    with pytest.raises(InputError, match=r"\['t0'\].*one side only"):
        make_data(validation=[make_case("t0", 0)])


def test_a_case_of_another_shape_is_refused():
    case = make_case("odd", 0)
    with pytest.raises(InputError, match="odd: an image of shape"):
        make_data(train=[TrainingCase("odd", case.image[:, 1:], case.label)])


def test_no_training_case_is_refused(tmp_path):
    with pytest.raises(InputError, match="no training case"):
        train_fold(
            Tiny(), cross_entropy, data=make_data(train=[]), config=CONFIG, run=FoldRun(tmp_path, 1), progress=Silent()
        )


@pytest.fixture
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a millisecond whenever it is looked at, so that no test depends on the machine."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) * 0.001)
    for module in (loop, time_budget, log_file):
        monkeypatch.setattr(module, "time", clock)


@pytest.mark.usefixtures("steady_clock")
def test_a_time_budget_becomes_a_stored_number_of_steps(tmp_path):
    config = TrainingConfig(time_budget_s=0.06, steps_per_epoch=10, precision="float32")
    network = Tiny()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, config, network=network, progress=StopAfter(1))
    total = json.loads((tmp_path / "training.json").read_text())["segments"][0]["last"]
    assert 10 < total < 60
    # the timed steps were done on a copy: the counted ones begin at the given weights
    assert int(network.state_dict()["norm.num_batches_tracked"]) == int(before["norm.num_batches_tracked"]) + 1
    assert fit(tmp_path, config).steps == total
    assert not (tmp_path / "timing").exists()


COSTS = {"train_step": 2.0, "validate": 10.0, "write_checkpoint": 3.0, "draw_curves": 1.0}
"""Seconds of what a training does, by a clock that nothing else moves."""


@pytest.mark.parametrize("validate_every", [1, 3])
@pytest.mark.parametrize("minutes", [4, 9])
def test_a_training_ends_when_its_budget_does(tmp_path, monkeypatch, minutes, validate_every):
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)

    def taking(seconds, real):
        def work(*arguments, **more):
            clock.now += seconds
            return real(*arguments, **more)

        return work

    for module in (loop, time_budget, log_file):
        monkeypatch.setattr(module, "time", clock)
        for name, seconds in COSTS.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, taking(seconds, getattr(module, name)))
    config = TrainingConfig(
        time_budget_s=60 * minutes, steps_per_epoch=10, validate_every=validate_every, precision="float32"
    )
    result = fit(tmp_path, config)
    assert 0.9 < clock.now / (60 * minutes) < 1.1
    assert result.steps > 12 * minutes


def test_a_budget_is_timed_with_batches_as_the_training_gets_them(tmp_path, monkeypatch):
    made = []

    @contextmanager
    def ahead(parts, first, last):
        def make(step, part):
            made.append((step, part, threading.current_thread().name))
            return make_batch(parts, step, part)

        loader = Loader(make, first, last, parts.config.accumulate, ahead=2)
        yield loader
        loader.close()

    monkeypatch.setattr(time_budget, "loading", ahead)
    config = TrainingConfig(time_budget_s=0.5, accumulate=2, precision="float32", batch_size=2)
    fit(tmp_path, config)
    assert [name for *_, name in made] == ["loader"] * len(made)
    assert [place for *place, _ in made] == [[step, part] for step in range(99) for part in range(2)][: len(made)]
    assert len(made) > 6


def test_a_time_budget_that_is_over_before_the_first_step_still_buys_one(tmp_path):
    assert fit(tmp_path, TrainingConfig(time_budget_s=1e-6, steps_per_epoch=10, precision="float32")).steps == 1


def test_steps_beat_epochs_and_the_last_epoch_may_be_short(tmp_path):
    result = fit(tmp_path, CONFIG.model_copy(update={"steps": 6}))
    assert (result.steps, result.epochs) == (6, 2)


def test_two_lengths_are_refused():
    with pytest.raises(ValueError, match="give one of them"):
        TrainingConfig(steps=3, time_budget_s=5)


def test_a_network_of_ones_own_gets_right_gradients_in_bfloat16_too(tmp_path):
    network, config = Tiny(), CONFIG.model_copy(update={"epochs": 1})
    train_fold(network, cross_entropy, data=make_data(), config=config, run=FoldRun(tmp_path, 1), progress=Silent())
    assert type(network.first) is type(network.last) is short_axes.Conv3d


def test_bfloat16_trains_too(tmp_path):
    result = fit(tmp_path, CONFIG.model_copy(update={"precision": "bfloat16", "epochs": 1}))
    assert result.precision == "bfloat16"
    assert all(v.dtype != torch.bfloat16 for v in weights(tmp_path).values())


def test_two_dimensions(tmp_path):
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, x):
            return (self.conv(x),)

    case = make_case("a", 0)
    other = make_case("b", 1)
    data = TrainingData(
        train=[TrainingCase("a", case.image[..., 5], case.label[..., 5])],
        validation=[TrainingCase("b", other.image[..., 5], other.label[..., 5])],
        spacing_mm=(1.0, 1.0),
        targets=Targets.of_classes(2),
        patch=(12, 12),
    )
    run = FoldRun(tmp_path, 1, augmentation=Augmentation(AugmentConfig()))
    assert train_fold(Flat(), cross_entropy, data=data, config=CONFIG, run=run, progress=Silent()).steps == 12


@pytest.mark.parametrize("schedule", ["cosine", "poly", "plateau", "constant"])
def test_each_schedule_is_resumed_with_the_same_bits(tmp_path, schedule):
    # at a high rate the validation soon becomes worse, so that the plateau is met
    changes = {"schedule": schedule, "accumulate": 2, "ema_decay": 0.9, "plateau_patience": 1, "learning_rate": 0.3}
    config = CONFIG.model_copy(update=changes | {"epochs": 5, "checkpoint_every_seconds": 1e-9})
    whole = fit(tmp_path / "whole", config)
    for steps in (3, 7):
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "parts", config, progress=StopAfter(steps))
    assert replace(fit(tmp_path / "parts", config), seconds=0) == replace(whole, seconds=0)
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    rates = [[line["learning_rate"] for line in log_lines(tmp_path / name)] for name in ("whole", "parts")]
    assert rates[0] == rates[1]
    assert (len(set(rates[0])) == 1) == (schedule == "constant")
