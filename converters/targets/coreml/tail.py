# SPDX-License-Identifier: Apache-2.0
"""What a step trains, as a chain of layers: the form that classic updatable models have.

The chain runs from the step's one data input to the scores the loss is computed from. Its layers are dense
and convolution layers with their biases, activations, pools and a flattening; anything else ends the attempt
with the layer's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgefl.errors import UnsupportedOperator
from edgefl.graph import Array, Graph, Node

ACTIVATIONS = {"Relu": "RELU", "Sigmoid": "SIGMOID", "Tanh": "TANH", "LeakyRelu": "LEAKYRELU", "Elu": "ELU"}


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer.

    Attributes:
        op: `dense`, `conv`, `pool`, `mean`, `flatten`, or an activation's operator.
        node: the node it stands for.
        weight, bias: values; the weight is `[out, in]` or `[out, in / groups, H, W]`.
        weight_name, bias_name: the trained parameters they are; empty where they are frozen or absent.
        transposed: whether the parameter is the weight's transpose.
        shape: of one example of its result.
    """

    op: str
    node: Node
    shape: tuple[int, ...]
    weight: Array | None = None
    bias: Array | None = None
    weight_name: str = ""
    bias_name: str = ""
    transposed: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        return bool(self.weight_name)


@dataclass(frozen=True, eq=False)
class Tail:
    """The chain.

    Attributes:
        input, shape: the step's data input, and the shape of one example of it.
        layers: in order of execution.
    """

    input: str
    shape: tuple[int, ...]
    layers: tuple[Layer, ...]


def find_tail(step: Graph, data: str, loss: str, trained: Mapping[str, Array]) -> Tail:
    """The chain of a step.

    Args:
        data: the step's data input.
        loss: `softmax_cross_entropy` or `mean_squared_error`.
        trained: values of the trained parameters.

    Raises:
        UnsupportedOperator: a layer that updatable models do not have, by name.
    """
    search = _Search(step, data, trained)
    layers = search.chain(search.scores(loss))
    used = {name for layer in layers for name in (layer.weight_name, layer.bias_name) if name}
    left = [name for name in trained if name not in used and f"grad/{name}" in step.outputs]
    if left:
        raise UnsupportedOperator(f"parameter {left[0]!r} is trained, but is no layer's weight or bias")
    return Tail(data, step.inputs[data].shape[1:], tuple(layers))


