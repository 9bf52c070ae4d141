# SPDX-License-Identifier: Apache-2.0
"""A model with its weights inside, in the forms that apps and firmware take.

Form and target decide the writer; every one goes through the target's own writer, which keeps engines'
mistakes away. `float16` and `weights8` round weights once, so that NumPy knows what each file computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgefl.converters.targets.absorb import absorb
from edgefl.converters.targets.compact import compact, stored_bits
from edgefl.converters.targets.compact_tflite import compact_tflite
from edgefl.converters.targets.engines import Rows
from edgefl.converters.targets.filled import filled
from edgefl.converters.targets.half import half_onnx, half_tflite, round_to_half
from edgefl.converters.targets.int8_border import Ranges, Rounding, int8_border_onnx, rounding_of
from edgefl.converters.targets.onnx import to_onnx
from edgefl.converters.targets.quantize import int8_onnx, int8_tflite
from edgefl.converters.targets.tflite import TFLiteModel, to_tflite
from edgefl.converters.weights import round_weights
from edgefl.errors import ConversionError
from edgefl.graph import Graph
from edgefl.graph.interpreter import settled

FORMS = ("float32", "float16", "int8", "weights8")
"""Full precision; weights in float16; integer arithmetic; weights in int8, arithmetic in float."""

TARGETS = ("onnx", "tflite", "coreml")


@dataclass(frozen=True)
class Made:
    """A written file, not yet tried.

    Attributes:
        data: its bytes.
        model: what is known of it where it is a TFLite file.
        inputs, outputs: contract name to the file's own.
        roundings: how each int8 input and output stands for numbers, by contract name.
        release: the oldest release or system that runs it, where known.
    """

    data: bytes
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    model: TFLiteModel | None = None
    roundings: Mapping[str, Rounding] = field(default_factory=dict)
    release: str = ""


def prepared(graph: Graph) -> Graph:
    """A graph with its weights inside, ready for every form: what comes of constants alone is computed."""
    whole = settled(graph)
    # What is stored in few bits stays as it is: a scale taken in would cost the rounding.
    return whole if stored_bits(graph) else absorb(whole)


def rounded(graph: Graph, form: str) -> Graph | None:
    """The graph a file of this form computes; None for int8, which only its engine knows."""
    if form == "int8":
        return None
    if form == "weights8":
        return round_weights(graph, 8)
    return round_to_half(graph) if form == "float16" else graph


def make_onnx(graph: Graph, form: str, feeds: Rows, border: Ranges | None) -> Made:
    """One ONNX file.

    Args:
        graph: what it computes, from `rounded`; for int8 the float one.
        feeds: calibration, for int8.
        border: for int8: ranges of inputs and outputs that are to be int8 too.
    """
    roundings: Mapping[str, Rounding] = {}
    if form == "int8":
        data = int8_onnx(graph, feeds)
        if border is not None:
            data, roundings = int8_border_onnx(data, border)
    else:
        stored = half_onnx(graph) if form == "float16" else graph
        stored = compact(graph, 8) if form == "weights8" else stored
        data = to_onnx(filled(stored))
    inputs, outputs = ({name: name for name in names} for names in (graph.inputs, graph.outputs))
    return Made(data, inputs, outputs, roundings=roundings)


def make_tflite(graph: Graph, form: str, feeds: Rows, border: Ranges | None) -> Made:
    """One TFLite file; arguments as for `make_onnx`."""
    if form == "int8":
        lite = int8_tflite(graph, feeds, border=border)
    else:
        lite = to_tflite(graph, "infer")
        lite = half_tflite(lite) if form == "float16" else lite
        lite = compact_tflite(lite, 8) if form == "weights8" else lite
    roundings = {} if border is None else _roundings(lite)
    return Made(lite.data, lite.inputs, lite.outputs, lite, roundings, lite.min_runtime)


def make_coreml(graph: Graph, form: str, name: str, system: str) -> Made:
    """One ML Program as a zipped package.

    Args:
        graph: the float one: Core ML's own optimizers round.
        name: of the package.
        system: the oldest that is to run it.

    Raises:
        ConversionError: Core ML has no such form.
    """
    from edgefl.converters.targets.coreml import to_compressed, to_coreml

    if form == "int8":
        raise ConversionError(
            "Core ML has no int8 form: weights8 has int8 weights and computes in float16; activations in "
            "int8 come with --coreml and --system iOS17 or newer"
        )
    if form == "weights8":
        made = to_compressed(graph, name, weights="int8", target=system)
    else:
        made = to_coreml(graph, name, target=system, half=form == "float16")
    return Made(made.data, made.inputs, made.outputs, release=made.target)


def _roundings(lite: TFLiteModel) -> dict[str, Rounding]:
    """As the file has them."""
    from tensorflow.lite.tools import flatbuffer_utils

    graph = flatbuffer_utils.read_model_from_bytearray(bytearray(lite.data)).subgraphs[0]
    names = (*zip(graph.inputs, lite.inputs, strict=True), *zip(graph.outputs, lite.outputs, strict=True))
    found = {name: rounding_of(graph.tensors[index]) for index, name in names}
    return {name: rounding for name, rounding in found.items() if rounding is not None}
