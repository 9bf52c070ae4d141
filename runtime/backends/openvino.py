# SPDX-License-Identifier: Apache-2.0
"""ONNX artifacts on OpenVINO's CPU plugin, in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgefl.bundle import Bundle
from edgefl.errors import BackendFailure, BackendUnavailable
from edgefl.graph import read_onnx, write_onnx
from edgefl.graph.interpreter import settled
from edgefl.requirements import pip_install
from edgefl.runtime.backends.base import Array, Engine, Names, Program, artifact_of
from edgefl.runtime.delegates.choice import Placement


class OpenVinoBackend(Engine):
    """OpenVINO on the CPU, with `threads` threads inside an operator."""

    name, target = "openvino", "onnx"

    def __init__(self, threads: int = 1) -> None:
        self._engine = _import()
        self._core = self._engine.Core()
        self.version = f"openvino {self._engine.__version__.split('-')[0]}"
        # Its own choice of precision is bfloat16 where the processor has it, and activations of eight bits
        # before weights of eight or four: no gradients for training.
        self._options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
            "PERFORMANCE_HINT": "LATENCY",
        }

    def load(self, bundle: Bundle, kind: str) -> Program:
        placement, last = Placement(kind), f"{kind}-channels-last"
        kind = last if bundle.manifest.find(self.target, last) else kind
        artifact = artifact_of(bundle, self.target, kind)
        data = bundle.artifact(self.target, kind)
        try:
            model = self._core.read_model(data if "int8" in kind else _unpacked(data))
            request = self._core.compile_model(model, "CPU", self._options).create_infer_request()
        except Exception as exc:  # the engine raises RuntimeError and its own types alike
            raise BackendFailure(f"{self.version} refuses {artifact.path}: {exc}") from exc
        label = f"{self.version} on {artifact.path}"
        return _OpenVinoProgram(request, model, Names.of(artifact), label, placement)


class _OpenVinoProgram:
    def __init__(self, request: Any, model: Any, names: Names, label: str, placement: Placement) -> None:
        self.placement = placement
        self._request, self._names, self._label = request, names, label
        self._outputs = [names.to_contract(name) for name in distinct_names(model.outputs)]
        self._inputs = [port.any_name for port in model.inputs]

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        own = self._names.to_own(feeds)
        # A request keeps what it was last given: an input left out would go unnoticed.
        if missing := [name for name in self._inputs if name not in own]:
            raise BackendFailure(f"{self._label}: no value for {', '.join(missing)}")
        try:
            self._request.infer({name: own[name] for name in self._inputs}, share_inputs=True)
            made = [self._request.get_output_tensor(i).data for i in range(len(self._outputs))]
        except Exception as exc:  # the engine raises RuntimeError and its own types alike
            raise BackendFailure(f"{self._label}: {exc}") from exc
        return dict(zip(self._outputs, made, strict=True))


def distinct_names(ports: Iterable[Any]) -> list[str]:
    """A name for each output; old releases give outputs that are one tensor all their names."""
    taken: list[str] = []
    for port in ports:
        taken.append(min(port.get_names() - set(taken)))
    return taken


def _unpacked(data: bytes) -> bytes:
    """The same graph with frozen weights as float32.

    Release 2026.4 computes some products wrongly whose weights are stored in four bits.
    """
    graph = read_onnx(data)
    plain = settled(graph)
    return data if plain is graph else write_onnx(plain)


def _import() -> Any:
    try:
        import openvino
    except ImportError as exc:
        raise BackendUnavailable(
            f"backend 'openvino' needs openvino: {pip_install('openvino')} ({exc}); "
            "backends 'onnx' and 'numpy' run the same bundle without it"
        ) from exc
    return openvino
