# SPDX-License-Identifier: Apache-2.0
"""TFLite artifacts on LiteRT or the older tflite-runtime, with an external delegate where one is named."""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from edgefl.bundle import Bundle
from edgefl.errors import BackendFailure, BackendUnavailable
from edgefl.runtime.backends.base import Array, Names, Program, artifact_of, as_array

_MODULES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
_DELEGATE_ENTRY = "tflite_plugin_create_delegate"


class TfliteBackend:
    """LiteRT on the CPU with `threads` threads, or on what the delegate library at `delegate` drives."""

    name = target = "tflite"

    def __init__(self, threads: int = 1, delegate: str | None = None) -> None:
        self._engine = _import()
        self._threads = threads
        self._delegates = [self._load_delegate(delegate)] if delegate else []
        self.version = _version(self._engine)

    def load(self, bundle: Bundle, kind: str) -> Program:
        artifact = artifact_of(bundle, self.target, kind)
        data = bundle.artifact(self.target, kind)
        try:
            interpreter = self._engine.Interpreter(
                model_content=data, num_threads=self._threads, experimental_delegates=self._delegates
            )
            runner = interpreter.get_signature_runner(_signature(interpreter, kind))
        except (ValueError, RuntimeError, TypeError) as exc:
            raise BackendFailure(f"{self.version} refuses {artifact.path}: {exc}") from exc
        return _TfliteProgram(runner, Names.of(artifact), f"{self.version} on {artifact.path}")

    def _load_delegate(self, path: str) -> Any:
        try:
            # First without the engine, whose half-made delegate would complain on its own when collected.
            ctypes.CDLL(path)[_DELEGATE_ENTRY]
            return self._engine.load_delegate(path)
        except (OSError, ValueError, RuntimeError, AttributeError) as exc:
            raise BackendUnavailable(f"delegate library {path!r} cannot be loaded: {exc}") from exc


class _TfliteProgram:
    def __init__(self, runner: Callable[..., dict[str, Any]], names: Names, label: str) -> None:
        self._runner, self._names, self._label = runner, names, label

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            values = self._runner(**self._names.to_own(feeds))
        except (ValueError, RuntimeError, TypeError) as exc:
            raise BackendFailure(f"{self._label}: {exc}") from exc
        return {self._names.to_contract(name): as_array(value) for name, value in values.items()}


def _signature(interpreter: Any, kind: str) -> str:
    """The signature named after the kind, or the only one there is."""
    names = list(interpreter.get_signature_list())
    if kind in names or len(names) != 1:
        return kind
    only: str = names[0]
    return only


def _import() -> Any:
    reasons = []
    for module in _MODULES:
        try:
            return importlib.import_module(module)
        except (ImportError, AttributeError) as exc:  # AttributeError: built against another NumPy
            reasons.append(f"{module.split('.')[0]}: {exc}")
    python = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    raise BackendUnavailable(
        f"backend 'tflite' needs ai-edge-litert or tflite-runtime: pip install 'edgefl[tflite]' "
        f"({'; '.join(reasons)}); where neither has a wheel for {python}, "
        "backend 'numpy' runs a bundle with ONNX artifacts"
    )


def _version(engine: Any) -> str:
    package = engine.__name__.split(".")[0]
    version = getattr(importlib.import_module(package), "__version__", "")
    return f"{package} {version}".strip()
