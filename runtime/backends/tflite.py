# SPDX-License-Identifier: Apache-2.0
"""TFLite artifacts on LiteRT or the older tflite-runtime, with the delegate chosen."""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.errors import BackendFailure, BackendUnavailable
from edgefl.requirements import pip_install
from edgefl.runtime.backends.base import Array, Engine, Names, Program, artifact_of, as_array
from edgefl.runtime.delegates.choice import CPU, Choice, Placement

_MODULES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
_DELEGATE_ENTRY = "tflite_plugin_create_delegate"
_DELEGATE = "DELEGATE"


class TfliteBackend(Engine):
    """LiteRT with `threads` threads: its own kernels, XNNPACK, or an external delegate, then XNNPACK."""

    name = target = "tflite"

    def __init__(self, threads: int = 1, choice: Choice | None = None) -> None:
        self._engine = _import()
        self._threads = threads
        self._choice = choice or Choice("tflite")
        self._delegates = [self._load_delegate()] if self._choice.library else []
        self.version = _version(self._engine)

    def load(self, bundle: Bundle, kind: str) -> Program:
        artifact = artifact_of(bundle, self.target, kind)
        data = bundle.artifact(self.target, kind)
        try:
            interpreter = self._engine.Interpreter(
                model_content=data,
                num_threads=self._threads,
                experimental_delegates=self._delegates,
                experimental_op_resolver_type=self._resolver(),
            )
            # Before memory is given out only what was asked for has taken nodes; then XNNPACK takes its own.
            nodes = _nodes(interpreter) if self._delegates else []
            interpreter.allocate_tensors()
            placement = _placement(kind, self._choice.name, nodes or _nodes(interpreter))
            runner = interpreter.get_signature_runner(_signature(interpreter, kind))
        except (ValueError, RuntimeError, TypeError) as exc:
            raise BackendFailure(f"{self.version} refuses {artifact.path}: {exc}") from exc
        label = f"{self.version} on {artifact.path}"
        return _TfliteProgram(runner, Names.of(artifact), label, placement)

    def check(self) -> None:
        """Nothing more: the delegate was loaded when this was made."""

    def placed(self, bundle: Bundle, kind: str, feeds: Mapping[str, Array], program: Program) -> Placement:
        """Where the operators of a loaded graph run."""
        return program.placement

    def _resolver(self) -> Any:
        types = self._engine.OpResolverType
        return types.BUILTIN_WITHOUT_DEFAULT_DELEGATES if self._choice.name == CPU else types.AUTO

    def _load_delegate(self) -> Any:
        path = self._choice.library
        try:
            # First without the engine, whose half-made delegate would complain on its own when collected.
            ctypes.CDLL(path)[_DELEGATE_ENTRY]
            return self._engine.load_delegate(path, dict(self._choice.options))
        except (OSError, ValueError, RuntimeError, AttributeError) as exc:
            raise BackendUnavailable(f"delegate library {path!r} cannot be loaded: {exc}") from exc


class _TfliteProgram:
    def __init__(self, runner: Any, names: Names, label: str, placement: Placement) -> None:
        self._runner, self._names, self._label = runner, names, label
        self._shapes = {own: tuple(row["shape"]) for own, row in runner.get_input_details().items()}
        self.placement = placement

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        own = self._names.to_own(feeds)
        for name, value in own.items():
            # The engine would resize its tensors, and delegates that took the old ones read beyond them.
            if name in self._shapes and np.shape(value) != self._shapes[name]:
                raise BackendFailure(
                    f"{self._label}: {name!r} has shape {np.shape(value)}, expected {self._shapes[name]}"
                )
        try:
            values = self._runner(**own)
        except (ValueError, RuntimeError, TypeError) as exc:
            raise BackendFailure(f"{self._label}: {exc}") from exc
        return {self._names.to_contract(name): as_array(value) for name, value in values.items()}


def _nodes(interpreter: Any) -> list[dict[str, Any]]:
    """The engine's list of nodes, delegates' last; empty where it keeps that to itself."""
    details = getattr(interpreter, "_get_ops_details", None)
    return list(details()) if details else []


def _placement(kind: str, delegate: str, nodes: list[dict[str, Any]]) -> Placement:
    if not nodes:
        return Placement(kind, delegate)
    own = [node for node in nodes if node["op_name"] != _DELEGATE]
    claims = [node for node in nodes if node["op_name"] == _DELEGATE]
    taken = set().union(*(_claimed(claim, own) for claim in claims))
    return Placement(kind, delegate, len(own), len(taken), len(claims))


def _claimed(claim: dict[str, Any], nodes: list[dict[str, Any]]) -> set[int]:
    """Nodes a delegate stands for: those between its inputs and its outputs."""
    producer = {int(output): node for node in nodes for output in node["outputs"]}
    known, found = set(map(int, claim["inputs"])), set[int]()
    waiting = list(map(int, claim["outputs"]))
    while waiting:
        tensor = waiting.pop()
        node = producer.get(tensor)
        if tensor in known or node is None or node["index"] in found:
            continue
        found.add(node["index"])
        waiting.extend(map(int, node["inputs"]))
    return found


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
        f"backend 'tflite' needs ai-edge-litert or tflite-runtime: {pip_install('ai-edge-litert')} "
        f"({'; '.join(reasons)}); where neither has a wheel for {python}, "
        "backend 'numpy' runs a bundle with ONNX artifacts"
    )


def _version(engine: Any) -> str:
    package = engine.__name__.split(".")[0]
    version = getattr(importlib.import_module(package), "__version__", "")
    return f"{package} {version}".strip()
