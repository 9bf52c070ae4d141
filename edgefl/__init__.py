# SPDX-License-Identifier: Apache-2.0
"""edgefl: train where inference runs.

The names below are the whole public face of the package. They are looked up on first use, so that
`import edgefl` on a device costs the standard library and NumPy only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgefl._version import __version__

if TYPE_CHECKING:
    from edgefl.bundle import Bundle
    from edgefl.converters import convert, export, export_int8, load_into
    from edgefl.delta import apply_feedback, decode_delta, encode_delta, encode_with_feedback
    from edgefl.options import FitOptions
    from edgefl.runtime import Trainer, pull
    from edgefl.server_stub import aggregate

_DOORS = {
    "Bundle": "edgefl.bundle",
    "FitOptions": "edgefl.options",
    "Trainer": "edgefl.runtime",
    "aggregate": "edgefl.server_stub",
    "apply_feedback": "edgefl.delta",
    "convert": "edgefl.converters",
    "decode_delta": "edgefl.delta",
    "encode_delta": "edgefl.delta",
    "encode_with_feedback": "edgefl.delta",
    "export": "edgefl.converters",
    "export_int8": "edgefl.converters",
    "load_into": "edgefl.converters",
    "pull": "edgefl.runtime",
}

__all__ = [
    "Bundle",
    "FitOptions",
    "Trainer",
    "__version__",
    "aggregate",
    "apply_feedback",
    "convert",
    "decode_delta",
    "encode_delta",
    "encode_with_feedback",
    "export",
    "export_int8",
    "load_into",
    "pull",
]


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module 'edgefl' has no attribute {name!r}; it offers {', '.join(__all__)}")
    try:
        return getattr(importlib.import_module(_DOORS[name]), name)
    except ModuleNotFoundError as exc:
        if exc.name != _DOORS[name]:
            raise
    from edgefl.errors import MissingDependency
    from edgefl.requirements import DISTRIBUTION

    raise MissingDependency(DISTRIBUTION, "", f"edgefl.{name}, which a device does without,")


def __dir__() -> list[str]:
    return sorted(__all__)
