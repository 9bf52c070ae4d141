# SPDX-License-Identifier: Apache-2.0
"""A forward pass and the source framework on the same random data."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefl.converters.autodiff import gradients
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize import normalize, simplify
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


def parameter_gradients(forward: Forward, data: dict[str, Any], seeds: dict[str, Any]) -> dict[str, Any]:
    """Gradients of `sum(seed * output)` for the trainable parameters, by edgefl; zeros where none flows."""
    graph = normalize(forward.graph)
    b = GraphBuilder()
    tensors = {name: b.input(name, type) for name, type in graph.inputs.items()}
    tensors |= {name: b.constant(value) for name, value in graph.constants.items()}
    for node in graph:
        inputs = [tensors[t] if t else "" for t in node.inputs]
        made: Any = b.add(node.op, *inputs, outputs=len(node.outputs), name=node.name, **node.attributes)
        tensors |= dict(zip(node.outputs, (made,) if isinstance(made, str) else made, strict=True))
    loss = b.constant(np.float32(0))
    for name, seed in seeds.items():
        axes = b.constant(np.arange(seed.ndim))
        product = b.add("Mul", tensors[name], b.constant(seed))
        loss = b.add("Add", loss, b.add("ReduceSum", product, axes, keepdims=0))
    for name, tensor in gradients(b, loss, sorted(forward.trainable)).items():
        b.output(f"grad/{name}", tensor)
    made = run(simplify(b.build()), {**data, **forward.parameters})
    zeros = {name: np.zeros_like(forward.parameters[name]) for name in forward.trainable}
    return {name: made.get(f"grad/{name}", zero) for name, zero in zeros.items()}


def same_gradients(got: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal within 1e-4 of each parameter's largest gradient."""
    assert set(got) == set(expected)
    for name, want in expected.items():
        scale = float(np.abs(want).max())
        np.testing.assert_allclose(got[name], want, rtol=1e-4, atol=1e-4 * scale + 1e-7, err_msg=name)
