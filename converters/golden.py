# SPDX-License-Identifier: Apache-2.0
"""The golden batch of a bundle, and what int8 files make of it: what engines are judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.converters.sources import Forward
from edgefl.converters.step import Graphs
from edgefl.converters.targets import TFLiteModel
from edgefl.converters.targets.run import run_tflite
from edgefl.converters.training import SEED
from edgefl.errors import EdgeflError
from edgefl.graph import Interpreter, read_onnx
from edgefl.graph.model import Array, TensorType
from edgefl.proof import golden_feeds, with_sketch
from edgefl.sketch import sketch

Values = dict[str, Array]


def draw_golden(forward: Forward, graphs: Graphs, calibration: Any = None, seed: int = 0) -> Values:
    """One batch on which engines are compared: calibration examples where given, else seeded noise."""
    rng = np.random.Generator(np.random.PCG64(seed))
    batch = {name: _noise(forward.graph.inputs[name], rng) for name in forward.inputs}
    if calibration is not None and len(forward.inputs) == 1:
        name = forward.inputs[0]
        examples = np.asarray(calibration)[: len(batch[name])]
        if examples.shape == batch[name].shape:
            batch[name] = examples.astype(batch[name].dtype)
    for term in graphs.terms:
        classes = graphs.infer.outputs[term.gives].shape[-1]
        batch[term.y] = _labels(graphs.labels[term.y], classes, rng)
    if SEED in graphs.step.inputs:
        batch[SEED] = np.ones(1, np.int32)
    batch["weight"] = np.ones(graphs.step.inputs["weight"].shape, np.float32)
    return batch


def with_int8_sketches(bundle: Bundle, written: Mapping[str, TFLiteModel | None]) -> Bundle:
    """The bundle with what its int8 files give on the golden batch.

    NumPy computes the ONNX files; a TFLite file's numbers are those of TensorFlow's own kernels, as there is
    no other definition of what its integers mean.

    Args:
        written: what is known about the TFLite files, by kind.
    """
    for kind in ("features-int8", "infer-int8"):
        if bundle.manifest.find("onnx", kind):
            interpreter = Interpreter(read_onnx(bundle.artifact("onnx", kind)))
            bundle = with_sketch(bundle, "onnx", kind, sketch(_deployed(interpreter, bundle, kind)))
        model = written.get(kind)
        if model is not None:
            bundle = with_sketch(bundle, "tflite", kind, sketch(_deployed(_kernels(model), bundle, kind)))
    return bundle


def _kernels(model: TFLiteModel) -> Callable[[Values], Values]:
    return lambda feeds: run_tflite(model, [feeds])[0]


def _deployed(run: Callable[[Values], Values], bundle: Bundle, kind: str) -> Values:
    """Results on the golden batch, or on its first example where the file takes one."""
    feeds = golden_feeds(bundle, kind)
    if kind == "infer-int8":
        try:
            return run({name: value[:1] for name, value in feeds.items()})
        except (EdgeflError, ValueError, RuntimeError):
            pass
    return run(feeds)


def _noise(type: TensorType, rng: np.random.Generator) -> Array:
    if type.dtype.kind == "f":
        return rng.standard_normal(type.shape).astype(type.dtype)
    # Token ids and flags: 0 and 1 are valid in every vocabulary.
    return rng.integers(0, 2, type.shape).astype(type.dtype)


def _labels(type: TensorType, classes: int, rng: np.random.Generator) -> Array:
    if type.dtype.kind == "f":
        return rng.random(type.shape).astype(type.dtype)
    return rng.integers(0, classes, type.shape).astype(type.dtype)
