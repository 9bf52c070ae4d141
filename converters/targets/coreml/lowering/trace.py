# SPDX-License-Identifier: Apache-2.0
"""Tracing a graph into an ML Program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, types

from edgefl.converters.targets.coreml.border import Border
from edgefl.converters.targets.coreml.lowering.elementwise import cast
from edgefl.converters.targets.coreml.lowering.registry import LOWERINGS, Call
from edgefl.converters.targets.coreml.lowering.value import Value, count, reshape
from edgefl.errors import UnsupportedOperator
from edgefl.graph import Graph, TensorType

PRODUCTS = ("Conv", "Gemm", "MatMul")
NOTHING: Mapping[str, float] = {}


def trace(
    graph: Graph,
    inputs: Mapping[str, Border],
    outputs: Mapping[str, Border],
    target: Any,
    ranges: Mapping[str, float] = NOTHING,
) -> Program:
    """An ML Program of the graph, its inputs and outputs as their borders say.

    Args:
        graph: no node of it has constants only as inputs.
        inputs, outputs: by the graph's names.
        target: coremltools' deployment target.
        ranges: tensors to be rounded to int8 where products read them, with their largest magnitude.

    Raises:
        UnsupportedOperator: a node has no lowering or uses what Core ML lacks.
    """
    _check(graph)
    mb.name_count.clear()
    places = {border.name: _placeholder(border) for border in inputs.values()}
    program = Program()
    with Function(places, opset_version=target) as function:
        values = {name: Value.constant(value) for name, value in graph.constants.items()}
        for name, border in inputs.items():
            values[name] = _entering(function.inputs[border.name], graph.inputs[name])
        _body(graph, values, ranges)
        function.set_outputs([_leaving(values[name], border) for name, border in outputs.items()])
        program.add_function("main", function)
    _set_apart(function, {border.name for border in (*inputs.values(), *outputs.values())})
    return program


def _set_apart(function: Any, borders: set[str]) -> None:
    """Rename what the builder happened to name as an input or output is named."""
    for operation in function.operations:
        for variable in operation.outputs:
            if variable.name in borders and not any(variable is out for out in function.outputs):
                variable.name = operation.name = f"{variable.name}_inside"


def _check(graph: Graph) -> None:
    for node in graph:
        if node.op not in LOWERINGS:
            raise UnsupportedOperator(
                f"node {node}: this operator has no counterpart in Core ML; "
                "leave the target coreml out, or freeze and export what contains it otherwise"
            )
        for tensor in filter(None, node.outputs):
            if graph.type_of(tensor).dtype.kind not in "fiub":
                raise UnsupportedOperator(f"node {node} makes {graph.type_of(tensor)}")


def _body(graph: Graph, values: dict[str, Value], ranges: Mapping[str, float]) -> None:
    makers = graph.producers()
    rounded: dict[str, Value] = {}
    for node in graph:
        args = tuple(values[name] if name else None for name in node.inputs)
        if node.op in PRODUCTS and node.inputs[0] in ranges and values[node.inputs[1]].is_constant:
            name = node.inputs[0]
            if name not in rounded:
                rounded[name] = _rounded(values[name], ranges[name])
            args = (rounded[name], *args[1:])
        outputs = tuple(graph.type_of(name) for name in node.outputs if name)
        made = LOWERINGS[node.op](Call(node, args, outputs, makers, values))
        results = made if isinstance(made, tuple) else (made,)
        for result, type in zip(results, outputs, strict=False):
            sizes = count(result.held), type.size
            assert result.shape == type.shape and sizes[0] == sizes[1], f"{node}: {result.shape}, {type}"
        values.update(zip(filter(None, node.outputs), results, strict=False))


def _rounded(value: Value, largest: float) -> Value:
    """The value in steps of a 127th of its largest magnitude, symmetric around zero."""
    scale = np.float32(max(largest, 1e-6) / 127)
    held = mb.quantize(input=value.data, scale=scale, output_dtype="int8")
    return value.become(mb.dequantize(input=held, scale=scale), value.shape)


def _placeholder(border: Border) -> Any:
    return mb.placeholder(shape=border.shape, dtype=types.fp32 if border.dtype == "float32" else types.int32)


def _entering(variable: Any, type: TensorType) -> Value:
    value = Value(variable, type.shape, "f" if type.dtype.kind == "f" else "i")
    return cast(value, "b") if type.dtype.kind == "b" else value


def _leaving(value: Value, border: Border) -> Any:
    held = cast(value, "f" if border.dtype == "float32" else "i")
    data = mb.const(val=held.data) if held.is_constant else held.data
    if border.divisor != 1:
        whole = reshape(data, border.shape)
        inverse = np.float32(1 / border.divisor)
        return mb.mul(x=whole, y=inverse, name=border.name)
    if tuple(data.shape) != border.shape:
        return mb.reshape(x=data, shape=np.array(border.shape, np.int32), name=border.name)
    return mb.identity(x=data, name=border.name)
