# SPDX-License-Identifier: Apache-2.0
"""Rounded weights stored as the integers they came from: `frozen_bits`, in Core ML.

Weights are float32 while a program is traced, shaped and cast, so that no pass need know of them. Last of all
each is found again by its value and replaced by what makes it from integers: for iOS 16 and 17
`constexpr_affine_dequantize`, eight bits with a scale per index of an axis, for iOS 18
`constexpr_blockwise_shift_scale`, eight or four bits in any blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
from coremltools.converters.mil.mil.passes.helper import block_context_manager
from coremltools.converters.mil.mil.passes.pass_registry import register_pass

from edgefl.converters.weights import Packed, packed
from edgefl.graph import Array

PASS = "edgefl::small_weights"

Key = tuple[tuple[int, ...], str, bytes]

_LEAST = float(np.finfo(np.float16).tiny)


def rounded_weights(program: Any, bits: int) -> dict[Key, Packed]:
    """The integers behind a program's constants, by what the constants are in float32 and in float16."""
    found: dict[Key, Packed] = {}
    for operation in _constants(program.functions["main"]):
        value = operation.outputs[0].val
        weight = packed(value, bits)
        if weight is not None:
            found[_key(value)] = weight
            if weight.scale.min() >= _LEAST:  # smaller ones lose digits in float16
                found[_key(value.astype(np.float16))] = weight
    return found


@register_pass(namespace="edgefl")
class small_weights(AbstractGraphPass):  # type: ignore[misc]
    """Constants that are rounded weights, made from their integers.

    Attributes:
        weights: `rounded_weights` of the program as it was traced.
        blocks: whether the program may hold integers in blocks.
    """

    def __init__(self) -> None:
        self.weights: dict[Key, Packed] = {}
        self.blocks = False

    def apply(self, prog: Any) -> None:
        for function in prog.functions.values():
            self._apply(function)

    @block_context_manager  # type: ignore[untyped-decorator]
    def _apply(self, block: Any) -> None:
        for operation in list(_constants(block)):
            variable = operation.outputs[0]
            weight = self.weights.get(_key(variable.val))
            if weight is None or variable in block.outputs or (weight.bits == 4 and not self.blocks):
                continue
            make = _in_blocks if self.blocks else _in_rows
            made = make(weight, variable.val.dtype, operation)
            block.replace_uses_of_var_after_op(
                anchor_op=operation, old_var=variable, new_var=made, no_check_var_types=True
            )
            block.remove_ops([operation])


def _constants(block: Any) -> Iterator[Any]:
    """Constants of floats with two or more axes."""
    for operation in block.operations:
        if operation.op_type == "const" and isinstance(operation.outputs[0].val, np.ndarray):
            value = operation.outputs[0].val
            if value.dtype.kind == "f" and value.ndim > 1:
                yield operation


def _key(value: Array) -> Key:
    digest = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=16).digest()
    return value.shape, value.dtype.str, digest


def _in_rows(weight: Packed, dtype: Any, before: Any) -> Any:
    return mb.constexpr_affine_dequantize(
        quantized_data=weight.levels,
        zero_point=np.int8(0),
        scale=weight.scale.astype(dtype),
        axis=np.int32(weight.axis),
        before_op=before,
        name=before.name,
    )


def _in_blocks(weight: Packed, dtype: Any, before: Any) -> Any:
    levels, scale = _oriented(weight)
    kept = types.np_int4_dtype if weight.bits == 4 else np.dtype(np.int8)
    return mb.constexpr_blockwise_shift_scale(
        data=levels.astype(kept), scale=scale.astype(dtype), before_op=before, name=before.name
    )


def _oriented(weight: Packed) -> tuple[Array, Array]:
    """Integers in the weight's own shape, and scales with one element for each block of it."""
    if weight.bits == 8:
        sizes = [-1 if axis == weight.axis else 1 for axis in range(weight.levels.ndim)]
        return weight.levels, weight.scale.reshape(sizes)
    *lead, last = weight.shape
    levels, scale = weight.levels.reshape(weight.shape), weight.scale
    scale = scale.reshape(*lead, last // weight.levels.shape[1])
    return tuple(np.ascontiguousarray(part.transpose(weight.perm)) for part in (levels, scale))  # type: ignore[return-value]
