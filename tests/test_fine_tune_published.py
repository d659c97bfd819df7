"""A training that starts from published weights: what is asked, what is taken, and how it sees the axes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors

from neoseg.config import load_config
from neoseg.errors import ConfigError
from neoseg.networks.build import build_network
from neoseg.networks.configs import UnetrPPConfig
from neoseg.networks.published_file import read_description
from neoseg.networks.unetr_pp import UnetrPP
from neoseg.networks.weights import published_state, variant_of
from neoseg.pipeline.convert_weights import convert_weights
from neoseg.pipeline.published_start import read_converted, require_network
from neoseg.pipeline.session import open_session
from neoseg.pipeline.transfer import transfer
from neoseg.plan.plan import read_plan
from published_small import checkpoint, network_like, small_presets  # noqa: F401 - a fixture
from small_run import called, in_this_process, read

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_presets")]

NATIVE = "PIR"
"""Neither the order of axes of the arrays nor its own inverse, so that a turn the wrong way is seen."""

SETS = ("--set", "folds.count=2", "--set", "threads=1", "--set", "training.steps_per_epoch=2", "--set",
        "training.batch_size=2", "--set", "evaluate.resamples=100", "--set", "window.overlap=0")  # fmt: skip
"""The settings of `small_run` without those of the network, so that all is left to the plan."""


@pytest.fixture
def converted(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of converted weights: (variant, orientation)."""

    def make(variant: str, orientation: str | None = NATIVE) -> Path:
        torch.save(checkpoint(network_like(variant)), tmp_path / "model_final_checkpoint.model")
        folder = tmp_path / f"published_{variant}"
        convert_weights(tmp_path / "model_final_checkpoint.model", folder, native_orientation=orientation)
        return folder

    return make


def settings_in(sentence: str) -> tuple[str, ...]:
    """Return the settings that a refusal names, as options."""
    network, _, plan = sentence.partition("set [network] ")[2].partition(" and [plan] ")
    pair = r'(\w+) = ("[^"]*"|\[[^\]]*\]|[\w.-]+)'
    found = [f"network.{key}={value}" for key, value in re.findall(pair, network)]
    found += [f"plan.{key}={value}" for key, value in re.findall(pair, plan.partition(", then")[0])]
    return tuple(word for change in found for word in ("--set", change))


def refused(
    patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workspace: Path, *more: str, command: str = "train"
) -> str:
    capsys.readouterr()
    assert called(patch, command, workspace, *more) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told and len(told.strip().splitlines()) == 1
    assert not (workspace / "runs" / "default" / "fold0").exists()
    return told


def settings(workspace: Path, folder: Path, *changes: str) -> Any:
    """Plan with changes and return what is taken."""
    text = json.dumps(str(folder))
    config = load_config(workspace / "neoseg.toml", [*SETS[1::2], f"init_from={text}", *changes], workspace)
    session = open_session(config)
    for name in ("plan.json", "folds.json"):
        session.workspace.root.joinpath(name).unlink(missing_ok=True)
    from neoseg.pipeline.plan import plan

    plan(session)
    return transfer(session)


def tied(folder: Path, orientation: str | None = None) -> list[str]:
    """Return the settings that give the network of a folder."""
    config, patch = read_description(folder).turned(orientation)
    fields = config.model_dump(mode="json", exclude={"kind"})
    changes = [f"network.{key}={json.dumps(value)}" for key, value in fields.items() if value is not None]
    return [*changes, f"plan.patch={json.dumps(patch)}"]


