# SPDX-License-Identifier: Apache-2.0
"""Class labels as places instead of masks.

A loss names the class of each row by a mask over all classes, which every engine computes alike. TFLite has
no fast kernel for masks: reading and writing one number per row costs a hundredth. Of the logarithms of a
softmax then only those of the named classes are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize.registry import Rewrite, keep, registrar, replay
from edgefl.graph import Graph, Node

PICKS: dict[str, Rewrite] = {}
pick = registrar(PICKS)


def placed(graph: Graph) -> Graph:
    """The same function, with the masks of labels that are summed over or spread over the classes gone."""
    producers = graph.producers()
    masks = {node.inputs[0] for node in graph if node.op == "Where"}
    labelled = any(producers[name].op == "Equal" for name in masks if name in producers)
    return replay(graph, PICKS) if labelled else graph


@dataclass(frozen=True)
class _Labels:
    """A mask over classes, the last axis.

    Attributes:
        places: int32 [..., 1], the class of each row; what names no class is brought into range.
        known: bool [..., 1], whether a row's label names a class.
    """

    places: str
    known: str


def _labels(b: GraphBuilder, mask: str) -> _Labels | None:
    """What a mask was made of; None where it does not compare integers with every class in turn."""
    node = b.producer(mask)
    if node is None or node.op != "Equal":
        return None
    label, classes = node.inputs
    count, value = b.shape(mask)[-1], b.value(classes)
    counts = value is not None and np.array_equal(value.reshape(-1), np.arange(count))
    if not counts or b.shape(label) != (*b.shape(mask)[:-1], 1) or b.type(label).dtype != np.int32:
        return None
    first, last = (b.constant(n, np.int32) for n in (0, count - 1))
    within = b.add("Min", b.add("Max", label, first), last)
    return _Labels(within, b.add("Equal", within, label))


def _choice(b: GraphBuilder, tensor: str) -> tuple[_Labels, str] | None:
    """Labels, and the values chosen by their mask where all others are zero."""
    node = b.producer(tensor)
    if node is None or node.op != "Where" or not _is_zero(b, node.inputs[2]):
        return None
    labels = _labels(b, node.inputs[0])
    if labels is None or b.shape(node.inputs[1]) != b.shape(tensor) or b.type(tensor).dtype != np.float32:
        return None
    return labels, node.inputs[1]


def _is_zero(b: GraphBuilder, tensor: str) -> bool:
    value = b.value(tensor)
    return value is not None and not value.any()


@pick("ReduceSum")
def _summed(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    """The sum over the classes is the one value chosen."""
    axes = b.value(inputs[1]) if len(inputs) > 1 else None
    last = len(b.shape(inputs[0])) - 1
    chosen = _choice(b, inputs[0])
    if chosen is None or axes is None or axes.reshape(-1).tolist() not in ([last], [-1]):
        return keep(b, node, inputs)
    labels, values = chosen
    row = _row(b, values)
    read = row or _read(b, values, labels.places)
    made = b.add("Where", labels.known, read, b.constant(0.0, np.float32))
    if node.attributes.get("keepdims", 1):
        return made
    return b.add("Reshape", made, b.constant(np.array(b.shape(made)[:-1], np.int64)))


@pick("Sub", "Add", "Mul")
def _written(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    """With one value per row spread by a mask, the operator that reads it reads it written among zeros."""
    return keep(b, node, [_placed(b, tensor) for tensor in inputs])


@pick("Exp")
def _exponential(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    source = b.producer(inputs[0])
    if source is None or source.op != "LogSoftmax":
        return keep(b, node, inputs)
    return keep(b, replace(source, op="Softmax"), source.inputs)


def _placed(b: GraphBuilder, tensor: str) -> str:
    """A choice of one value per row written among zeros; other tensors as they are."""
    chosen = _choice(b, tensor)
    row = _row(b, chosen[1]) if chosen else None
    if chosen is None or row is None:
        return tensor
    update = b.add("Where", chosen[0].known, row, b.constant(0.0, np.float32))
    zeros = b.constant(np.zeros(b.shape(tensor), np.float32))
    return b.add("ScatterElements", zeros, chosen[0].places, update, axis=len(b.shape(tensor)) - 1)


def _row(b: GraphBuilder, values: str) -> str | None:
    """[..., 1] that the values repeat for each class; None where they differ."""
    node = b.producer(values)
    if node is None or node.op != "Expand" or b.shape(node.inputs[0]) != (*b.shape(values)[:-1], 1):
        return None
    return node.inputs[0]


def _read(b: GraphBuilder, values: str, places: str) -> str:
    """The values at the places; of a LogSoftmax only these are computed."""
    node, axis = b.producer(values), len(b.shape(values)) - 1
    if node is None or node.op != "LogSoftmax" or node.attributes.get("axis", -1) not in (-1, axis):
        return b.add("GatherElements", values, places, axis=axis)
    scores = node.inputs[0]
    axes = b.constant(np.array([axis], np.int64))
    shares = str(keep(b, replace(node, op="Softmax"), node.inputs))
    # The largest share is exp(largest - total), of which the logarithm is exact whatever the scores are.
    largest = b.add("ReduceMax", scores, axes, keepdims=1)
    total = b.add("Sub", largest, b.add("Log", b.add("ReduceMax", shares, axes, keepdims=1)))
    return b.add("Sub", b.add("GatherElements", scores, places, axis=axis), total)
