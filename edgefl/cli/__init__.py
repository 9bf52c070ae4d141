# SPDX-License-Identifier: Apache-2.0
"""The command line. Commands import what they need when they run, so `--help` answers at once."""

from __future__ import annotations

import os
import sys

from edgefl.requirements import pip_install


def main() -> None:
    """Run the command line; errors raised on purpose end it with one clear line and status 1."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up chatter, where it is used
    try:
        from edgefl.cli.app import run
    except ImportError as exc:
        if exc.name not in ("typer", "rich", "click"):
            raise
        if sys.argv[1:2] == ["device"]:
            from edgefl.runtime.command import main as device

            return device()
        print(
            f"the edgefl command needs the package {exc.name!r}: {pip_install(exc.name, 'cli')}",
            file=sys.stderr,
        )
        sys.exit(1)
    sys.exit(run())
