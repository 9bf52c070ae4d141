# SPDX-License-Identifier: Apache-2.0
"""What calibration examples do inside a float model, and what in that will hurt when it is quantized."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgefl.converters.targets.onnx import to_onnx
from edgefl.graph import Array, Graph, Interpreter, Node

OBSERVED = 128
"""Examples looked at: channels and ranges show themselves early, and every activation is kept in memory."""

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Softplus")
_SPILL = 0.01
_CROWDED = 1 / 16
_MOST = 99.9

Run = Callable[[Mapping[str, Array]], dict[str, Array]]


def float_runner(graph: Graph) -> Run:
    """Runs a graph on onnxruntime where it is installed, else on the NumPy interpreter."""
    try:
        import onnxruntime
    except ImportError:
        return Interpreter(graph)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(to_onnx(graph), options, providers=["CPUExecutionProvider"])
    names = list(graph.outputs)
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


def findings(graph: Graph, feeds: Sequence[Mapping[str, Array]]) -> tuple[str, ...]:
    """Sentences about layers that calibration shows to be dead, uncovered, or ruled by outliers.

    Args:
        graph: float, its scales and shifts absorbed.
        feeds: calibration batches; each has the same number of examples.
    """
    watched = _watched(graph)
    size = len(next(iter(feeds[0].values()))) if feeds else 1
    chosen = feeds[: max(OBSERVED // size, 2)]
    if not watched or not chosen:
        return ()
    observed = replace(graph, outputs={name: graph.type_of(name) for name in watched})
    run = float_runner(observed)
    results = [run(feed) for feed in chosen]
    notes: list[str] = []
    for name, (label, axis) in watched.items():
        values = np.stack([result[name] for result in results])
        notes += _judge(label, values, axis, size * len(chosen))
    return tuple(notes)


def _watched(graph: Graph) -> dict[str, tuple[str, int]]:
    """Tensors to look at: each product's output after its activation, with a label and the channel axis."""
    consumers = graph.consumers()
    watched: dict[str, tuple[str, int]] = {}
    for node in graph:
        if node.op in _PRODUCTS:
            axis = 1 if node.op.startswith("Conv") else -1
            tensor = _activated(consumers, node)
            if graph.type_of(tensor).dtype.kind == "f":
                watched[tensor] = (str(node), axis)
    return watched


def _activated(consumers: Mapping[str, list[Node]], node: Node) -> str:
    readers = consumers.get(node.outputs[0], [])
    if len(readers) == 1 and readers[0].op in _ACTIVATIONS:
        return readers[0].outputs[0]
    return node.outputs[0]


def _judge(label: str, values: Array, axis: int, examples: int) -> list[str]:
    """Notes on one layer; `values` is `[batches, *tensor]`."""
    channel = values.ndim - 1 if axis < 0 else axis + 1
    rows = np.moveaxis(values, channel, 0).reshape(values.shape[channel], -1)
    notes = []
    dead = int((rows.max(1) == rows.min(1)).sum())
    if dead:
        notes.append(f"{label}: {dead} of {len(rows)} channels never change over {examples} examples")
    half = len(values) // 2
    first, second = values[:half], values[half:]
    spill = float(((second < first.min()) | (second > first.max())).mean()) if half else 0.0
    if spill > _SPILL:
        notes.append(f"{label}: {spill:.1%} of activations saturate with half the examples; give more")
    reach = float(np.abs(values).max())
    common = float(np.percentile(np.abs(values), _MOST))
    if reach > 0 and common < reach * _CROWDED:
        notes.append(f"{label}: {_MOST} % of activations are within {common:.3g}, outliers reach {reach:.3g}")
    return notes
