# SPDX-License-Identifier: Apache-2.0
"""ONNX files: float initializers become parameters.

A parameter is every float32 initializer with at least one axis and more than one element, as weights, scales
and biases are. It is a buffer where BatchNormalization reads it as mean or variance. Single elements
(epsilons, scaling factors) and integers stay constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.converters.sources.forward import (
    Example,
    Forward,
    Statistics,
    assemble,
    example,
    output_names,
    parameter_names,
)
from edgefl.converters.sources.onnx_model import check_operators, inlined, to_graph
from edgefl.errors import MissingDependency, SourceError
from edgefl.graph.model import Graph, TensorType

_BIASED = ("Gemm", "Conv", "ConvTranspose")
_STATISTICS = {"BatchNormalization": (3, 4)}


def load_onnx(model: Any, example_inputs: object, *, batch_size: int, name: str = "ONNX model") -> Forward:
    """The forward pass of an ONNX model, given as bytes, a path or an `onnx.ModelProto`.

    Args:
        example_inputs: None where only the batch axis is symbolic.

    Raises:
        SourceError: unreadable, or shapes that neither the file nor the example inputs decide.
        UnsupportedOperator: see `onnx_model.to_graph`.
    """
    proto = inlined(_parse(model, name))
    check_operators(proto)
    shapes = _fix_shapes(
        proto, None if example_inputs is None else example(example_inputs, batch_size), batch_size
    )
    graph = to_graph(proto)
    biases = _biases(graph)
    weights = [t for t, v in graph.constants.items() if _is_parameter(v) or t in biases]
    buffers = {t for t in weights if t in _statistics(graph)}
    names = parameter_names(weights)
    lifted = replace(
        graph,
        inputs=dict(graph.inputs) | {t: TensorType.of(graph.constants[t]) for t in weights},
        constants={t: v for t, v in graph.constants.items() if t not in weights},
    )
    data = tuple(graph.inputs)
    fallback = Example(shapes, ()) if len(data) == 1 else Example(shapes, data)
    return assemble(
        lifted,
        data=dict(zip(data, fallback.names(()), strict=True)),
        parameters={names[t]: (t, graph.constants[t]) for t in weights},
        outputs=dict(zip(graph.outputs, output_names(tuple(graph.outputs), len(graph.outputs)), strict=True)),
        trainable={names[t] for t in weights if t not in buffers},
        buffers={names[t] for t in buffers},
        provenance={"source": "onnx", "model": name, "framework": _producer(proto)},
        statistics=_batch_norms(graph, names),
    )


def _parse(model: Any, name: str) -> Any:
    try:
        import onnx
    except ImportError as exc:
        raise MissingDependency("onnx", "", "reading ONNX models") from exc
    try:
        if isinstance(model, (str, Path)):
            return onnx.load(str(model))
        return (
            onnx.load_from_string(bytes(model))
            if isinstance(model, (bytes, bytearray, memoryview))
            else model
        )
    except Exception as exc:
        raise SourceError(f"{name} is no ONNX file that onnx can read: {exc}") from exc


def _producer(proto: Any) -> str:
    return f"{proto.producer_name} {proto.producer_version}".strip() or "unknown"


def _is_parameter(value: Any) -> bool:
    return bool(value.dtype == np.float32 and value.ndim >= 1 and value.size > 1)


def _biases(graph: Graph) -> set[str]:
    """Constants added to products, float32, where even one element is a parameter."""
    products = {t for node in graph if node.op == "MatMul" for t in node.outputs}
    added = {node.inputs[2] for node in graph if node.op in _BIASED and len(node.inputs) > 2}
    for node in graph:
        if node.op == "Add" and not products.isdisjoint(node.inputs):
            added.update(node.inputs)
    return {t for t in added if t in graph.constants and graph.constants[t].dtype == np.float32}


def _statistics(graph: Graph) -> set[str]:
    return {node.inputs[i] for node in graph for i in _STATISTICS.get(node.op, ()) if i < len(node.inputs)}


def _batch_norms(graph: Graph, names: Mapping[str, str]) -> list[Statistics]:
    """The running statistics that are parameters; ONNX's momentum is the share of the old."""
    layers = [node for node in graph if node.op == "BatchNormalization"]
    return [
        Statistics(
            names[node.inputs[3]],
            names[node.inputs[4]],
            1 - float(np.asarray(node.attributes.get("momentum", 0.9))),
            unbiased=False,
        )
        for node in layers
        if node.inputs[3] in names and node.inputs[4] in names
    ]


def _fix_shapes(proto: Any, given: Example | None, batch_size: int) -> tuple[TensorType, ...]:
    """Make the model's input shapes static, infer those of its outputs, and return the inputs' types."""
    from onnx import helper, shape_inference

    initializers = {t.name for t in proto.graph.initializer}
    inputs = [i for i in proto.graph.input if i.name not in initializers]
    types = []
    for index, value in enumerate(inputs):
        wanted = _given_shape(given, index, value.name, len(inputs))
        tensor = value.type.tensor_type
        shape = _static_shape(value.name, tensor.shape.dim, wanted, batch_size)
        types.append(TensorType(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape))
        value.type.CopyFrom(helper.make_tensor_type_proto(tensor.elem_type, shape))
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    proto.CopyFrom(shape_inference.infer_shapes(proto, data_prop=True))
    return tuple(types)


def _given_shape(given: Example | None, index: int, name: str, count: int) -> tuple[int, ...] | None:
    if given is None:
        return None
    if len(given.types) != count:
        raise SourceError(f"the ONNX model has {count} inputs, example_inputs has {len(given.types)}")
    if given.keys and name not in given.keys:
        raise SourceError(f"the ONNX model's input {name!r} is not among example_inputs {list(given.keys)}")
    return given.types[given.keys.index(name) if given.keys else index].shape


def _static_shape(name: str, dims: Any, wanted: tuple[int, ...] | None, batch_size: int) -> tuple[int, ...]:
    if wanted is not None and len(wanted) != len(dims):
        raise SourceError(f"the ONNX model's input {name!r} has {len(dims)} axes, the example {len(wanted)}")
    shape = []
    for axis, dim in enumerate(dims):
        asked = batch_size if axis == 0 else wanted[axis] if wanted is not None else None
        fixed = dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        if fixed is None and asked is None:
            raise SourceError(
                f"ONNX input {name!r} leaves axis {axis} ({dim.dim_param!r}) open: give example_inputs"
            )
        if fixed is not None and asked is not None and fixed != asked:
            what = "batch_size" if axis == 0 else "the example"
            raise SourceError(
                f"the ONNX model's input {name!r} has {fixed} fixed on axis {axis} but {what} says {asked}; "
                "export it with a symbolic axis there, or convert with the size it has"
            )
        shape.append(int(asked if asked is not None else fixed or 0))
    return tuple(shape)
