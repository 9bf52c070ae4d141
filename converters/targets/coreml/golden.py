# SPDX-License-Identifier: Apache-2.0
"""A bundle's golden batch as the inputs of any of its graphs."""

from __future__ import annotations

import numpy as np

from edgefl.bundle import Bundle
from edgefl.graph import Array, Graph, read_onnx, run


def golden_inputs(bundle: Bundle, graph: Graph) -> dict[str, Array]:
    """The batch, the bundle's parameters, and what the frozen prefix makes of the batch; the rest is zero."""
    known = {**bundle.golden(), **bundle.parameters()}
    if bundle.manifest.find("onnx", "features") and not set(graph.inputs) <= set(known):
        features = read_onnx(bundle.artifact("onnx", "features"))
        known |= run(features, {name: known[name] for name in features.inputs})
    return {name: known.get(name, np.zeros(type.shape, type.dtype)) for name, type in graph.inputs.items()}
