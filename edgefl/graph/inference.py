# SPDX-License-Identifier: Apache-2.0
"""Types of a node's outputs, found by running its kernel on zeros that take no memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np

from edgefl.graph.interpreter import execute
from edgefl.graph.kernels import BATCHWISE, ELEMENTWISE
from edgefl.graph.model import Array, Node, TensorType

SHAPE_ONLY = frozenset({"Shape", "Size"})
"""Operators whose result follows from their input's type alone, known even where the input is not."""


@cache
def zeros(type: TensorType) -> Array:
    """Zeros that occupy one element, whatever the shape."""
    return np.broadcast_to(np.zeros((), type.dtype), type.shape)


def infer(node: Node, samples: Mapping[str, Array]) -> tuple[TensorType, ...]:
    """Types of a node's outputs, given arrays of its inputs' types (constants with their values).

    Element-wise operators run on a single element and convolutions and pools on one of the batch, so that
    converting a large network stays quick.

    Raises:
        UnsupportedOperator: there is no kernel for the operator.
        BackendFailure: the kernel refuses these inputs.
    """
    with np.errstate(all="ignore"):
        if node.op in ELEMENTWISE:
            return _infer_elementwise(node, samples)
        if node.op in BATCHWISE and samples[node.inputs[0]].ndim:
            return _infer_batchwise(node, samples)
        return tuple(TensorType.of(result) for result in execute(node, samples))


def _infer_elementwise(node: Node, samples: Mapping[str, Array]) -> tuple[TensorType, ...]:
    given = {name: samples[name] for name in node.inputs if name}
    corners = {name: value[tuple(slice(1) for _ in value.shape)] for name, value in given.items()}
    results = execute(node, corners)
    try:
        shape = np.broadcast_shapes(*(value.shape for value in given.values()))
    except ValueError:
        execute(node, samples)  # fails with a message that names the node and the shapes
        raise
    return tuple(TensorType(result.dtype, shape) for result in results)


def _infer_batchwise(node: Node, samples: Mapping[str, Array]) -> tuple[TensorType, ...]:
    batch = samples[node.inputs[0]]
    given = {name: samples[name] for name in node.inputs if name}
    if node.inputs.count(node.inputs[0]) == 1:
        given[node.inputs[0]] = batch[:1]
    types = [TensorType.of(result) for result in execute(node, given)]
    return tuple(TensorType(type.dtype, (batch.shape[0], *type.shape[1:])) for type in types)


def infer_types(
    nodes: Iterable[Node], inputs: Mapping[str, TensorType], constants: Mapping[str, Array]
) -> dict[str, TensorType]:
    """Types of every tensor of a graph, in execution order; raises as `infer` does."""
    samples = {**constants, **{name: zeros(type) for name, type in inputs.items()}}
    known = set(constants)
    for node in nodes:
        if node.op in SHAPE_ONLY or known.issuperset(filter(None, node.inputs)):
            with np.errstate(all="ignore"):
                samples.update(zip(node.outputs, execute(node, samples), strict=False))
            known.update(node.outputs)
        else:
            samples.update(zip(node.outputs, map(zeros, infer(node, samples)), strict=False))
    return {name: TensorType.of(value) for name, value in samples.items() if name}
