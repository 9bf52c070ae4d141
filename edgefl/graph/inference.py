# SPDX-License-Identifier: Apache-2.0
"""Types of a node's outputs, found by running its kernel on zeros that take no memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from edgefl.graph.interpreter import execute
from edgefl.graph.kernels import ELEMENTWISE
from edgefl.graph.model import Array, Node, TensorType

SHAPE_ONLY = frozenset({"Shape", "Size"})
"""Operators whose result follows from their input's type alone, known even where the input is not."""


def zeros(type: TensorType) -> Array:
    """Zeros that occupy one element, whatever the shape."""
    return np.broadcast_to(np.zeros((), type.dtype), type.shape)


def infer(node: Node, samples: Mapping[str, Array]) -> tuple[TensorType, ...]:
    """Types of a node's outputs, given arrays of its inputs' types (constants with their values).

    Element-wise operators run on a single element, so that the cost does not grow with the shapes.

    Raises:
        UnsupportedOperator: there is no kernel for the operator.
        BackendFailure: the kernel refuses these inputs.
    """
    with np.errstate(all="ignore"):
        if node.op not in ELEMENTWISE:
            return tuple(TensorType.of(result) for result in execute(node, samples))
        corners = {
            name: samples[name][tuple(slice(1) for _ in samples[name].shape)] for name in node.inputs if name
        }
        results = execute(node, corners)
        shape = _broadcast(node, samples, corners)
        return tuple(TensorType(result.dtype, shape) for result in results)


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


def _broadcast(node: Node, samples: Mapping[str, Array], corners: Mapping[str, Array]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*(samples[name].shape for name in node.inputs if name))
    except ValueError:
        execute(node, samples)  # fails with a message that names the node and the shapes
        raise