class _Search:
    """A walk from the scores back to the data."""

    def __init__(self, step: Graph, data: str, trained: Mapping[str, Array]) -> None:
        self._step, self._data, self._trained = step, data, trained
        self._makers = step.producers()
        self._fed = {data}
        for node in step:
            if not self._fed.isdisjoint(node.inputs):
                self._fed.update(node.outputs)

    def scores(self, loss: str) -> str:
        """The tensor the loss is computed from."""
        for node in self._step:
            if loss == "softmax_cross_entropy" and node.op == "LogSoftmax":
                return node.inputs[0]
            if loss == "mean_squared_error" and node.op == "Sub" and "y" in node.inputs:
                return node.inputs[0] if node.inputs[1] == "y" else node.inputs[1]
        raise UnsupportedOperator(
            f"loss {loss!r}; updatable models have softmax_cross_entropy and mean_squared_error"
        )

    def chain(self, tensor: str) -> list[Layer]:
        layers: list[Layer] = []
        bias: tuple[Node, str] | None = None
        while tensor != self._data:
            node = self._makers.get(tensor)
            if node is None:
                raise UnsupportedOperator(f"the scores do not come from the data input {self._data!r} alone")
            if node.op == "Add" and bias is None and self._beside(node):
                bias, tensor = (node, self._beside(node)), self._before(node)
                continue
            layer = self._with_bias(self._layer(node), bias)
            layers, bias, tensor = [layer, *layers], None, self._before(node)
        if bias is not None:
            raise self._refuse(bias[0], "an addition that follows no dense or convolution layer")
        return layers

    def _before(self, node: Node) -> str:
        """The node's input that depends on the data."""
        found = [name for name in node.inputs if name in self._fed]
        if len(found) != 1:
            raise self._refuse(node, "it joins several branches")
        return found[0]

    def _beside(self, node: Node) -> str:
        """The operand of an addition that does not depend on the data; empty if both do."""
        others = [name for name in node.inputs if name not in self._fed]
        return others[0] if len(others) == 1 else ""

    def _layer(self, node: Node) -> Layer:
        shape = self._step.type_of(node.outputs[0]).shape[1:]
        if node.op in ACTIVATIONS:
            return Layer(node.op, node, shape, attributes=node.attributes)
        if node.op == "MatMul" and node.inputs[0] in self._fed and len(shape) == 1:
            return self._dense(node, shape)
        if node.op == "Conv" and node.inputs[0] in self._fed:
            value, name, turned = self._parameter(node, node.inputs[1])
            if turned:
                raise self._refuse(node, "its weight is transposed")
            return Layer("conv", node, shape, value, weight_name=name, attributes=node.attributes)
        if node.op in ("MaxPool", "AveragePool") and not node.attributes.get("ceil_mode"):
            return Layer("pool", node, shape, attributes=node.attributes)
        return self._moving(node, shape)

    def _moving(self, node: Node, shape: tuple[int, ...]) -> Layer:
        source = self._step.type_of(node.inputs[0]).shape[1:]
        if (
            node.op in ("Reshape", "Flatten")
            and int(np.prod(source)) == int(np.prod(shape))
            and len(shape) == 1
        ):
            return Layer("flatten", node, shape)
        if node.op == "ReduceMean" and len(source) == 3 and self._axes(node) == {2, 3}:
            return Layer("mean", node, shape)
        raise self._refuse(node, "updatable models have dense, convolution, activation and pool layers only")

    def _axes(self, node: Node) -> set[int]:
        given = self._step.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        return set() if given is None else {int(axis) % 4 for axis in given.reshape(-1)}

    def _dense(self, node: Node, shape: tuple[int, ...]) -> Layer:
        value, name, turned = self._parameter(node, node.inputs[1])
        if value.ndim != 2:
            raise self._refuse(node, f"its weight has shape {value.shape}")
        # The product takes [in, out]; the layer holds [out, in].
        return Layer(
            "dense", node, shape, np.ascontiguousarray(value.T), weight_name=name, transposed=not turned
        )

    def _parameter(self, node: Node, tensor: str) -> tuple[Array, str, bool]:
        """A weight's value as the node reads it, its parameter's name, and whether it is its transpose."""
        if tensor in self._step.constants:
            return self._step.constants[tensor], "", False
        if tensor in self._trained:
            return self._trained[tensor], tensor, False
        maker = self._makers.get(tensor)
        if maker is not None and maker.op in ("Transpose", "Reshape"):
            value, name, turned = self._parameter(node, maker.inputs[0])
            if maker.op == "Reshape":
                return value.reshape(self._step.type_of(tensor).shape), name, turned
            return value.transpose(maker.attributes.get("perm", None)), name, not turned  # type: ignore[arg-type]
        raise self._refuse(node, "its weight is computed, by a norm or an adapter, instead of held")

    def _with_bias(self, layer: Layer, bias: tuple[Node, str] | None) -> Layer:
        if bias is None:
            return layer
        node, tensor = bias
        if layer.weight is None or layer.bias is not None:
            raise self._refuse(node, "an addition that follows no dense or convolution layer")
        value, name, _ = self._parameter(node, tensor)
        if value.size not in (1, layer.weight.shape[0]):
            raise self._refuse(node, f"its bias has shape {value.shape}")
        if bool(name) != layer.trained:
            raise self._refuse(node, "weight and bias of a layer are trained together or not at all")
        flat = np.ascontiguousarray(np.broadcast_to(value.reshape(-1), layer.weight.shape[:1]))
        return replace(layer, bias=flat, bias_name=name)

    def _refuse(self, node: Node, why: str) -> UnsupportedOperator:
        return UnsupportedOperator(f"node {node}: {why}")
