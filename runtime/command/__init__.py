# SPDX-License-Identifier: Apache-2.0
"""`edgefl device`, whatever parses its options: taking part, and telling the owner about it."""

from __future__ import annotations

import os
import sys

from edgefl.options import DataOptions, DeviceOptions, EngineOptions, LimitOptions, WhenOptions

__all__ = ["main", "run"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """The command by the standard library alone; exits as `edgefl` does."""
    from edgefl.runtime.command.plain import parsed, reported

    arguments = sys.argv[1:]
    sys.exit(reported(lambda: run(*parsed(arguments[1:] if arguments[:1] == ["device"] else arguments))))


def run(
    device: DeviceOptions,
    engine: EngineOptions,
    when: WhenOptions,
    limits: LimitOptions,
    reading: DataOptions,
) -> None:
    """Do what the options ask for; see `edgefl.runtime.command.device`."""
    if "numpy" not in sys.modules:
        # NumPy's products take every processor unless told otherwise before it is imported.
        for name in _THREADS:
            os.environ.setdefault(name, str(limits.threads))
    from edgefl.runtime.command.device import serve_owner

    serve_owner(device, engine, when, limits, reading)
