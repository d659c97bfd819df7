"""``python -m neoseg`` and the ``neoseg`` command."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; exit 0 when all went well, 2 for a mistake in what was given, 1 for a failure of ours."""
    from .cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
