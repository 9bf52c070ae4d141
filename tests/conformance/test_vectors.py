# SPDX-License-Identifier: Apache-2.0
"""Python replays the vectors that Java and Swift replay, and they are what this release writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefl.runtime.host.conformance import replay, self_test
from tests.host.doubles import NumpyEngine

pytestmark = pytest.mark.device
VECTORS = Path(__file__).parent / "vectors"


def test_python_gives_what_the_vectors_say() -> None:
    results = replay(VECTORS, NumpyEngine())
    assert len(results) == 36
    assert not [result for result in results if result.wrong]


def test_a_vector_that_differs_is_named_in_the_report(tmp_path: Path) -> None:
    for file in VECTORS.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pack-1.safetensors").write_bytes((VECTORS / "pack-2.safetensors").read_bytes())
    (tmp_path / "refused-3.bin").write_bytes((VECTORS / "pack-2.safetensors").read_bytes())
    report = self_test(str(tmp_path), NumpyEngine())
    assert "34 of 36 vectors as expected" in report
    assert "| pack: a scalar | other bytes are written |" in report
    assert "| refused: refused-3.bin | it is taken for tensors |" in report
