"""Network configs: what they refuse, and what they derive."""

import subprocess
import sys

import pydantic
import pytest

from neoseg.errors import ConfigError, GeometryError
from neoseg.networks.configs import PUBLISHED, UnetrPPConfig, check_patch, required_multiple, token_grids


def test_published_grids() -> None:
    grids = {name: token_grids(variant.config, variant.patch) for name, variant in PUBLISHED.items()}
    assert [grid[0] for grid in grids.values()] == [(32, 32, 32), (16, 40, 40), (32, 32, 32), (32, 48, 48)]
    assert [grid[-1] for grid in grids.values()] == [(4, 4, 4), (2, 5, 5), (4, 4, 4), (4, 6, 6)]
    assert required_multiple(PUBLISHED["synapse"].config) == (16, 32, 32)


def test_the_stem_decides_multiples_and_tokens() -> None:
    config = UnetrPPConfig(stem=(2, 2, 1))
    assert required_multiple(config) == (16, 16, 8)
    assert token_grids(config, (32, 32, 16))[0] == (16, 16, 16)
    with pytest.raises(ConfigError, match=r"network\.stem"):
        required_multiple(UnetrPPConfig())


@pytest.mark.parametrize(("patch", "right"), [((75, 80, 30), "80x80x32"), ((3, 16, 8), "16x16x8")])
def test_the_nearest_patch_is_named(patch: tuple[int, ...], right: str) -> None:
    with pytest.raises(GeometryError, match=right):
        check_patch(UnetrPPConfig(stem=(2, 2, 1)), patch)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depths": (3, 3, 3)}, "depths has 3 entries"),
        ({"proj": (64,)}, "proj has 1 entries"),
        ({"dims": (30, 60, 120, 240)}, "use 28"),
        ({"dims": (32, 48, 96, 192)}, "not a multiple of dims"),
        ({"heads": 1, "dims": (3, 6, 12, 24)}, "odd"),
        ({"stem": (4, 4)}, "give it 3, or set spatial_dims = 2 for pictures"),
        ({"attention_dropout": 1.0}, "less than 1"),
        ({"widths": 3}, "Extra inputs"),
        ({"kind": "unet"}, "unetr_pp"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        UnetrPPConfig.model_validate(fields)


def test_configs_survive_json() -> None:
    for variant in PUBLISHED.values():
        assert UnetrPPConfig.model_validate_json(variant.config.model_dump_json()) == variant.config


def test_configs_load_no_torch() -> None:
    code = "import neoseg.networks.configs, neoseg.losses.configs, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
