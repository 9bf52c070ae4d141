# SPDX-License-Identifier: Apache-2.0
"""Deployed models and frozen prefixes made small by coremltools' own optimizers.

Weights are inside, in eight bits (linear, symmetric, per channel), on request in four: in blocks of up to 32
with a scale each (from iOS 18), or as a palette of 16 values. The rest is computed in float16, as the Neural
Engine does. Activations in int8 come from the calibration examples of the other targets, from iOS 17.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.converters.targets.absorb import absorb
from edgefl.converters.targets.activations import float_runner
from edgefl.converters.targets.coreml import package
from edgefl.converters.targets.coreml.program import TARGETS, CoreMLModel, import_coremltools, to_coreml
from edgefl.converters.targets.quiet import quiet
from edgefl.errors import ConversionError
from edgefl.graph import Array, Graph
from edgefl.graph.interpreter import settled

WEIGHTS = ("int8", "int4", "palette4")
SMALLEST = 512
"""Weights of fewer elements stay float16: the scales would cost what the bits save."""

_BLOCKS = (32, 16, 8)
_PRODUCTS = ("Conv", "Gemm", "MatMul")


def to_compressed(
    graph: Graph,
    kind: str,
    *,
    weights: str = "int8",
    target: str = TARGETS[0],
    calibration: Sequence[Mapping[str, Array]] = (),
) -> CoreMLModel:
    """A graph with its weights inside as a small ML Program in float16.

    Args:
        graph: float, its parameters constants.
        kind: the package's name, such as `infer-int8`.
        weights: one of `WEIGHTS`.
        calibration: feeds of the graph; where given, activations that enter convolutions and dense layers are
            rounded to int8.

    Raises:
        ConversionError: the target cannot hold what was asked for, or coremltools' optimizer refuses.
    """
    _check(weights, target, bool(calibration))
    prepared = absorb(settled(graph))
    ranges = largest_inputs(prepared, calibration) if calibration else {}
    made = to_coreml(prepared, kind, target=target, half=True, ranges=ranges)
    with quiet("coremltools"), package.opened(made.data) as model, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{kind}.mlpackage"
        try:
            _optimized(model, weights).save(str(path))
        except Exception as exc:  # the optimizer's exceptions share no base class
            raise ConversionError(f"coremltools cannot compress {kind} to {weights}: {exc}") from exc
        data = package.pack_package(path, kind, f"edgefl {kind}, weights {weights}, float16")
        spec = package.load(data)
    counts, half_counts = package.operators(spec), package.operators(spec, "float16")
    return replace(made, data=data, operators=counts, half_operators=half_counts)


def _check(weights: str, target: str, activations: bool) -> None:
    if weights not in WEIGHTS:
        raise ConversionError(f"weights {weights!r}: there are {', '.join(WEIGHTS)}")
    needed = {"int4": "iOS18"}.get(weights, "iOS17" if activations else TARGETS[0])
    if target in TARGETS and TARGETS.index(target) < TARGETS.index(needed):
        what = f"weights {weights!r}" if weights == "int4" else "activations in int8"
        raise ConversionError(f"{what} need Core ML target {needed} or newer, given {target}")


def _optimized(model: Any, weights: str) -> Any:
    import_coremltools()
    from coremltools.optimize import coreml as optimize

    if weights == "palette4":
        palette = optimize.OpPalettizerConfig(mode="kmeans", nbits=4, weight_threshold=SMALLEST)
        return optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=palette))
    blocks = _blocks(optimize, model) if weights == "int4" else {}
    options = {"dtype": weights, "mode": "linear_symmetric", "weight_threshold": SMALLEST}
    whole = optimize.OpLinearQuantizerConfig(**options)
    apart = {
        name: optimize.OpLinearQuantizerConfig(**options, granularity="per_block", block_size=size)
        for name, size in blocks.items()
    }
    config = optimize.OptimizationConfig(global_config=whole, op_name_configs=apart)
    return optimize.linear_quantize_weights(model, config)


def _blocks(optimize: Any, model: Any) -> dict[str, int]:
    """The block size of each weight whose input channels can be cut into blocks."""
    found = {}
    for name, row in optimize.get_weights_metadata(model, weight_threshold=SMALLEST).items():
        size = next((n for n in _BLOCKS if row.val.ndim > 1 and row.val.shape[1] % n == 0), 0)
        if size:
            found[name] = size
    return found


def largest_inputs(graph: Graph, feeds: Sequence[Mapping[str, Array]]) -> dict[str, float]:
    """The largest magnitude of each tensor that a product with a constant weight reads, over all feeds."""
    read = [n.inputs[0] for n in graph if n.op in _PRODUCTS and n.inputs[1] in graph.constants]
    inner = [name for name in dict.fromkeys(read) if name not in graph.inputs]
    run = float_runner(
        replace(graph, outputs={name: graph.type_of(name) for name in (*graph.outputs, *inner)})
    )
    found: dict[str, float] = {}
    for feed in feeds:
        values = {**feed, **run(feed)}
        for name in read:
            found[name] = max(found.get(name, 0.0), float(np.abs(values[name]).max()))
    return found
