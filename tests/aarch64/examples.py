# SPDX-License-Identifier: Apache-2.0
"""python tests/aarch64/examples.py FILE.npz: examples for the model `tests/fixtures/mlp.edgefl`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from tests.fixtures.make import examples  # noqa: E402

if __name__ == "__main__":
    x, y = examples(48, 3)
    np.savez(sys.argv[1], x=x, y=y)
