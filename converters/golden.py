# SPDX-License-Identifier: Apache-2.0
"""The golden batch of a bundle, and what int8 files make of it: what engines are judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgefl.bundle import Bundle, Head, Manifest, TensorSpec
from edgefl.converters.targets import TFLiteModel
from edgefl.converters.targets.run import run_tflite
from edgefl.converters.training import SEED
from edgefl.errors import EdgeflError
from edgefl.graph import Interpreter, read_onnx
from edgefl.graph.model import Array
from edgefl.proof import golden_feeds, sketched, stored_sketch, with_sketch
from edgefl.sketch import TOLERANCES, roughness, sketch

Values = dict[str, Array]

_TRIES = 4


def draw_golden(manifest: Manifest, calibration: Any = None, seed: int = 0) -> Values:
    """One batch on which engines are compared: calibration examples where given, else seeded noise."""
    rng = np.random.Generator(np.random.PCG64(seed))
    batch = {spec.name: _noise(spec, rng) for spec in manifest.inputs}
    if calibration is not None and len(manifest.inputs) == 1:
        (spec,) = manifest.inputs
        examples = np.asarray(calibration)
        start = seed * spec.shape[0] % max(len(examples) - spec.shape[0], 1)
        examples = examples[start : start + spec.shape[0]]
        if examples.shape == spec.shape:
            batch[spec.name] = examples.astype(spec.dtype)
    for head in manifest.heads:
        batch[head.label.name] = _labels(head, rng)
    if manifest.seeded:
        batch[SEED] = np.ones(1, np.int32)
    batch["weight"] = np.ones(manifest.batch_size, np.float32)
    return batch


@dataclass(frozen=True)
class Goldens:
    """Golden batches of one model.

    Attributes:
        calibration: examples to draw from.
        seed: of the one in use.
        int8: what is known of the int8 TFLite files, by kind.
    """

    calibration: Any = None
    seed: int = 0
    int8: Mapping[str, TFLiteModel | None] = field(default_factory=dict)

    def on(self, bundle: Bundle, seed: int, *, int8: bool = True) -> Bundle:
        """The bundle with the batch of a seed, and the proof that goes with it."""
        made = sketched(bundle.with_proof({}, draw_golden(bundle.manifest, self.calibration, seed)))
        return with_int8_sketches(made, self.int8) if int8 else made

    def smooth(self, bundle: Bundle) -> tuple[Bundle, Goldens]:
        """The bundle with a batch on which rounding does not matter: near none of the model's kinks.

        The smoothest of a few where rounding matters on each, as in models whose gradients cancel.
        """
        best, least = (bundle, self), math.inf
        for seed in range(_TRIES):
            made = self.on(bundle, seed, int8=False)
            rows = stored_sketch(made, "onnx", "step") or {}
            rough = roughness(rows, TOLERANCES["float32"]) if rows else 0.0
            if rough < least:
                best, least = (made, replace(self, seed=seed)), rough
            if least <= 1:
                break
        return best


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


def _noise(spec: TensorSpec, rng: np.random.Generator) -> Array:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(spec.shape).astype(dtype)
    # Without a range these are flags, or numbers of which 0 and 1 are likely to do.
    return rng.integers(0, spec.below or 2, spec.shape).astype(dtype)


def _labels(head: Head, rng: np.random.Generator) -> Array:
    dtype = np.dtype(head.label.dtype)
    if dtype.kind == "f":
        return rng.random(head.label.shape).astype(dtype)
    return rng.integers(0, head.output.shape[-1], head.label.shape).astype(dtype)
