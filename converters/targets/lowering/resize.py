# SPDX-License-Identifier: Apache-2.0
"""Resizing: interpolation is separable, so each axis is a look-up or a small matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from edgefl.converters.targets.lowering.registry import Call, lowering
from edgefl.converters.targets.lowering.value import Lazy, reshape, trailing
from edgefl.graph.kernels import KERNELS


@lowering("Resize")
def _resize(call: Call) -> Lazy:
    value = call[0]
    for axis, (old, new) in enumerate(zip(value.shape, call.shape, strict=True)):
        if old != new:
            value = _along(call, value, axis, new)
    return value


def _along(call: Call, value: Lazy, axis: int, length: int) -> Lazy:
    weights = _weights(call, axis)
    place, old = value.axis(axis), value.shape[axis]
    picked = weights.argmax(0)
    if np.array_equal(weights, np.eye(old, dtype=np.float32)[:, picked]):
        if length % old == 0 and np.array_equal(picked, np.arange(length) // (length // old)):
            return Lazy(_repeat(value.data, place, length // old), value.order)
        return Lazy(tf.gather(value.data, picked.astype(np.int32), axis=place), value.order)
    last = trailing(value, axis)
    product = tf.matmul(reshape(last.data, (-1, old)), weights)
    return Lazy(reshape(product, (*last.physical[:-1], length)), last.order)


def _weights(call: Call, axis: int) -> Any:
    """[old, new]: what each element along an axis contributes, found by resizing the unit vectors."""
    old, new = call[0].shape[axis], call.shape[axis]
    sizes = np.array([old, new], np.int64)
    attributes = {**call.node.attributes}
    attributes.pop("axes", None)
    scales = _scale(call, axis)
    eye = np.eye(old, dtype=np.float32)
    inputs = [eye, None, np.array([1.0, scales], np.float32), None] if scales else [eye, None, None, sizes]
    return KERNELS["Resize"](inputs, attributes)[0]


def _scale(call: Call, axis: int) -> float | None:
    """The scale the node gives for an axis; None where it gives sizes instead."""
    if not call.given(2) or not call[2].size:
        return None
    axes = call.ints("axes", range(call[0].rank))
    return float(call.constant(2)[axes.index(axis)])


def _repeat(data: Any, axis: int, times: int) -> Any:
    """Each element `times` in a row along an axis, by joining copies along a new last one."""
    shape = [int(n) for n in data.shape]
    outer = int(np.prod(shape[: axis + 1], dtype=np.int64))
    flat = reshape(data, (outer, -1))
    shape[axis] *= times
    return reshape(tf.concat([flat] * times, axis=1), shape)
