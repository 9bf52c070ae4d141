# SPDX-License-Identifier: Apache-2.0
"""What of a model is rounded before it is differentiated: frozen weights, and operands in training."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from edgefl.converters.qat import fake_quantize
from edgefl.converters.weights import check_bits, round_weights
from edgefl.graph import Graph


@dataclass(frozen=True)
class Precision:
    """How much of the model's precision is kept.

    Attributes:
        frozen_bits: 8 or 4 bits for large frozen weights; None for float32.
        qat: whether steps compute with operands rounded to int8.

    Raises:
        ConversionError: there is no format for that number of bits.
    """

    frozen_bits: int | None = None
    qat: bool = False

    def __post_init__(self) -> None:
        check_bits(self.frozen_bits)

    def frozen(self, graph: Graph) -> Graph:
        """The forward graph with its frozen weights rounded, if they are to be."""
        return round_weights(graph, self.frozen_bits) if self.frozen_bits else graph

    def training(self, graph: Graph, trained: Collection[str], data: Collection[str]) -> Graph:
        """The forward graph as steps compute it."""
        return fake_quantize(graph, trained, data) if self.qat else graph


FULL = Precision()
"""Everything in float32."""
