# SPDX-License-Identifier: Apache-2.0
"""What every source yields, and how its tensors are named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgefl.errors import SourceError
from edgefl.graph.model import Array, Graph, Node, TensorType

RESERVED = frozenset({"x", "y", "weight", "loss", "output", "seed"})
"""Names the step gives its own tensors; a parameter called so gets the prefix `model.`, an input `input.`."""


@dataclass(frozen=True)
class Statistics:
    """The running statistics of a BatchNorm layer.

    Attributes:
        mean, variance: names of the buffers.
        momentum: share of the new in the moving average.
        unbiased: whether the running variance takes the batch's with n - 1.
    """

    mean: str
    variance: str
    momentum: float
    unbiased: bool


@dataclass(frozen=True, eq=False)
class Forward:
    """A model's forward pass with its parameters as inputs.

    Attributes:
        graph: static shapes; inputs are the data inputs, then every parameter and buffer by name. Operators
            are the exporter's, see `edgefl.converters.normalize`.
        inputs: names of the data inputs; a single one is `x`. Their first axis is the batch.
        outputs: names of the outputs; a single one is `output`.
        parameters: float32 values in the source framework's layouts, in the framework's order.
        trainable: names of parameters that the framework would train; the rest is frozen or a buffer.
        buffers: names of the parameters that no gradient ever changes, such as BatchNorm statistics.
        provenance: what made it, such as `source`, `framework`, `model`, `dropout`.
        statistics: of the BatchNorm layers that are not frozen.
        training: the graph that computes outputs in training where that differs; it takes `seed` and `weight`
            too, and gives `buffer/<name>` for each of `updated`. See `edgefl.converters.training`.
        updated: buffers that training changes.
        aliases: other names under which the model holds a parameter, to its name in `parameters`.
        strays: tensors that the framework would differentiate but does not hold as parameters, so that they
            are constants here: a name, and why.
    """

    graph: Graph
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[str, Array]
    trainable: frozenset[str]
    buffers: frozenset[str] = frozenset()
    provenance: Mapping[str, str] = field(default_factory=dict)
    statistics: tuple[Statistics, ...] = ()
    training: Graph | None = None
    updated: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    strays: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """Types of the example inputs with the batch size set; `key` is how the model takes each."""

    types: tuple[TensorType, ...]
    keys: tuple[str, ...]  # names when given as a dict, else ()

    def names(self, fallback: Sequence[str]) -> tuple[str, ...]:
        """Contract names of the data inputs."""
        if len(self.types) == 1 and not self.keys:
            return ("x",)
        names = self.keys or tuple(fallback[: len(self.types)])
        names += tuple(f"input_{i}" for i in range(len(names), len(self.types)))
        return tuple(f"input.{name}" if name in RESERVED - {"x"} else name for name in names)


def example(inputs: object, batch_size: int) -> Example:
    """The example inputs' types: of an array, a tuple or list of arrays, or a dict of arrays.

    float64 becomes float32 and the first axis becomes `batch_size`; values do not matter.

    Raises:
        SourceError: not an array, or an array without a batch axis.
    """
    if isinstance(inputs, Mapping):
        return Example(tuple(_type(v, batch_size) for v in inputs.values()), tuple(map(str, inputs)))
    items = inputs if isinstance(inputs, (tuple, list)) and _has_arrays(inputs) else (inputs,)
    return Example(tuple(_type(v, batch_size) for v in items), ())


def _has_arrays(items: Sequence[Any]) -> bool:
    return len(items) > 0 and all(hasattr(v, "shape") for v in items)


def _type(value: Any, batch_size: int) -> TensorType:
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        value = np.asarray(value)
    if value.dtype == object:
        raise SourceError(
            f"example_inputs has a {type(value).__name__}; give an array, a tuple of arrays or a dict"
        )
    name = str(getattr(value.dtype, "name", value.dtype)).removeprefix("torch.")
    shape = tuple(value.shape)
    if not shape or any(n is None for n in shape[1:]):
        raise SourceError(
            f"an example input has shape {shape}; give arrays of full shape, the batch axis first"
        )
    try:
        dtype = np.dtype("float32" if name in ("float64", "float16", "bfloat16") else name)
    except TypeError as exc:
        raise SourceError(
            f"an example input has the element type {name}; floats, integers and bool work"
        ) from exc
    return TensorType(dtype, (batch_size, *(int(n) for n in shape[1:])))


def parameter_names(names: Iterable[str]) -> dict[str, str]:
    """The framework's name to edgefl's: the same, except where the step needs the name itself."""
    return {name: f"model.{name}" if name in RESERVED else name for name in names}


def float_parameter(name: str, value: Array) -> Array:
    """The value as float32; raises SourceError for other precisions."""
    if value.dtype != np.float32:
        raise SourceError(
            f"parameter {name!r} is {value.dtype}; edgefl trains float32, convert the model to it"
        )
    return np.ascontiguousarray(value).reshape(value.shape)


def renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The graph with some tensors renamed; whatever else has one of the new names gives way."""
    table = dict(names)
    taken = set(names.values())
    for tensor in _tensors(graph):
        if tensor not in table and tensor in taken:
            table[tensor] = _free(tensor, taken)
            taken.add(table[tensor])

    def new(tensor: str) -> str:
        return table.get(tensor, tensor)

    return replace(
        graph,
        inputs={new(t): v for t, v in graph.inputs.items()},
        outputs={new(t): v for t, v in graph.outputs.items()},
        nodes=tuple(
            Node(n.op, tuple(map(new, n.inputs)), tuple(map(new, n.outputs)), n.attributes, n.name)
            for n in graph
        ),
        constants={new(t): v for t, v in graph.constants.items()},
        types={new(t): v for t, v in graph.types.items()},
    )


