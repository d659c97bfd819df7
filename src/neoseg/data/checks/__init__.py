"""What may be wrong with a data set: every check looks at facts that were read once, and all problems come at once."""

from __future__ import annotations

from .problem import Problem
from .run import CHECKS, Check, run_checks

__all__ = ["CHECKS", "Check", "Problem", "run_checks"]
