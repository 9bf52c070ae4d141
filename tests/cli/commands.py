# SPDX-License-Identifier: Apache-2.0
"""Commands and how they ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """The one JSON object it printed."""
        assert self.status == 0, self.err
        return json.loads(self.out)

    def refusal(self) -> dict[str, str]:
        """The error of a command called with --json: an object on standard output, one line besides."""
        assert self.status == 1, self.out + self.err
        assert "Traceback" not in self.err
        error: dict[str, str] = json.loads(self.out)
        assert error.keys() == {"error", "message"}
        assert self.err.startswith(f"error ({error['error']}) ") and self.err.count("\n") == 1
        return error


Command = Callable[..., Ran]


def in_own_process(arguments: tuple[object, ...], folder: Path, columns: int = 100) -> Ran:
    environment = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "edgefl", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=600)
    return Ran(done.returncode, done.stdout, done.stderr)


def save_examples(path: Path, **changes: Any) -> Path:
    """An `.npz` file of 96 examples in three clusters, with arrays replaced or added."""
    random = np.random.Generator(np.random.PCG64(7))
    y = random.integers(0, 3, 96).astype(np.int32)
    centres = random.normal(size=(3, 6)) * 2
    x = (centres[y] + random.normal(size=(96, 6))).astype(np.float32)
    np.savez(path, **{"x": x, "y": y, **changes})
    return path
