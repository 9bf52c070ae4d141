# SPDX-License-Identifier: Apache-2.0
"""TOML files, by the standard library from Python 3.11 on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from edgefl.errors import MissingDependency, OptionError

if sys.version_info >= (3, 11):
    import tomllib
else:
    try:
        import tomli as tomllib
    except ImportError:
        tomllib = None


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of a file.

    Raises:
        OptionError: it is no TOML.
        OSError: it cannot be read.
        MissingDependency: Python 3.10 without tomli.
    """
    if tomllib is None:
        raise MissingDependency("tomli", "", "a file of options")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise OptionError(f"{file} is no TOML file: {exc}") from exc