def test_a_run_starts_from_published_weights_with_the_settings_that_a_refusal_names(
    workspace: Path,
    converted: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, run = converted("synapse"), workspace / "runs" / "default"
    still = (*SETS, "--steps", "1", "--set", "training.learning_rate=1e-30", "--init-from", str(folder))
    assert called(monkeypatch, "plan", workspace, *SETS) == 0
    assert called(monkeypatch, "prepare", workspace, *SETS) == 0
    told = refused(monkeypatch, capsys, workspace, *still)
    assert 'network.layout is "aligned"' in told and 'layout = "legacy"' in told and "'synapse'" in told
    assert f'native_orientation = "{NATIVE}"' in told and "[plan] patch = [16, 8, 16]" in told
    still += settings_in(told)

    with monkeypatch.context() as patch:
        patch.setattr("small_run.QUIET", ())
        assert called(patch, "run", workspace, *still) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "fold 0, fold 1: " in told and "None" not in told
    assert "start anew, because the classes are 2 with the background (label_1) and were 14" in told
    assert "do not name their channels, which were compared by number alone" in told
    record = read(run / "init_from.json")
    starts = list(record["folds"].values())
    assert [(row["fold"], row["compared"], row["seen"], row["named"]) for row in starts] == [
        (None, "nothing", [], []),
    ] * 2
    assert {name.partition(".")[0] for name in record["tensors"]["new"]} == {"heads"}
    unknown = "Which cases the published weights in published_synapse that this run started from were trained with is"
    page = unescape((run / "report.html").read_text(encoding="utf-8"))
    assert unknown in page and page.count(unknown) == 1 and unknown in told

    # The network of the run is the published one on arrays turned to the axes of its weights.
    network, theirs = network_like("synapse").eval(), load_file(folder / "model.safetensors")
    last = load_tensors(run / "fold0" / "last" / "model.safetensors")
    taken = record["tensors"]["taken"]
    fixed = [name for name in taken if "running" not in name and "batches" not in name]
    assert len(fixed) > 50 and all(np.array_equal(theirs[name], last[name].numpy()) for name in fixed)
    own = build_network(read_plan(run / "plan.json").network, in_channels=1, classes=14, patch=(16, 8, 16)).eval()
    assert isinstance(own, UnetrPP)
    own.load_state_dict({**last, **{n: torch.from_numpy(v) for n, v in theirs.items() if n not in fixed}})
    x = torch.randn(1, 1, 16, 8, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        # axis 0 from front to back (y flipped), 1 from head to feet (z flipped), 2 to the right (x)
        there = network(x.permute(0, 1, 3, 4, 2).flip(2, 3))[0]
        torch.testing.assert_close(own(x)[0], there.flip(2, 3).permute(0, 1, 4, 2, 3), rtol=1e-4, atol=1e-5)

    back = convert_weights(run / "fold0" / "best", workspace / "back.model")
    weights = torch.load(back["written"], weights_only=True)["state_dict"]
    assert variant_of(weights) == "synapse" and weights.keys() == published_state(network).keys()

    again = ("--output", str(workspace.parent / "again"), "--quiet")
    assert in_this_process(monkeypatch, "neoseg", "reproduce", str(run), *again) == 0
    before = (run / "fold0" / "finished.json").read_bytes()
    assert called(monkeypatch, "train", workspace, *still) == 0
    assert (run / "fold0" / "finished.json").read_bytes() == before
    folder.rename(folder.with_name("gone"))  # a finished run does not need it
    assert called(monkeypatch, "predict", workspace, *still[: still.index("--steps")], *settings_of(still, folder)) == 0


def settings_of(words: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """Return the settings of a training for the other commands, which have no options for them."""
    rest = words[words.index(str(folder)) + 1 :]
    return ("--set", "training.steps=1", "--set", "training.learning_rate=1e-30", *rest, "--set",
            f"init_from={json.dumps(str(folder))}")  # fmt: skip


def test_a_fold_does_not_go_on_from_other_published_weights(
    workspace: Path,
    converted: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = converted("tumor")
    more = (*SETS, "--steps", "1", "--init-from", str(folder), *(w for c in tied(folder) for w in ("--set", c)))
    others = [w for w in more if w not in ("--steps", "1", "--init-from", str(folder))]
    for command in ("plan", "prepare"):
        assert called(monkeypatch, command, workspace, *others) == 0
    assert called(monkeypatch, "train", workspace, *more, "--fold", "0") == 0
    file = folder / "model.safetensors"
    save_file({name: np.asarray(value + 1) for name, value in load_file(file).items()}, file)
    capsys.readouterr()
    assert called(monkeypatch, "train", workspace, *more, "--fold", "1") == 2
    told = capsys.readouterr().err
    weights = read(workspace / "runs" / "default" / "init_from.json")["folds"]["0"]["weights"]
    assert f"was begun from the weights {weights} of {folder}, but" in told and "None" not in told


@pytest.mark.parametrize(
    ("variant", "changes", "new", "note"),
    [
        ("synapse", (), {"heads"}, "channels, which"),
        ("tumor", (), {"stem", "full_skip", "heads"}, ""),
        ("lung", (), set(), "channels and classes, which"),
        ("lung", ("network.deep_supervision=false",), set(), "channels and classes, which"),
        ("lung", ('regions={whole=["label_1"]}',), {"heads"}, "channels, which"),
        ("acdc", ("network.attention_dropout=0.3", "network.checkpointing=all"), {"heads"}, "channels, which"),
    ],
)
def test_which_parts_start_anew(
    workspace: Path, converted: Callable[..., Path], variant: str, changes: tuple[str, ...], new: set[str], note: str
) -> None:
    folder = converted(variant)
    moved = settings(workspace, folder, *tied(folder), *changes)
    assert {name.partition(".")[0] for name in moved.new} == new
    assert len(moved.reasons) == len({"image" if n in ("stem", "full_skip") else "class" for n in new})
    assert (note in moved.told) and bool(moved.notes) == bool(note)
    assert moved.taken and not set(moved.taken) & set(moved.new)


def test_where_the_axes_lead_is_asked_and_never_guessed(workspace: Path, converted: Callable[..., Path]) -> None:
    folder = converted("lung", None)
    right = [change for change in tied(folder, NATIVE) if "native_orientation" not in change]
    with pytest.raises(ConfigError, match=r'native_orientation is not known.*not stated.*"SPL".*--native-orientation'):
        settings(workspace, folder, *right)
    assert settings(workspace, folder, *right, f"network.native_orientation={NATIVE}").new == ()
    folder = converted("lung")
    with pytest.raises(ConfigError, match=rf'native_orientation is null.*native_orientation = "{NATIVE}", then'):
        settings(workspace, folder, *right)
    other = [*tied(folder, "PIL"), "network.native_orientation=PIL"]
    with pytest.raises(ConfigError, match=rf'is "PIL".*"{NATIVE}" is wrong, convert the checkpoint again'):
        settings(workspace, folder, *other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("network.dims=[8, 16, 64]", "dims = [8, 16, 32]"),
        ("network.layout=aligned", 'layout = "legacy"'),
        ("network.norm=group", 'norm = "batch"'),
        ("network.full_norm=batch", 'full_norm = "plain_instance"'),
        ("network.fusion=sum", 'fusion = "concat"'),
        ("network.stem=[1, 2, 2]", "stem = [2, 1, 2]"),
        ("plan.patch=[16, 16, 16]", "[plan] patch = [24, 8, 24]"),
        ("network.native_orientation=RAS", f'native_orientation = "{NATIVE}"'),
    ],
)
def test_another_network_is_refused_with_the_settings_that_give_theirs(
    workspace: Path, converted: Callable[..., Path], change: str, words: str
) -> None:
    folder = converted("lung")
    assert read_description(folder).patch == (8, 24, 24)
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        settings(workspace, folder, *tied(folder), change)
    told = str(caught.value)
    key, _, value = change.partition("=")
    assert re.search(rf"{re.escape(key)} is \"?{re.escape(value)}", told)
    assert len(re.findall(r"\w = ", told)) == 1  # what is right and given is not named


def test_another_kind_and_planes_are_refused(workspace: Path, converted: Callable[..., Path]) -> None:
    known, unknown = converted("acdc"), converted("lung", None)
    with pytest.raises(
        ConfigError, match=r'network\.kind is "unet".*kind = "unetr_pp", .*stem = \[2, 1, 2\].*\[plan\]'
    ):
        settings(workspace, known, "network.kind=unet")
    with pytest.raises(
        ConfigError, match=r'kind = "unetr_pp", .*native_orientation = where each axis .*"SPL"'
    ) as caught:
        settings(workspace, unknown, "network.kind=unet")
    assert "stem" not in str(caught.value) and "[plan]" not in str(caught.value)
    config = load_config(workspace / "neoseg.toml")
    flat = UnetrPPConfig(spatial_dims=2, stem=(2, 2))
    plan = read_plan(workspace / "plan.json").model_copy(update={"network": flat, "patch": (16, 16)})
    with pytest.raises(ConfigError, match="images of 3 axes, but those of this run have 2"):
        require_network(read_converted(known), plan, config)


def test_fields_that_the_plan_chose_are_named_too_so_that_they_stay(
    workspace: Path, converted: Callable[..., Path]
) -> None:
    folder = converted("lung")
    settings(workspace, folder, *tied(folder))
    plan = read_plan(workspace / "plan.json")
    other = plan.model_copy(update={"network": plan.network.model_copy(update={"norm": "group"})})
    left_open = load_config(workspace / "neoseg.toml", ["network.heads=4"])
    with pytest.raises(ConfigError, match=r'set \[network\] dims = .*stem = .*norm = "batch" and \[plan\]') as caught:
        require_network(read_converted(folder), other, left_open)
    assert "heads" not in str(caught.value) and "feature_size = 8" in str(caught.value)
    require_network(read_converted(folder), plan, left_open)


def test_an_edited_plan_is_told(workspace: Path, converted: Callable[..., Path]) -> None:
    folder = converted("lung")
    changes = [*SETS[1::2], *tied(folder), f"init_from={json.dumps(str(folder))}"]
    session = open_session(load_config(workspace / "neoseg.toml", changes, workspace))
    settings(workspace, folder, *tied(folder))
    plan = read(workspace / "plan.json")
    (workspace / "plan.json").write_text(json.dumps({**plan, "patch": [24, 16, 24]}))
    with pytest.raises(ConfigError, match=r"plan\.patch is \[24, 16, 24\]\); delete plan\.json and plan again"):
        transfer(session)


def test_damaged_folders_are_told(
    workspace: Path, converted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, other = converted("lung"), converted("synapse")
    shutil.copy(other / "model.safetensors", folder)
    with pytest.raises(ConfigError, match=r"do not fit.*network\.json describes another network.*again"):
        settings(workspace, folder, *tied(folder))
    more = (*SETS, "--steps", "1", "--init-from")
    (folder / "model.safetensors").unlink()
    for command in ("plan", "prepare"):
        assert called(monkeypatch, command, workspace, *SETS) == 0
    assert "convert the checkpoint again" in refused(monkeypatch, capsys, workspace, *more, str(folder))
    file = folder.with_name("model_final_checkpoint.model")
    assert "`neoseg weights convert" in refused(monkeypatch, capsys, workspace, *more, str(file))