def _tensors(graph: Graph) -> list[str]:
    made = [t for node in graph for t in node.outputs if t]
    return [*graph.inputs, *graph.constants, *made]


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def assemble(
    graph: Graph,
    *,
    data: Mapping[str, str],
    parameters: Mapping[str, tuple[str, Array]],
    outputs: Mapping[str, str],
    trainable: Iterable[str],
    buffers: Iterable[str],
    provenance: Mapping[str, str],
    statistics: Iterable[Statistics] = (),
    aliases: Mapping[str, str] | None = None,
    strays: Mapping[str, str] | None = None,
) -> Forward:
    """A Forward from an exported graph.

    Args:
        graph: the exporter's; an input it dropped because nothing reads it is added again.
        data: the graph's input to the contract's name, in order.
        parameters: edgefl's name to the graph's input and the value, in order.
        outputs: the graph's output to the contract's name, in order.
        trainable, buffers: names out of `parameters`.
    """
    inputs = {**data, **{tensor: name for name, (tensor, _) in parameters.items()}}
    if len(set(inputs.values())) < len(inputs):
        raise SourceError(f"inputs and parameters share names: {_doubles(inputs.values())}; rename them")
    graph = renamed(graph, {**inputs, **outputs})
    types = {name: TensorType.of(value) for name, (_, value) in parameters.items()}
    wanted = {name: graph.inputs[name] for name in data.values()} | types
    extra = sorted(set(graph.inputs) - set(wanted))
    if extra:
        raise SourceError(f"the exporter made inputs that are neither data nor parameters: {extra}")
    return Forward(
        graph=replace(graph, inputs=wanted, outputs={n: graph.outputs[n] for n in outputs.values()}),
        inputs=tuple(data.values()),
        outputs=tuple(outputs.values()),
        parameters={name: float_parameter(name, value) for name, (_, value) in parameters.items()},
        trainable=frozenset(trainable),
        buffers=frozenset(buffers),
        provenance=dict(provenance),
        statistics=tuple(statistics),
        aliases=dict(aliases or {}),
        strays=dict(strays or {}),
    )


def _doubles(names: Iterable[str]) -> list[str]:
    listed = list(names)
    return sorted({n for n in listed if listed.count(n) > 1})


def dropout_note(kept: Iterable[str], off: Iterable[str]) -> dict[str, str]:
    """What became of a model's dropout, for its provenance."""
    rows = [f"{word}: {', '.join(sorted(n))}" for word, n in (("kept", set(kept)), ("off", set(off))) if n]
    return {"dropout": "; ".join(rows)} if rows else {}


def output_names(keys: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Names of the outputs: `output` for a single one, keys where the model returns a dict, else numbered."""
    if count == 1:
        return ("output",)
    return (
        tuple(keys) if keys is not None and len(keys) == count else tuple(f"output_{i}" for i in range(count))
    )
