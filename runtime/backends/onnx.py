# SPDX-License-Identifier: Apache-2.0
"""ONNX artifacts on stock onnxruntime, any release since 1.17, on the execution provider chosen."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.errors import BackendFailure, BackendUnavailable
from edgefl.graph import Graph, Node, TensorType, write_onnx
from edgefl.requirements import pip_install
from edgefl.runtime.backends.base import Array, Engine, Names, Program, artifact_of, as_array
from edgefl.runtime.delegates.choice import Choice, Placement

_ERRORS_ONLY = 3
_CPU = "CPUExecutionProvider"


class OnnxBackend(Engine):
    """onnxruntime on the CPU or another provider, with `threads` threads inside an operator."""

    name = target = "onnx"

    def __init__(self, threads: int = 1, choice: Choice | None = None) -> None:
        self._engine = _import()
        self._threads = threads
        self._choice = choice or Choice("onnx")
        self.version = f"onnxruntime {self._engine.__version__}"
        self.providers = tuple(self._engine.get_available_providers())

    def load(self, bundle: Bundle, kind: str) -> Program:
        artifact = artifact_of(bundle, self.target, kind)
        session = self._session(bundle.artifact(self.target, kind), artifact.path, self._options())
        label, placement = f"{self.version} on {artifact.path}", Placement(kind, self._choice.name)
        return _OnnxProgram(session, Names.of(artifact), label, placement)

    def check(self) -> None:
        """Load the provider; raises BackendFailure where its libraries or device are missing."""
        tensor = TensorType(np.dtype("float32"), (1,))
        graph = Graph({"x": tensor}, {"y": tensor}, (Node("Neg", ("x",), ("y",)),))
        self._session(write_onnx(graph), "a test graph", self._options())

    def placed(self, bundle: Bundle, kind: str, feeds: Mapping[str, Array], program: Program) -> Placement:
        """Where the operators run, from the engine's profile of one run in a session made for that."""
        with tempfile.TemporaryDirectory(prefix="edgefl-") as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            artifact = artifact_of(bundle, self.target, kind)
            session = self._session(bundle.artifact(self.target, kind), artifact.path, options)
            _OnnxProgram(session, Names.of(artifact), self.version, Placement(kind))(feeds)
            events = json.loads(Path(session.end_profiling()).read_text())
        return _placement(kind, self._choice.name, events)

    def _options(self) -> Any:
        options = self._engine.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # One block for all that a run holds comes beside the pieces the first run took, which stay: up to a
        # third more memory, for a hundredth of the time.
        options.enable_mem_pattern = False
        return options

    def _session(self, data: bytes, path: str, options: Any) -> Any:
        provider = self._choice.provider
        wanted = [(provider, dict(self._choice.options))] if provider else []
        try:
            with warnings.catch_warnings():
                # It would only say what the check of the session's providers says below.
                warnings.simplefilter("ignore")
                session = self._engine.InferenceSession(data, options, providers=[*wanted, _CPU])
        except Exception as exc:  # the engine's exceptions share no base class
            raise BackendFailure(f"{self.version} refuses {path}: {exc}") from exc
        if provider and provider not in session.get_providers():
            raise BackendFailure(
                f"{self.version} does not use {provider}: its libraries or device are missing"
            )
        return session


class _OnnxProgram:
    def __init__(self, session: Any, names: Names, label: str, placement: Placement) -> None:
        self.placement = placement
        self._session, self._names, self._label = session, names, label
        self._own_outputs = [output.name for output in session.get_outputs()]
        self._outputs = [names.to_contract(name) for name in self._own_outputs]

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            values = self._session.run(self._own_outputs, self._names.to_own(feeds))
        except Exception as exc:  # the engine's exceptions share no base class
            raise BackendFailure(f"{self._label}: {exc}") from exc
        return dict(zip(self._outputs, map(as_array, values), strict=True))


def _placement(kind: str, delegate: str, events: list[dict[str, Any]]) -> Placement:
    ran = {e["name"]: e["args"]["provider"] for e in events if e.get("cat") == "Node" and _is_operator(e)}
    elsewhere = [provider != _CPU for provider in ran.values()]
    starts = sum(now and not before for before, now in zip([False, *elsewhere], elsewhere, strict=False))
    return Placement(kind, delegate, len(elsewhere), sum(elsewhere), starts)


def _is_operator(event: dict[str, Any]) -> bool:
    arguments = event.get("args", {})
    return bool(arguments.get("provider")) and not str(arguments.get("op_name", "")).startswith("Memcpy")


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as exc:
        raise BackendUnavailable(
            f"backend 'onnx' needs onnxruntime: {pip_install('onnxruntime')} ({exc}); "
            "backend 'numpy' runs the same bundle without it"
        ) from exc
    return onnxruntime
