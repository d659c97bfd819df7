"""Configurations: TOML in, resolved JSON out; wrong keys name the nearest valid one."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from neoseg.config import RunConfig, config_from, load_config, load_resolved, recipe_text, recipes
from neoseg.errors import ConfigError, InputError

MINIMAL = {"labels": {"lesion": 1}}
SEVERAL = {"labels": {"core": 1, "rim": [2, 3]}}


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_loads(name: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(recipe_text(name))
    assert load_config(path).workspace == tmp_path


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_suits_several_classes(name: str) -> None:
    config_from(tomllib.loads(recipe_text(name)) | SEVERAL, name)


def test_what_is_chosen_for_one_class_and_for_several() -> None:
    chosen = {"thresholds": [0.4, 0.5], "minimum_lesion_mm3": [9.0], "criterion": "both"}
    assert config_from({"labels": {"lesion": [1, 2]}, "postprocess": chosen}, "x").postprocess.thresholds == (0.4, 0.5)
    several = {**SEVERAL, "postprocess": {"keep_largest": [0, 1], "criterion": "both"}}
    assert config_from(several, "x").postprocess.criterion == "both"
    assert config_from({**SEVERAL, "postprocess": {"keep_largest": [1]}}, "x").postprocess.keep_largest == (1,)


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({**MINIMAL, "seeed": 1}, r"the key 'seeed' is not known \(did you mean 'seed'\?\)"),
        ({**MINIMAL, "network": {"jobs": 2}}, r"'network\.jobs' is not known: jobs belongs above the first \[table\]"),
        ({**MINIMAL, "network": {"core_minutes": 2}}, r"core_minutes belongs below \[plan\]; move it there"),
        ({**MINIMAL, "core_minutes": 2}, r"'core_minutes' is not known: core_minutes belongs below \[plan\]"),
        ({**MINIMAL, "network": {"fussion": "sum"}}, r"'network\.fussion' is not known \(did you mean 'fusion'\?\)"),
        ({**MINIMAL, "prepare": {"zmap": {"smooth": 1}}}, r"did you mean 'smooth_mm'\?"),
        ({**MINIMAL, "network": {"kind": "unet++"}}, r"did you mean 'unet_plus_plus'\?"),
        ({**MINIMAL, "network": {"kind": "UNETR++"}}, r"did you mean 'unetr_pp'\?"),
        ({**MINIMAL, "network": {"kind": "attention-unet"}}, r"did you mean 'attention_unet'\?"),
        (
            {**MINIMAL, "network": "unet"},
            r"network = 'unet': a table is wanted here, \[network\], whose key 'kind'",
        ),
        ({**MINIMAL, "loss": {"terms": {"kind": "focal"}}}, r"list of tables is wanted, .* write \[\[loss\.terms\]\]"),
        ({**MINIMAL, "rules": [{"name": "z", "chanel": "z", "low": 0, "high": 1}]}, r"did you mean 'channel'\?"),
        ({}, "the key 'labels' is missing"),
        ({**MINIMAL, "augment": {"blur_sigma": []}}, r"augment\.blur_sigma = \[\]: 2 values are wanted here, .* has 0"),
        ({**MINIMAL, "augment": {"rotation_degrees": [30]}}, r"rotation_degrees = \[30\]: 3 values are .* this has 1"),
        (
            {**MINIMAL, "augment": {"blur_sigma": [2, 1, 3]}},
            r"blur_sigma = \[2, 1, 3\]: at most 2 values are .* this has 3",
        ),
        ({**MINIMAL, "network": {"kind": "unet", "encoder": "residul"}}, r"encoder = 'residul' .* mean 'residual'"),
        ({**MINIMAL, "training": {"precision": "fp16"}}, r"training\.precision = 'fp16' is not known \("),
        ({**MINIMAL, "loss": {"kind": "dice"}}, r"the key 'loss\.kind' is not known( \(|; correct)"),
        ({**MINIMAL, "seed": -1}, r"seed = -1: .*greater than or equal to 0"),
        ({**MINIMAL, "device": "gpu"}, r"device = 'gpu'"),
        ({**MINIMAL, "name": "../x"}, r"name = '\.\./x'"),
        ({"labels": {"lesion": 0}}, "background"),
        ({"labels": {"a": 1, "b": [1, 2]}}, "differ"),
        ({"labels": {}}, "at least one class"),
        ({**MINIMAL, "window": {"mirror_axes": [-1]}}, r"window\.mirror_axes = \[-1\]: the spatial axes 0 \(x\), 1"),
        ({**MINIMAL, "window": {"mirror_axes": [3]}}, r"window\.mirror_axes = \[3\]: .*each at most once"),
        ({**MINIMAL, "window": {"mirror_axes": [0, 1, 0]}}, r"window\.mirror_axes = \[0, 1, 0\]: .*each at most once"),
        ({**MINIMAL, "window": {"whole": True}}, r"window\.whole needs .* set network\.size to \"flex\" or \"free\""),
        (
            {**MINIMAL, "training": {"validate_whole": True}},
            r"training\.validate_whole needs .* network\.size to \"flex\"",
        ),
        ({**MINIMAL, "training": {"validate_whole": 1}}, r"training\.validate_whole = 1: true, false or a number"),
        ({**MINIMAL, "seed": 20240101120000001}, r"seed"),
        ({**MINIMAL, "channels": []}, r"channels = \[\]: name at least one"),
        ({**MINIMAL, "channels": ["adc", "adc"]}, r"channels = \['adc', 'adc'\]: .* each once, or leave it out"),
        ({**MINIMAL, "training": {"gradient_clip": float("inf")}}, r"training\.gradient_clip = inf"),
        (
            {**MINIMAL, "folds": {"inner_share": 0}, "training": {"schedule": "plateau"}},
            r"training\.schedule = \"plateau\" looks .* or remove training\.schedule",
        ),
        (
            {**MINIMAL, "folds": {"inner_share": 0}, "training": {"early_stop_patience": 9}},
            r"early_stop_patience looks .* set folds\.inner_share to 0\.2, or remove training\.early_stop_patience",
        ),
        ({**SEVERAL, "postprocess": {"thresholds": [0.4]}}, r"postprocess\.thresholds has no use with 2 classes"),
        ({**SEVERAL, "postprocess": {"minimum_lesion_mm3": [9.0]}}, r"minimum_lesion_mm3 has no use with 2 classes"),
        ({**SEVERAL, "postprocess": {"criterion": "both"}}, r"criterion has no use .*keep_largest is \[0\]"),
        ({**SEVERAL, "postprocess": {"criterion": "both", "keep_largest": [1]}}, r"keep_largest is \[1\]"),
    ],
)
def test_a_wrong_key_or_value_is_one_clear_sentence(tree: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        config_from(tree, "run.toml")
    assert str(caught.value).startswith("run.toml: ")
    assert "\n" not in str(caught.value)


def test_changes_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[labels]\nlesion = 1\n")
    config = load_config(path, ["network.fusion=sum", "seed=3", "window.mirror_axes=[0, 1]", 'device="cpu"'])
    assert (config.network.fusion, config.seed, config.window.mirror_axes) == ("sum", 3, (0, 1))
    for change, sentence in [("seed", "key=value"), ("seed.x=1", "is a value"), ("trainig.steps=1", "training")]:
        with pytest.raises(ConfigError, match=sentence):
            load_config(path, ["seed=1", change])


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    path = tmp_path / "here" / "run.toml"
    path.write_text('cases = "../cases.csv"\n[labels]\nlesion = 1\n')
    config = load_config(path, workspace=tmp_path / "there")
    assert config.cases.resolve() == tmp_path / "cases.csv"
    assert config.workspace == tmp_path / "there"


@pytest.mark.parametrize("text", ["a = ", "\x00", "[labels\n"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(path)
    with pytest.raises(InputError, match="no such configuration"):
        load_config(tmp_path / "other.toml")


def test_the_resolved_json_gives_the_same_configuration_back(tmp_path: Path) -> None:
    config = config_from({**MINIMAL, "prepare": {"zmap": {}}, "network": {"stem": [2, 2, 1]}}, "x")
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json())
    assert load_resolved(path) == config
    assert isinstance(load_resolved(path), RunConfig)
    path.write_text("{}")
    with pytest.raises(ConfigError, match="not the configuration"):
        load_resolved(path)


def test_false_switches_an_optional_step_off() -> None:
    prepare = config_from({**MINIMAL, "prepare": {"ffd": False, "zmap": {}, "bias_field": False}}, "x").prepare
    assert prepare.ffd is None
    assert prepare.bias_field is None
    assert prepare.zmap is not None


def test_terms_of_the_loss_by_file_and_by_change(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[labels]\nlesion = 1\n[loss]\ndice_weight = 0\n[[loss.terms]]\nkind = "focal"\ngamma = 3.0\n')
    (term,) = load_config(path).loss.terms
    assert term.model_dump() == {"kind": "focal", "weight": 1.0, "gamma": 3.0, "alpha": None}
    change = 'loss.terms=[{kind = "tversky", alpha = 0.4}, {kind = "hausdorff", weight = 0.1, logarithm = true}]'
    config = load_config(path, [change])
    assert [(term.kind, term.weight) for term in config.loss.terms] == [("tversky", 1.0), ("hausdorff", 0.1)]
    stored = tmp_path / "config.json"
    stored.write_text(config.model_dump_json())
    assert load_resolved(stored) == config
    assert load_config(path, ["loss.terms=[]"]).loss.terms == ()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            '[{kind = "focl"}]',
            r"run\.toml: loss\.terms\.0\.kind = 'focl' is not known \(did you mean 'focal'\?\); corr",
        ),
        (
            '[{kind = "boundary"}, {kind = "jacard"}]',
            r"loss\.terms\.1\.kind = 'jacard' .* \(did you mean 'jaccard'\?\)",
        ),
        ('[{kind = "tversky", bta = 1}]', r"the key 'loss\.terms\.0\.bta' is not known \(did you mean 'beta'\?\)"),
        ("[{gamma = 1.0}]", r"the key 'loss\.terms\.0\.kind' is missing \(valid: binary_cross_entropy, .*tversky\)"),
        ('[{kind = "focal", gamma = -1}]', r"loss\.terms\.0\.gamma = -1: .*greater than or equal to 0"),
        ('[{kind = "ms_ssim", window = 4}]', r"loss\.terms\.0 = .*: window = 4 is even .* use 3 or 5"),
        ('[{kind = "dice"}]', r"loss\.terms = .*kind = 'dice' is set by dice_weight and \[loss\.dice\]"),
        ("[{kind = focal}]", r"--set loss\.terms=\[\{kind = focal\}\]: the value is not valid TOML .*double quotes"),
        ("focal", r"loss\.terms = 'focal': a list is wanted here"),
        ('["focal"]', r"loss\.terms\.0 = 'focal': a table is wanted here, \[\[loss\.terms\]\]"),
    ],
)
def test_a_wrong_term_of_the_loss_is_one_clear_sentence(value: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[labels]\nlesion = 1\n")
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_config(path, [f"loss.terms={value}"])
    assert "\n" not in str(caught.value)
