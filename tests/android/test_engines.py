# SPDX-License-Identifier: Apache-2.0
"""The bridge's engines, with the kernels of this machine, behind the runtime's own trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl import Bundle
from edgefl.errors import BackendFailure, BackendUnavailable
from edgefl.runtime import Trainer
from edgefl.runtime.host import HostBackend
from tests.android.host import Host

FIXTURES = Path(__file__).parents[1] / "fixtures"
ENGINES = {"LiteRtEngine": "tflite", "OrtEngine": "onnx"}


@pytest.fixture
def bundle() -> Bundle:
    return Bundle.open(FIXTURES / "mlp.edgefl")


def examples(bundle: Bundle, count: int = 24) -> tuple[Any, Any]:
    """Data the model takes, and labels."""
    rng = np.random.default_rng(3)
    (spec,) = bundle.manifest.inputs
    classes = bundle.manifest.heads[0].label
    x = rng.normal(size=(count, *spec.shape[1:])).astype(np.float32)
    return x, rng.integers(0, 3, (count, *classes.shape[1:])).astype(np.int32)


@pytest.mark.parametrize("name", ENGINES)
def test_trains_as_the_engine_does_in_python(
    dev: Any, host: Host, bundle: Bundle, tmp_path: Path, name: str
) -> None:
    x, y = examples(bundle)
    engine = getattr(dev, name)(1)
    through = Trainer(bundle, HostBackend(engine, tmp_path))
    direct = Trainer(bundle, ENGINES[name], delegate="auto" if name == "LiteRtEngine" else "cpu")
    ours, theirs = (one.fit(x, y, epochs=3, lr=0.1, seed=1) for one in (through, direct))
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-6)
    for key, value in direct.parameters().items():
        np.testing.assert_allclose(through.parameters()[key], value, rtol=1e-5, atol=1e-6)
    engine.close()
    assert not host.open_models


def test_a_file_the_engine_refuses_is_a_backend_failure(dev: Any, bundle: Bundle, tmp_path: Path) -> None:
    engine = dev.LiteRtEngine(1)
    backend = HostBackend(engine, tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    program = backend.load(bundle, "step")
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"no model")
    with pytest.raises(BackendFailure, match=r"litert .* on .*step.*: .*LiteRT"):
        program({})
    engine.close()


def test_a_wrong_engine_is_found_out_before_it_trains(bundle: Bundle, tmp_path: Path) -> None:
    class Wrong:
        """An engine that gives back what it was given."""

        def describe(self) -> str:
            return '{"name": "wrong", "version": "1", "target": "tflite"}'

        def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
            return tensors

    x, y = examples(bundle)
    with pytest.raises(BackendFailure, match="wrong"):
        Trainer(bundle, HostBackend(Wrong(), tmp_path)).fit(x, y, epochs=1, lr=0.1)


@pytest.mark.parametrize("text", ["", "{}", '{"name": "a", "version": "1", "target": "cuda"}'])
def test_an_engine_says_what_it_is(tmp_path: Path, text: str) -> None:
    class Silent:
        def describe(self) -> str:
            return text

        def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
            return b""

    with pytest.raises(BackendUnavailable, match="does not say what it is"):
        HostBackend(Silent(), tmp_path)
