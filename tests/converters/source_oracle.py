# SPDX-License-Identifier: Apache-2.0
"""A forward pass and the source framework on the same random data."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefl.converters.normalize import normalize
from edgefl.converters.sources import Forward
from edgefl.graph import Graph, run

NORMALISED = frozenset(
    """
    Add Sub Mul Div Neg Abs Sign Exp Log Sqrt Reciprocal Pow Erf Tanh Sigmoid Relu LeakyRelu Elu Clip Softplus
    HardSigmoid Min Max Where Cast Equal Greater Less GreaterOrEqual LessOrEqual And Or Not MatMul Conv
    ConvTranspose MaxPool AveragePool ReduceSum ReduceMean ReduceMax ReduceMin Softmax LogSoftmax Reshape
    Transpose Concat Slice Pad Gather Expand Resize Identity Sin Cos
    """.split()  # noqa: SIM905
)


def random_data(forward: Forward, seed: int = 0) -> dict[str, Any]:
    """Normal floats and integers below 5 for the data inputs."""
    rng = np.random.default_rng(seed)
    data = {}
    for name in forward.inputs:
        type = forward.graph.inputs[name]
        drawn = rng.normal(size=type.shape) if type.dtype.kind == "f" else rng.integers(0, 5, type.shape)
        data[name] = drawn.astype(type.dtype)
    return data


def outputs(forward: Forward, data: dict[str, Any]) -> tuple[Graph, list[Any]]:
    """The normalised graph, which holds normalised operators only, and its outputs in order."""
    graph = normalize(forward.graph)
    assert set(graph.operators()) <= NORMALISED, set(graph.operators()) - NORMALISED
    made = run(graph, {**data, **forward.parameters})
    return graph, [made[name] for name in forward.outputs]


def close(got: Any, expected: Any) -> None:
    """Finite, and equal up to float32 rounding."""
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(got, np.asarray(expected), rtol=1e-4, atol=1e-5)
