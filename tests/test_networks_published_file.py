"""Checkpoint files of the authors' code: what is read, what is refused and not run, and what is written."""

import json
import os
import pickle
import re
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from neoseg.atomic import write_json
from neoseg.cli.app import app
from neoseg.config import config_from
from neoseg.errors import ConfigError, InputError
from neoseg.networks import configs
from neoseg.networks.build import build_network
from neoseg.networks.configs import PUBLISHED
from neoseg.networks.published_file import (
    describe,
    network_of,
    read_checkpoint_file,
    read_description,
    read_folder,
    write_checkpoint_file,
    write_folder,
)
from neoseg.networks.unetr_pp import UnetrPP
from neoseg.networks.weights import load_published, published_name, published_state, variant_of
from neoseg.pipeline.convert_weights import convert_weights
from neoseg.plan.plan import Plan, write_plan
from published_small import FIELDS, checkpoint, network_like, small_presets  # noqa: F401 - a fixture

REFERENCES = Path(__file__).parent / "references"


@pytest.mark.parametrize("variant", PUBLISHED)
@pytest.mark.usefixtures("small_presets")
def test_files_come_back(variant: str, tmp_path: Path) -> None:
    network = network_like(variant)
    path = tmp_path / "model_final_checkpoint.model"
    torch.save(checkpoint(network), path)
    read = read_checkpoint_file(path)
    assert (read.epoch, read.prefixed) == (1000, True)
    assert variant_of(read.weights) == variant
    again = network_of(read.weights)
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )
    facts = describe(path)
    assert facts["variant"] == variant
    assert facts["parameters"] == sum(p.numel() for p in network.parameters())
    assert (facts["in_channels"], facts["classes"], facts["outputs"]) == (
        PUBLISHED[variant].in_channels, PUBLISHED[variant].classes, 3,
    )  # fmt: skip
    assert (facts["second_names"] > 0) == (variant == "synapse")


@pytest.mark.parametrize("variant", PUBLISHED)
def test_written_names_are_the_authors(variant: str) -> None:
    rows = [line.split("\t") for line in (REFERENCES / f"unetrpp_{variant}_keys.txt").read_text().splitlines()]
    preset = PUBLISHED[variant]
    with torch.device("meta"):
        network = UnetrPP(preset.config, in_channels=preset.in_channels, classes=preset.classes, patch=preset.patch)
    names = {published_name(name): (str(tuple(t.shape)), str(t.dtype)) for name, t in network.state_dict().items()}
    if preset.config.token_projection == "shared":
        names |= {name.replace(".E.", ".F."): entry for name, entry in names.items() if ".epa_block.E." in name}
    assert names == {name: (shape, f"torch.{dtype.removeprefix('torch.')}") for name, shape, dtype, _ in rows}


@pytest.mark.usefixtures("small_presets")
def test_written_files_are_read_and_complete(tmp_path: Path) -> None:
    network = network_like("synapse")
    write_checkpoint_file(network, tmp_path / "out.model")
    content = torch.load(tmp_path / "out.model", weights_only=True)
    assert set(content) == {
        "epoch", "state_dict", "optimizer_state_dict", "lr_scheduler_state_dict", "plot_stuff", "best_stuff",
    }  # fmt: skip
    state = content["state_dict"]
    block = "unetr_pp_encoder.stages.0.0.epa_block"
    assert torch.equal(state[f"{block}.F.weight"], state[f"{block}.E.weight"])
    copy = network_like("synapse")
    load_published(copy, state)
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), copy.state_dict().values(), strict=True)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["out.model"]


