# SPDX-License-Identifier: Apache-2.0
"""What of a model is rounded before it is differentiated: frozen weights, and operands in training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from edgefl.converters.qat import Ranges, fake_quantize, quantized_operands, seen_ranges
from edgefl.converters.weights import check_bits, round_weights
from edgefl.graph import Array, Graph, Interpreter

_BATCHES = 8  # of calibration examples; ranges hardly change beyond


@dataclass(frozen=True)
class Precision:
    """How much of the model's precision is kept.

    Attributes:
        frozen_bits: 8 or 4 bits for large frozen weights; None for float32.
        qat: whether steps compute with operands rounded to int8.
        examples: calibration batches by data input; without them steps round weights only.

    Raises:
        ConversionError: there is no format for that number of bits.
    """

    frozen_bits: int | None = None
    qat: bool = False
    examples: Sequence[Mapping[str, Array]] = ()

    def __post_init__(self) -> None:
        check_bits(self.frozen_bits)

    def frozen(self, graph: Graph) -> Graph:
        """The forward graph with its frozen weights rounded, if they are to be."""
        return round_weights(graph, self.frozen_bits) if self.frozen_bits else graph

    def training(self, graph: Graph, trained: Mapping[str, Array], data: Collection[str]) -> Graph:
        """The forward graph as steps compute it; `trained` are the parameters' values."""
        if not self.qat:
            return graph
        operands = quantized_operands(graph, list(trained), data)
        return fake_quantize(graph, list(trained), data, self._ranges(graph, trained, operands))

    def _ranges(self, graph: Graph, trained: Mapping[str, Array], operands: Sequence[str]) -> Ranges:
        if not self.examples or not operands:
            return {}
        inputs = [name for name in operands if name in graph.inputs]
        inner = {name: graph.type_of(name) for name in operands if name not in graph.inputs}
        run = Interpreter(replace(graph, outputs=inner))
        chosen = self.examples[:_BATCHES]
        results = [run({**feed, **trained}) for feed in chosen]
        return seen_ranges(results) | seen_ranges([{n: feed[n] for n in inputs} for feed in chosen])


FULL = Precision()
"""Everything in float32."""
