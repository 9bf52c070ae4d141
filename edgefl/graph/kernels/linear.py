# SPDX-License-Identifier: Apache-2.0
"""Matrix products."""

from __future__ import annotations

import numpy as np

from edgefl.graph.kernels.arguments import integer, optional, present, real, required, same_dtype, text
from edgefl.graph.kernels.registry import Attributes, Inputs, Outputs, kernel
from edgefl.graph.model import Array


def product(a: Array, b: Array) -> Array:
    """`np.matmul`, kept on BLAS: NumPy multiplies matrices of unusual strides element by element."""
    same_dtype(a, b)
    if b.ndim == 2 and a.ndim > 2 and a.flags.c_contiguous:
        return product(a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
    return np.asarray(np.matmul(_blas_ready(a), _blas_ready(b)))


def _blas_ready(a: Array) -> Array:
    rows, columns = a.strides[-2:] if a.ndim > 1 else (a.itemsize, a.itemsize)
    if a.itemsize in (rows, columns) and min(rows, columns) >= a.itemsize:
        return a
    return np.array(a, order="C")


@kernel("MatMul")
def matmul(inputs: Inputs, attributes: Attributes) -> Outputs:
    return (product(required(inputs), required(inputs, 1)),)


@kernel("Gemm")
def gemm(inputs: Inputs, attributes: Attributes) -> Outputs:
    """alpha * A' B' + beta * C, with A and B transposed where `transA`, `transB` say so."""
    a, b, c = required(inputs), required(inputs, 1), optional(inputs, 2)
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"Gemm takes matrices, given ranks {a.ndim} and {b.ndim}")
    dtype = same_dtype(a, b, c)
    alpha, beta = real(attributes, "alpha", 1.0), real(attributes, "beta", 1.0)
    out = product(
        a.T if integer(attributes, "transA", 0) else a, b.T if integer(attributes, "transB", 0) else b
    )
    out = out if alpha == 1.0 else out * dtype.type(alpha)
    if c is not None:
        out = out + (c if beta == 1.0 else c * dtype.type(beta))
    return (np.asarray(out, dtype),)


@kernel("Einsum")
def einsum(inputs: Inputs, attributes: Attributes) -> Outputs:
    arrays = present(inputs)
    dtype = same_dtype(*arrays)
    return (np.asarray(np.einsum(text(attributes, "equation", ""), *arrays, optimize=True), dtype),)
