"""neoseg: U-shaped networks for medical image segmentation, and a pipeline for brain lesions of the newborn.

The names below are the public interface; each is imported when it is first used, so ``import neoseg`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import RunConfig, load_config
    from .data.cases import Case, read_cases, write_cases
    from .data.layouts.imported import ImportOptions
    from .errors import ConfigError, GeometryError, InputError, MachineError, NeosegError, StateError, UserError
    from .inference.predictor import Prediction, Predictor, Wanted
    from .io import read_volume, write_volume
    from .labels import LabelSet
    from .networks.build import build_network
    from .networks.configs import UnetrPPConfig
    from .pipeline.evaluate_folders import evaluate_folders
    from .pipeline.import_data import import_folder
    from .pipeline.load_run import load_predictor
    from .pipeline.new_scans import PredictedScan, PredictOptions, predict_scans
    from .pipeline.run import run
    from .volume import Grid, Volume

__version__ = "0.1.0"

__all__ = [
    "Case",
    "ConfigError",
    "GeometryError",
    "Grid",
    "ImportOptions",
    "InputError",
    "LabelSet",
    "MachineError",
    "NeosegError",
    "PredictOptions",
    "PredictedScan",
    "Prediction",
    "Predictor",
    "RunConfig",
    "StateError",
    "UnetrPPConfig",
    "UserError",
    "Volume",
    "Wanted",
    "__version__",
    "build_network",
    "evaluate_folders",
    "import_folder",
    "load_config",
    "load_predictor",
    "predict_scans",
    "read_cases",
    "read_volume",
    "run",
    "write_cases",
    "write_volume",
]

_HOMES = {
    ".config": ("RunConfig", "load_config"),
    ".data.cases": ("Case", "read_cases", "write_cases"),
    ".data.layouts.imported": ("ImportOptions",),
    ".errors": (
        "ConfigError",
        "GeometryError",
        "InputError",
        "MachineError",
        "NeosegError",
        "StateError",
        "UserError",
    ),
    ".inference.predictor": ("Prediction", "Predictor", "Wanted"),
    ".io": ("read_volume", "write_volume"),
    ".labels": ("LabelSet",),
    ".networks.build": ("build_network",),
    ".networks.configs": ("UnetrPPConfig",),
    ".pipeline.evaluate_folders": ("evaluate_folders",),
    ".pipeline.import_data": ("import_folder",),
    ".pipeline.load_run": ("load_predictor",),
    ".pipeline.new_scans": ("PredictOptions", "PredictedScan", "predict_scans"),
    ".pipeline.run": ("run",),
    ".volume": ("Grid", "Volume"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'neoseg' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
