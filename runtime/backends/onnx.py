# SPDX-License-Identifier: Apache-2.0
"""ONNX artifacts on stock onnxruntime, any release since 1.17."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgefl.bundle import Bundle
from edgefl.errors import BackendFailure, BackendUnavailable
from edgefl.runtime.backends.base import Array, Names, Program, artifact_of, as_array

_ERRORS_ONLY = 3


class OnnxBackend:
    """onnxruntime on the CPU, with `threads` threads inside an operator."""

    name = target = "onnx"

    def __init__(self, threads: int = 1) -> None:
        self._engine = _import()
        self._threads = threads
        self.version = f"onnxruntime {self._engine.__version__}"

    def load(self, bundle: Bundle, kind: str) -> Program:
        artifact = artifact_of(bundle, self.target, kind)
        options = self._engine.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        data = bundle.artifact(self.target, kind)
        try:
            session = self._engine.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # the engine's exceptions share no base class
            raise BackendFailure(f"{self.version} refuses {artifact.path}: {exc}") from exc
        return _OnnxProgram(session, Names.of(artifact), f"{self.version} on {artifact.path}")


class _OnnxProgram:
    def __init__(self, session: Any, names: Names, label: str) -> None:
        self._session, self._names, self._label = session, names, label
        self._own_outputs = [output.name for output in session.get_outputs()]
        self._outputs = [names.to_contract(name) for name in self._own_outputs]

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            values = self._session.run(self._own_outputs, self._names.to_own(feeds))
        except Exception as exc:  # the engine's exceptions share no base class
            raise BackendFailure(f"{self._label}: {exc}") from exc
        return dict(zip(self._outputs, map(as_array, values), strict=True))


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as exc:
        raise BackendUnavailable(
            f"backend 'onnx' needs onnxruntime: pip install 'edgefl[onnx]' ({exc}); "
            "backend 'numpy' runs the same bundle without it"
        ) from exc
    return onnxruntime
