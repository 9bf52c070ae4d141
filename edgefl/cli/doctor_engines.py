# SPDX-License-Identifier: Apache-2.0
"""What `edgefl doctor` says about engines that run the same graphs: which `auto` takes for a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefl.cli.output import print_line
from edgefl.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefl.bundle import Bundle
    from edgefl.runtime.backends.fastest import Speed


def engine_speeds(bundle: Bundle) -> tuple[Speed, ...]:
    """The engines measured for a bundle, the fastest first; empty where there is no choice."""
    from edgefl.runtime import open_backend

    try:
        return getattr(open_backend(bundle), "speeds", ())
    except BackendError:
        return ()


def speed_row(speed: Speed) -> dict[str, Any]:
    """A speed as JSON says it."""
    return {"engine": speed.engine, "ms": None if speed.reason else speed.ms, "reason": speed.reason}


def show_speeds(speeds: Sequence[Speed]) -> None:
    """One line: what `auto` takes, and the others."""
    if speeds:
        print_line(f"Step of this bundle, fastest first: {'; '.join(map(str, speeds))}")
