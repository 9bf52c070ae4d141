# SPDX-License-Identifier: Apache-2.0
"""Gradients of one operator by edgefl, run by the NumPy interpreter, for comparison with torch autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from edgefl.converters.autodiff import gradients
from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.graph.interpreter import run
from edgefl.graph.model import TensorType

Arrays = Sequence[np.ndarray[Any, Any]]


def graph_gradients(
    op: str,
    inputs: Arrays,
    seed: np.ndarray,
    extra: Arrays = (),
    channels_last: bool = False,
    **attributes: Any,
) -> list[np.ndarray]:
    """Gradients of `sum(seed * op(*inputs, *extra))` for those of `inputs` that are floating-point."""
    b = GraphBuilder(channels_last=channels_last)
    names = [
        b.input(f"in{i}", TensorType.of(x)) if x.dtype.kind == "f" else b.constant(x)
        for i, x in enumerate(inputs)
    ]
    y = Expr(b, b.add(op, *names, *(b.constant(x) for x in extra), **attributes))
    assert y.shape == seed.shape, (y.shape, seed.shape)
    return finish(b, y, names, inputs, seed)


def finish(
    b: GraphBuilder, y: Expr, names: Sequence[str], inputs: Arrays, seed: np.ndarray
) -> list[np.ndarray]:
    """Gradients of `sum(seed * y)` for the floating-point inputs."""
    feeds = {n: x for n, x in zip(names, inputs, strict=True) if x.dtype.kind == "f"}
    found = gradients(b, (y * y.constant(seed)).sum().name, list(feeds))
    for name in feeds:
        b.output(f"grad/{name}", found[name])
    made = run(b.build(), feeds)
    return [made[f"grad/{name}"] for name in feeds]


def torch_gradients(
    function: Callable[..., torch.Tensor], inputs: Arrays
) -> tuple[list[np.ndarray], np.ndarray]:
    """torch's gradients of a randomly weighted sum of `function(*inputs)`, and the weights."""
    tensors = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
    y = function(*tensors)
    seed = np.random.default_rng(7).standard_normal(tuple(y.shape)).astype(inputs[0].dtype)
    (y * torch.tensor(seed)).sum().backward()
    return [t.grad.numpy() for t in tensors if t.requires_grad], seed


def check(
    op: str, function: Callable[..., torch.Tensor], inputs: Arrays, *extra: np.ndarray, **attributes: Any
) -> None:
    """Assert edgefl's gradients of `op(*inputs, *extra)` equal torch's of `function(*inputs)`.

    `extra` are constant operands (axes, shapes...) that torch's function has built in.
    """
    expected, seed = torch_gradients(function, inputs)
    found = graph_gradients(op, inputs, seed, extra, **attributes)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-9, atol=1e-11)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)
