# SPDX-License-Identifier: Apache-2.0
"""ONNX bytes as a graph. Nothing in the file is trusted: every size is checked before it is used."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgefl.errors import BackendFailure, GraphError
from edgefl.graph.inference import infer_types
from edgefl.graph.model import OPSET, Array, Attribute, Graph, Node, TensorType
from edgefl.graph.onnx_schema import (
    DTYPES,
    MAX_BYTES,
    MAX_CONSTANT_BYTES,
    MAX_IR_VERSION,
    MAX_NODES,
    DimField,
    GraphField,
    ModelField,
    NodeField,
    OpsetField,
    ShapeField,
    TensorField,
    TensorTypeField,
    TypeField,
    ValueField,
)
from edgefl.graph.onnx_tensor import check_shape, read_attribute, read_constant, read_filled, read_tensor
from edgefl.graph.protobuf import Message

_STANDARD = ("", "ai.onnx")


def read_onnx(data: bytes) -> Graph:
    """The graph of an ONNX file.

    Initializers, Constant nodes and ConstantOfShape nodes of a known shape become constants; the last occupy
    one element. Types come from the file's value_info; an output whose
    declared shape is not static gets the shape its kernels compute.

    Raises:
        GraphError: the file is malformed, too large, of another opset than 18, or uses what edgefl's graphs
            do not have: symbolic input shapes, other operator domains, subgraphs, functions, sparse tensors,
            strings, external data.
        UnsupportedOperator: an output's shape must be computed and an operator on the way has no kernel.
    """
    if len(data) > MAX_BYTES:
        raise GraphError(f"ONNX file of {len(data)} bytes, at most {MAX_BYTES} are read")
    model = Message(data, "ONNX model")
    _check_model(model)
    return _Reader().read(model.message(ModelField.GRAPH))


def _check_model(model: Message) -> None:
    version = model.integer(ModelField.IR_VERSION)
    if not 3 <= version <= MAX_IR_VERSION or ModelField.GRAPH not in model:
        raise GraphError(
            f"no ONNX model: IR version {version} is not between 3 and {MAX_IR_VERSION}, or no graph"
        )
    for number, what in (
        (ModelField.TRAINING, "training information"),
        (ModelField.FUNCTIONS, "local functions"),
    ):
        if number in model:
            raise GraphError(
                f"ONNX model has {what}, which edgefl does not read; inline or remove them first"
            )
    opsets = [
        entry.integer(OpsetField.VERSION)
        for entry in model.messages(ModelField.OPSET, "opset import")
        if entry.text(OpsetField.DOMAIN) in _STANDARD
    ]
    if opsets != [OPSET]:
        given = ", ".join(map(str, opsets)) or "none"
        raise GraphError(
            f"ONNX model has opset {given}, edgefl reads opset {OPSET}; "
            f"convert it with onnx.version_converter.convert_version(model, {OPSET})"
        )


@dataclass
class _Reader:
    """What has been read of one graph so far."""

    inputs: dict[str, TensorType] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    constant_bytes: int = 0

    def read(self, graph: Message) -> Graph:
        graph.where = f"ONNX graph {graph.text(GraphField.NAME)!r}"
        if GraphField.SPARSE in graph:
            raise GraphError(f"{graph.where} has sparse initializers; allowed are dense ones")
        if graph.count(GraphField.NODE) > MAX_NODES:
            raise GraphError(
                f"{graph.where} has {graph.count(GraphField.NODE)} nodes, at most {MAX_NODES} are read"
            )
        for message in graph.messages(GraphField.INITIALIZER, "initializer"):
            self._constant(message.text(TensorField.NAME), read_tensor(message), message.where)
        self._read_inputs(graph)
        self._read_value_info(graph)
        for message in graph.messages(GraphField.NODE, "node"):
            self._node(message)
        return self._finish(graph)

    def _read_inputs(self, graph: Message) -> None:
        for message in graph.messages(GraphField.INPUT, "input"):
            name = message.text(ValueField.NAME)
            if name in self.constants:
                continue  # an initializer listed among the inputs is a default value
            message.where = f"ONNX input {name!r}"
            self._define(name, message.where)
            self.inputs[name] = _static(message)

    def _read_value_info(self, graph: Message) -> None:
        for message in graph.messages(GraphField.VALUE_INFO, "value info"):
            type = _type(message)
            if isinstance(type, TensorType):
                self.types[message.text(ValueField.NAME)] = type

    def _node(self, message: Message) -> None:
        op, name = message.text(NodeField.OP), message.text(NodeField.NAME)
        outputs = tuple(message.texts(NodeField.OUTPUT))
        message.where = where = f"ONNX node {op} {name or next(iter(outputs), '')!r}"
        domain = message.text(NodeField.DOMAIN)
        if domain not in _STANDARD:
            raise GraphError(
                f"{where} is of the operator domain {domain!r}; only the standard domain is read"
            )
        attributes = _attributes(message)
        inputs = tuple(message.texts(NodeField.INPUT))
        for tensor in inputs:
            if tensor and tensor not in self.known:
                raise GraphError(f"{where} reads {tensor!r} before anything makes it; nodes must be sorted")
        if not any(outputs):
            raise GraphError(f"{where} has no outputs")
        if op == "Constant":
            self._constant(outputs[0], read_constant(attributes, where), where)
            return
        if op == "ConstantOfShape" and inputs[:1] and inputs[0] in self.constants:
            self._constant(outputs[0], read_filled(self.constants[inputs[0]], attributes, where), where)
            return
        for tensor in filter(None, outputs):
            self._define(tensor, where)
        self.nodes.append(Node(op, inputs, outputs, attributes, name))

    def _constant(self, name: str, value: Array, where: str) -> None:
        self._define(name, where)
        self.constant_bytes += value.nbytes
        if self.constant_bytes > MAX_CONSTANT_BYTES:
            raise GraphError(
                f"{where}: constants take over {MAX_CONSTANT_BYTES} bytes, the most that is read"
            )
        self.constants[name] = value

    def _define(self, tensor: str, where: str) -> None:
        if not tensor:
            raise GraphError(f"{where} has no name")
        if tensor in self.known:
            raise GraphError(f"{where}: tensor {tensor!r} is defined twice")
        self.known.add(tensor)

    def _finish(self, graph: Message) -> Graph:
        outputs = self._outputs(graph)
        types = {name: type for name, type in self.types.items() if name in self.known}
        return Graph(
            inputs=self.inputs,
            outputs=outputs,
            nodes=tuple(self.nodes),
            constants=self.constants,
            types=types | self.inputs | outputs,
            name=graph.text(GraphField.NAME),
        )

    def _outputs(self, graph: Message) -> dict[str, TensorType]:
        declared: dict[str, TensorType | str] = {}
        for message in graph.messages(GraphField.OUTPUT, "output"):
            name = message.text(ValueField.NAME)
            if name not in self.known:
                raise GraphError(f"ONNX output {name!r} is made by no node")
            if name in declared:
                raise GraphError(f"ONNX output {name!r} is listed twice")
            declared[name] = _type(message)
        if any(isinstance(type, str) for type in declared.values()):
            inferred = self._infer(graph.where)
            return {name: inferred[name] for name in declared}
        return {name: type for name, type in declared.items() if isinstance(type, TensorType)}

    def _infer(self, where: str) -> dict[str, TensorType]:
        try:
            return infer_types(self.nodes, self.inputs, self.constants)
        except BackendFailure as exc:
            raise GraphError(
                f"{where} has outputs without static shapes, and they cannot be computed: {exc}"
            ) from exc


def _attributes(node: Message) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {}
    for message in node.messages(NodeField.ATTRIBUTE, "attribute"):
        name, value = read_attribute(message)
        if name in attributes:
            raise GraphError(f"{node.where}: attribute {name!r} is given twice")
        attributes[name] = value
    return attributes


def _static(message: Message) -> TensorType:
    found = _type(message)
    if isinstance(found, str):
        raise GraphError(
            f"{message.where} has {found}; edgefl's graphs have static shapes: fix it before export"
        )
    return found


def _type(message: Message) -> TensorType | str:
    """The declared type, or in words what keeps it from being static."""
    declared = message.message(ValueField.TYPE)
    tensor = declared.message(TypeField.TENSOR)
    code = tensor.integer(TensorTypeField.ELEMENT)
    if TypeField.TENSOR not in declared or code not in DTYPES:
        return f"the element type {code}, which is none of {sorted(DTYPES)}"
    if TensorTypeField.SHAPE not in tensor:
        return "no declared shape"
    shape = []
    for i, dim in enumerate(tensor.message(TensorTypeField.SHAPE).messages(ShapeField.DIM, "dimension")):
        if DimField.VALUE not in dim:
            return f"the unknown dimension {i} ({dim.text(DimField.PARAM)!r})"
        shape.append(dim.integer(DimField.VALUE))
    check_shape(shape, message.where)
    return TensorType(DTYPES[code], tuple(shape))
