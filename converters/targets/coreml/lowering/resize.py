# SPDX-License-Identifier: Apache-2.0
"""Resizing: interpolation is separable, so each axis is a look-up, a repetition or a small matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb

from edgefl.converters.targets.coreml.lowering.registry import Call, lowering
from edgefl.converters.targets.coreml.lowering.shape import pick
from edgefl.converters.targets.coreml.lowering.value import Value, count, ints
from edgefl.graph.kernels import KERNELS


@lowering("Resize")
def _resize(call: Call) -> Value:
    value = call[0]
    for axis, (old, new) in enumerate(zip(value.shape, call.shape, strict=True)):
        if old != new:
            value = _along(call, value, axis, new)
    return value


def _along(call: Call, value: Value, axis: int, length: int) -> Value:
    weights = _weights(call, axis)
    old = value.shape[axis]
    picked = weights.argmax(0)
    shape = (*value.shape[:axis], length, *value.shape[axis + 1 :])
    if np.array_equal(weights, np.eye(old, dtype=np.float32)[:, picked]):
        if length % old == 0 and np.array_equal(picked, np.arange(length) // (length // old)):
            column = value.at(count(value.shape[: axis + 1]), 1, count(value.shape[axis + 1 :]))
            return value.become(mb.tile(x=column, reps=ints((1, length // old, 1))), shape)
        return pick(value, axis, picked.astype(np.int32))
    whole = value.at(count(value.shape[:axis]), old, count(value.shape[axis + 1 :]))
    if int(whole.shape[2]) == 1:
        product = mb.matmul(x=value.at(-1, old), y=weights)
    else:
        product = mb.matmul(x=np.ascontiguousarray(weights.T)[None], y=whole)
    return value.become(product, shape)


def _weights(call: Call, axis: int) -> Any:
    """[old, new]: what each element along an axis contributes, found by resizing the unit vectors."""
    old, new = call[0].shape[axis], call.shape[axis]
    sizes = np.array([old, new], np.int64)
    attributes = {**call.node.attributes}
    attributes.pop("axes", None)
    scale = _scale(call, axis)
    eye = np.eye(old, dtype=np.float32)
    inputs = [eye, None, np.array([1.0, scale], np.float32), None] if scale else [eye, None, None, sizes]
    return KERNELS["Resize"](inputs, attributes)[0]


def _scale(call: Call, axis: int) -> float | None:
    """The scale the node gives for an axis; None where it gives sizes instead."""
    if not call.given(2) or not call[2].size:
        return None
    axes = call.ints("axes", range(call[0].rank))
    return float(call.constant(2)[axes.index(axis)])
