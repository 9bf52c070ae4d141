# SPDX-License-Identifier: Apache-2.0
"""What the tests ask of an app's doubles beside what they are: to count, to throw, to stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.runtime.host import doubles, run_round
from edgefl.tensorfile import read_tensors, write_tensors


def fill(folder: str | Path, seed: int = 5, count: int = 40) -> None:
    """Put a device's examples in its folder."""
    rng = np.random.default_rng(seed)
    Path(folder).mkdir(parents=True, exist_ok=True)
    x = rng.normal(size=(count, 6)).astype(np.float32)
    np.savez(Path(folder) / "examples.npz", x=x, y=rng.integers(0, 3, count).astype(np.int32))


def frame_of(bundle: str, folder: str, settings: str) -> bytes:
    """The frame of a round whose engine is Python's own."""
    return run_round(bundle, folder, doubles.NumpyEngine(), doubles.ScriptedPhone(), settings)


def again(pack: bytes) -> bytes:
    """Tensors that were read and written once more."""
    return write_tensors(read_tensors(pack))


class NumpyEngine(doubles.NumpyEngine):
    """Counts its runs; what is called before each may throw."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.runs, self._before = 0, before

    def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
        self._before()
        self.runs += 1
        return super().run(artifact, signature, tensors)


class Phone(doubles.ScriptedPhone):
    """Stops when it has been asked so often."""

    def __init__(self, *script: dict[str, Any], stop_after: int | None = None) -> None:
        super().__init__(*script)
        self._stop_after, self.asked = stop_after, 0

    def stopped(self) -> bool:
        self.asked += 1
        return self._stop_after is not None and self.asked > self._stop_after