def test_old_numpy_names_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.model"
    torch.save({"state_dict": {"a": torch.ones(2)}, "best_stuff": (np.float64(1.5),)}, path,
               _use_new_zipfile_serialization=False)  # fmt: skip
    content = path.read_bytes()
    assert b"cnumpy._core.multiarray\n" in content
    path.write_bytes(content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert torch.equal(read_checkpoint_file(path).weights["a"], torch.ones(2))


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("place", ["state", "beside", "bare", "old"])
def test_hostile_files_are_refused_and_not_run(place: str, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "model.model"
    hostile = Hostile(trace)
    content = {"state_dict": {"a": torch.ones(2)}, "best_stuff": hostile}
    if place == "state":
        content = {"state_dict": {"a": hostile}}
    if place == "bare":
        path.write_bytes(pickle.dumps(hostile))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=place != "old")
    with pytest.raises(InputError, match="nothing in it was run"):
        read_checkpoint_file(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(hostile))
    assert trace.exists()  # the file is hostile indeed


@pytest.mark.usefixtures("small_presets")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_files_are_refused(zipped: bool, share: float, tmp_path: Path) -> None:
    path = tmp_path / "model.model"
    torch.save(checkpoint(network_like("tumor")), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"model\.model: .*(whole checkpoint|damaged).*again"):
        read_checkpoint_file(path)


def test_files_of_other_things_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.model"
    with pytest.raises(InputError, match="no such file"):
        read_checkpoint_file(path)
    for content in (b"", b"hello, this is a text", b"\x80\x02."):
        path.write_bytes(content)
        with pytest.raises(InputError, match="again"):
            read_checkpoint_file(path)
    numbered = {0: torch.zeros(1)}
    wrong = [1, 2], {"state_dict": {"a": 3}}, {"state_dict": {}}, {"weights": {"a": torch.ones(1)}}
    for other in (*wrong, numbered, {"state_dict": numbered}):
        torch.save(other, path)
        with pytest.raises(InputError, match="is wanted"):
            read_checkpoint_file(path)


@pytest.mark.usefixtures("small_presets")
def test_another_variant_is_named() -> None:
    given = published_state(network_like("tumor"))
    for target in ("synapse", "acdc", "lung"):
        with pytest.raises(InputError, match="look like the published variant 'tumor'"):
            load_published(network_like(target), given)
    for name, target in (("acdc", "lung"), ("acdc", "synapse"), ("lung", "synapse"), ("synapse", "tumor")):
        with pytest.raises(InputError, match=f"variant '{name}'"):
            load_published(network_like(target), published_state(network_like(name)))
    with pytest.raises(InputError, match="variant 'acdc'"):
        network_of(published_state(network_like("acdc")), variant="lung")
    with pytest.raises(InputError, match=r"none of the published variants.*neoseg\.networks\.weights\.load_published"):
        network_of({"a": torch.ones(1)})
    with pytest.raises(ConfigError, match="did you mean 'lung'"):
        network_of(given, variant="lungs")


def test_small_files_that_hold_huge_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.model"
    huge = torch.ones(1).expand(32, 10**11, 4, 4, 4)
    torch.save({"state_dict": {"unetr_pp_encoder.downsample_layers.0.0.conv.weight": huge}}, path)
    assert path.stat().st_size < 10_000
    with pytest.raises(InputError, match=r"model\.model: the tensor 'unetr_pp_encoder.*fewer values"):
        read_checkpoint_file(path)
    torch.save({"state_dict": {"a": torch.ones(3).to_sparse()}}, path)
    with pytest.raises(InputError, match="'a'"):
        read_checkpoint_file(path)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    path, packed = tmp_path / "model.model", tmp_path / "packed.model"
    torch.save({"state_dict": {"a": torch.zeros(10**6)}}, path)
    with ZipFile(path) as source, ZipFile(packed, "w", ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert packed.stat().st_size < path.stat().st_size / 100
    with pytest.raises(InputError, match=r"packed\.model: .* in this file is compressed"):
        read_checkpoint_file(packed)


def test_an_archive_of_a_version_that_nobody_reads_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "model.model"
    torch.save({"state_dict": {"a": torch.zeros(3)}}, path)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 200  # the version that the first entry of the directory asks for
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.model: this is no whole checkpoint file \(zip file version"):
        read_checkpoint_file(path)


@pytest.mark.parametrize("kind", ["int8", "int16", "uint16", "uint32", "uint64", "bool"])
def test_numbers_of_numpy_beside_the_weights_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.model"
    torch.save({"state_dict": {"a": torch.ones(1)}, "epoch": 3, "more": np.dtype(kind).type(1)}, path)
    assert read_checkpoint_file(path).epoch == 3


@pytest.mark.parametrize("old", [False, True])
def test_arrays_of_numpy_beside_the_weights_are_passed_over(old: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.model"
    more = {"best": np.ones((2, 3)), "none": np.array([])}
    torch.save({"state_dict": {"a": torch.ones(1)}, "epoch": 3, **more}, path, _use_new_zipfile_serialization=not old)
    if old:  # names of before numpy 2
        path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert read_checkpoint_file(path).epoch == 3
    torch.save({"state_dict": {"a": np.ones(3)}}, path)
    with pytest.raises(InputError, match="tensors by name"):
        read_checkpoint_file(path)
    hostile = np.array([Hostile(tmp_path / "made")], dtype=object)
    torch.save({"state_dict": {"a": torch.ones(1)}, "best": hostile}, path)
    with pytest.raises(InputError, match="was refused and nothing in it was run"):
        read_checkpoint_file(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.usefixtures("small_presets")
def test_a_description_nested_without_end_is_refused(tmp_path: Path) -> None:
    write_folder(network_like("synapse"), tmp_path / "ours", variant="synapse", native_orientation="SPL")
    (tmp_path / "ours" / "network.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"network\.json: "):
        read_folder(tmp_path / "ours")


@pytest.mark.usefixtures("small_presets")
@pytest.mark.parametrize("change", [{"in_channels": 10**12}, {"classes": 10**12}])
def test_a_description_of_a_huge_network_takes_no_memory(change: dict[str, int], tmp_path: Path) -> None:
    write_folder(network_like("synapse"), tmp_path / "ours", variant="synapse", native_orientation="SPL")
    facts = json.loads((tmp_path / "ours" / "network.json").read_text())
    (tmp_path / "ours" / "network.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(InputError, match=r"model\.safetensors: .*has shape"):
        read_folder(tmp_path / "ours")


@pytest.mark.usefixtures("small_presets")
def test_what_a_checkpoint_holds_is_shown_and_converted_by_commands(tmp_path: Path) -> None:
    runner, path = CliRunner(), tmp_path / "model.model"
    network = network_like("tumor")
    torch.save(checkpoint(network), path)
    shown = runner.invoke(app, ["weights", "info", str(path), "--json"])
    assert (shown.exit_code, json.loads(shown.stdout)["variant"]) == (0, "tumor")
    done = runner.invoke(app, ["weights", "convert", str(path), str(tmp_path / "ours")])
    assert done.exit_code == 0
    assert (tmp_path / "ours" / "model.safetensors").is_file()
    state = published_state(network)
    for name in ("out1.conv.conv.weight", "unetr_pp_encoder.downsample_layers.0.0.conv.weight"):
        torch.save({"state_dict": {**state, name: torch.tensor(1.0)}}, path)
        assert runner.invoke(app, ["weights", "info", str(path)]).exit_code == 0
    with pytest.raises(InputError, match="this is a folder"):
        describe(tmp_path / "ours")
    (tmp_path / "scan.nii.gz").write_text("mine")
    with pytest.raises(InputError, match="not replaced"):
        convert_weights(tmp_path / "ours", tmp_path / "scan.nii.gz")
    assert (tmp_path / "scan.nii.gz").read_text() == "mine"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layout": "aligned"}, "layout"),
        ({"deep_supervision": False}, "deep_supervision"),
        ({"branches": "spatial"}, "branches"),
        ({"shared_queries_keys": False}, "shared_queries_keys"),
        ({"layout": "aligned", "size": "free"}, "free"),
        ({"layout": "aligned", "as_printed": True, "heads": 1, "fusion": "sum"}, "as_printed"),
        ({"norm": "instance"}, "norm = .instance.: the authors. code always has batch"),
        ({"full_norm": "batch"}, "full_norm = .batch.: the authors. code always has plain_instance"),
        ({}, r"dims = \[8, 16, 32\]: the authors. code always has 4 levels"),
    ],
)
def test_networks_that_the_authors_code_does_not_have_are_not_written(
    fields: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_checkpoint_file(network_like("synapse", **fields), tmp_path / "out.model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("fusion", "sum", "'concat'"),
        ("decoder_proj", 7, "64"),
        ("conv_blocks", 2, "1"),
        ("stem", (1, 4, 4), "(2, 4, 4)"),
    ],
)
def test_networks_between_the_copies_of_the_authors_code_are_not_written(
    field: str, value: object, wanted: str, tmp_path: Path
) -> None:
    config = PUBLISHED["synapse"].config.model_copy(update={field: value})
    with torch.device("meta"):
        network = UnetrPP(config, in_channels=1, classes=2, patch=(32, 64, 64))
    with pytest.raises(ConfigError) as caught:
        write_checkpoint_file(network, tmp_path / "out.model")
    assert f"network.{field} = {value!r}: no copy of the authors' code" in str(caught.value)
    assert f"the nearest, for 'synapse', has {wanted};" in str(caught.value)


@pytest.mark.usefixtures("small_presets")
def test_there_and_back(tmp_path: Path) -> None:
    network, source = network_like("synapse"), tmp_path / "in.model"
    torch.save(checkpoint(network), source)
    facts = convert_weights(source, tmp_path / "ours", native_orientation="SPL")
    assert facts["variant"] == "synapse"
    assert json.loads((tmp_path / "ours" / "network.json").read_text())["native_orientation"] == "SPL"
    convert_weights(tmp_path / "ours", tmp_path / "back.model")
    back = read_checkpoint_file(tmp_path / "back.model").weights
    assert back.keys() == published_state(network).keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in published_state(network).items())
    turned = read_folder(tmp_path / "ours").eval()
    assert turned.patch == (16, 16, 8)
    x = torch.randn(1, 1, 16, 16, 8)
    with torch.inference_mode():
        expected = network.eval()(x.permute(0, 1, 4, 3, 2).flip(3, 4))[0].flip(3, 4).permute(0, 1, 4, 3, 2)
        torch.testing.assert_close(turned(x)[0], expected, rtol=1e-4, atol=1e-5)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "scan.nii").write_text("")
    for source_, target in (
        (source, "file"),
        (source, "folder"),
        (tmp_path / "ours", "folder"),
        (tmp_path / "folder", "x"),
    ):
        with pytest.raises(InputError, match="give"):
            convert_weights(source_, tmp_path / target)


@pytest.mark.usefixtures("small_presets")
def test_a_conversion_loses_no_file_and_takes_no_option_that_does_nothing(tmp_path: Path) -> None:
    source, ours = tmp_path / "in.model", tmp_path / "ours"
    torch.save(checkpoint(network_like("synapse")), source)
    convert_weights(source, ours)
    convert_weights(source, ours)  # its own files are replaced
    moved = source.rename(ours / "in.model")
    with pytest.raises(InputError, match="holds other things, which would be lost"):
        convert_weights(moved, ours)
    assert moved.is_file()
    for more in ({"variant": "synapse"}, {"native_orientation": "SPL"}):
        with pytest.raises(ConfigError, match="is a folder of ours, which says that itself"):
            convert_weights(ours, tmp_path / "back.model", **more)
    assert not (tmp_path / "back.model").exists()


@pytest.mark.usefixtures("small_presets")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.half(), None),
        (lambda t: t.double(), None),
        (lambda t: t.to(torch.complex64), "torch.complex64"),
        (lambda t: t.to(torch.int8), "torch.int8"),
    ],
)
def test_weights_of_other_numbers_fit_or_are_named(change, words: str | None) -> None:
    network = network_like("synapse")
    name = "out1.conv.conv.weight"
    weights = {**published_state(network), name: change(published_state(network)[name])}
    if words is None:
        load_published(network, weights)
        return
    with pytest.raises(InputError, match=rf"Weight 'heads.0.weight' holds .*{words}|{name}.*{words}"):
        load_published(network, weights)


@pytest.mark.usefixtures("small_presets")
def test_broken_weights_are_not_converted(tmp_path: Path) -> None:
    whole = checkpoint(network_like("synapse"))
    name = next(iter(whole["state_dict"]))
    whole["state_dict"][name] = whole["state_dict"][name] * float("nan")
    torch.save(whole, tmp_path / "in.model")
    with pytest.raises(InputError, match=r"in\.model: the weight '.*' holds NaN or infinite numbers"):
        convert_weights(tmp_path / "in.model", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.usefixtures("small_presets")
def test_twins_of_other_numbers_are_no_twins() -> None:
    weights = published_state(network_like("synapse"))
    halves = {name: tensor.half() if ".F." in name else tensor for name, tensor in weights.items()}
    with pytest.raises(InputError, match="differs from its twin E"):
        load_published(network_like("synapse"), halves)


@pytest.mark.usefixtures("small_presets")
@pytest.mark.parametrize(
    "change",
    [
        {"patch": [32 * 10**9] * 3},
        {"classes": 10**30},
        {"classes": float("inf")},
        {"variant": ["x"], "native_orientation": None},
    ],
    ids=str,
)
def test_a_damaged_description_is_told_in_words(change: dict[str, object], tmp_path: Path) -> None:
    write_folder(network_like("synapse"), tmp_path, variant="synapse", native_orientation="SPL")
    facts = json.loads((tmp_path / "network.json").read_text())
    (tmp_path / "network.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(InputError, match=r"network\.json: .*convert the checkpoint again"):
        read_folder(tmp_path, as_stored=True)


@pytest.mark.usefixtures("small_presets")
def test_an_unknown_orientation_is_asked_for(tmp_path: Path) -> None:
    network = network_like("lung")
    write_folder(network, tmp_path / "ours", variant="lung", native_orientation=None)
    with pytest.raises(ConfigError, match=r"network\.native_orientation.*SPL"):
        read_folder(tmp_path / "ours")
    assert read_folder(tmp_path / "ours", native_orientation="SPL").config.native_orientation == "SPL"
    assert read_folder(tmp_path / "ours", as_stored=True).patch == (8, 24, 24)
    with pytest.raises(ConfigError, match="SPX"):
        convert_weights(tmp_path / "none.model", tmp_path / "x", native_orientation="SPX")
    (tmp_path / "ours" / "model.safetensors").write_bytes(b"123")
    with pytest.raises(InputError, match="convert the checkpoint again"):
        read_folder(tmp_path / "ours", as_stored=True)
    with pytest.raises(ConfigError, match="'SPX'"):
        read_folder(tmp_path / "ours", native_orientation="SPX")
    facts = json.loads((tmp_path / "ours" / "network.json").read_text())
    (tmp_path / "ours" / "network.json").write_text(json.dumps({**facts, "native_orientation": "SPX"}))
    with pytest.raises(InputError, match="convert the checkpoint again"):
        read_description(tmp_path / "ours")
    (tmp_path / "ours" / "network.json").write_text("{}")
    with pytest.raises(InputError, match="convert the checkpoint again"):
        read_folder(tmp_path / "ours", as_stored=True)


RUN_PLAN = {
    "inputs": "", "channels": ["image"], "spacing_mm": [1.0, 1.0, 1.0], "patch": [16, 16, 16], "batch": 2, "steps": 2,
    "rules": {"image": "case"}, "statistics": {}, "reasons": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (
            {"kind": "unet", "widths": [4, 8], "strides": [[1] * 3, [2] * 3], "kernels": [[3] * 3] * 2},
            "is unet; ",
        ),
        ({"kind": "segresnet", "width": 8}, "is segresnet; "),
        ({**FIELDS, "stem": [2, 2, 2], "layout": "aligned", "full_norm": "batch"}, "network.layout = 'aligned'"),
        ({**FIELDS, "stem": [2, 2, 2], "layout": "legacy"}, "this run learned regions that may overlap"),
    ],
    ids=["unet", "segresnet", "aligned", "regions"],
)
def test_a_run_of_another_network_has_no_such_file(network: dict[str, object], words: str, tmp_path: Path) -> None:
    best = tmp_path / "run" / "fold0" / "best"
    best.mkdir(parents=True)
    plan = Plan.model_validate({**RUN_PLAN, "network": network})
    write_plan(plan, tmp_path / "run" / "plan.json")
    regions = {"regions": {"whole": ["a", "b"], "core": ["b"]}} if "regions" in words else {}
    config = config_from({"cases": "cases.csv", "labels": {"a": 1, "b": 2}, **regions}, "neoseg.toml")
    write_json(tmp_path / "run" / "config.json", config.model_dump(mode="json"))
    made = build_network(plan.network, in_channels=1, classes=2, patch=plan.patch)
    save_file({name: tensor.contiguous() for name, tensor in made.state_dict().items()}, best / "model.safetensors")
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        convert_weights(best, tmp_path / "out.model")
    assert "of layout legacy" in str(caught.value) or "can be written" in str(caught.value)
    assert not (tmp_path / "out.model").exists()
    (best / "model.safetensors").write_bytes(b"x" * 20)
    with pytest.raises((ConfigError, InputError), match=r"fold0.best"):
        convert_weights(best, tmp_path / "out.model")


def test_every_variant_states_its_orientation_or_why_not() -> None:
    for preset in PUBLISHED.values():
        assert preset.orientation_source
        if preset.native_orientation is not None:
            configs.check_orientation(preset.native_orientation)


@pytest.mark.usefixtures("small_presets")
def test_reasons_name_what_is_wrong(tmp_path: Path) -> None:
    network, path = network_like("synapse"), tmp_path / "w.model"
    state = published_state(network)
    for content, told, more in [
        (state | {"x": np.zeros(3)}, "'x' of the type array in its 'state_dict'", {}),
        (state | {"y": [1]}, "'y' of the type list in its 'state_dict'", {}),
        ({}, "an empty or other 'state_dict' (dict)", {}),
        (None, "an empty or other 'state_dict' (NoneType)", {}),
        (state, "another pickle_protocol than 2", {"pickle_protocol": 4}),
    ]:
        torch.save({"state_dict": content}, path, **more)
        with pytest.raises(InputError, match=re.escape(told)):
            read_checkpoint_file(path)
    twin = next(name for name in state if ".epa_block.F." in name)
    with pytest.raises(InputError, match=r"look like the published variant 'synapse', but F differs from E"):
        network_of(state | {twin: state[twin] + 1})
    with pytest.raises(InputError, match=r"1 of \d+ weights missing, first 'out1.* of the same variant\.$"):
        load_published(network, {name: tensor for name, tensor in state.items() if name != "out1.conv.conv.bias"})
