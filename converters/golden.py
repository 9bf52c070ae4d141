# SPDX-License-Identifier: Apache-2.0
"""The golden batch of a bundle, and what int8 files make of it: what engines are judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edgefl.bundle import Artifact, Bundle, Head, Manifest, TensorSpec
from edgefl.converters.targets import TFLiteModel
from edgefl.converters.targets.run import run_tflite
from edgefl.converters.targets.tflite import has_tensorflow
from edgefl.converters.training import SEED
from edgefl.errors import EdgeflError
from edgefl.graph import Interpreter, read_onnx
from edgefl.graph.model import Array
from edgefl.proof import golden_feeds, results, sketched, stored_sketch, with_sketch
from edgefl.sketch import TOLERANCES, Sketch, loosened, roughness, sketch

Values = dict[str, Array]

_TRIES = 4
_MOST_OFF = 0.1
"""Of an int8 file's numbers from the float graph's, over their norm, as far as engines may make use of it."""


def draw_golden(manifest: Manifest, examples: Mapping[str, Array] | None = None, seed: int = 0) -> Values:
    """One batch on which engines are compared: some of the examples where there are any, else seeded noise.

    Args:
        examples: by input, checked against the manifest.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    batch = {spec.name: _noise(spec, rng) for spec in manifest.inputs}
    if examples:
        batch |= _some(examples, manifest.batch_size, rng)
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
        examples: to draw from, by input; noise where there are none.
        seed: of the one in use.
    """

    examples: Mapping[str, Array] = field(default_factory=dict)
    seed: int = 0

    def on(self, bundle: Bundle, seed: int) -> Bundle:
        """The bundle with the batch of a seed, and the proof that goes with it."""
        golden = draw_golden(bundle.manifest, self.examples, seed)
        return with_int8_sketches(sketched(bundle.with_proof({}, golden)))

    def smooth(self, bundle: Bundle) -> tuple[Bundle, Goldens]:
        """The bundle with a batch on which rounding does not matter: near none of the model's kinks.

        The smoothest of a few where rounding matters on each, as in models whose gradients cancel.
        """
        best, least = (bundle, self), math.inf
        for seed in range(_TRIES):
            made = self.on(bundle, seed)
            rows = stored_sketch(made, "onnx", "step") or {}
            rough = roughness(rows, TOLERANCES["float32"]) if rows else 0.0
            if rough < least:
                best, least = (made, replace(self, seed=seed)), rough
            if least <= 1:
                break
        return best


def with_int8_sketches(bundle: Bundle) -> Bundle:
    """The bundle with what its int8 files give on the golden batch.

    NumPy computes the ONNX files; a TFLite file's numbers are those of TensorFlow's own kernels, as there is
    no other definition of what its integers mean. Without TensorFlow nothing is known of TFLite files.

    An engine may be as far from these numbers as they are from the float graph's: each rounds in every layer
    as the file itself does, and a unit that is rounded the other way is as good.
    """
    for artifact in bundle.manifest.artifacts:
        run = _numbers(bundle, artifact) if artifact.kind.endswith("-int8") else None
        if run is not None:
            rows = _rows(bundle, artifact.kind, _deployed(run, bundle, artifact.kind))
            bundle = with_sketch(bundle, artifact.target, artifact.kind, rows)
    return bundle


def _rows(bundle: Bundle, kind: str, made: Values) -> Sketch:
    whole = kind.removesuffix("-int8")
    if bundle.manifest.find("onnx", whole) is None:
        return sketch(made)
    exact = Interpreter(read_onnx(bundle.artifact("onnx", whole)))(golden_feeds(bundle, whole))
    return loosened(made, {name: exact[name][: len(value)] for name, value in made.items()}, _MOST_OFF)


def _numbers(bundle: Bundle, artifact: Artifact) -> Callable[[Values], Values] | None:
    """What says what an int8 file must give, None where nothing does."""
    data = bundle.artifact(artifact.target, artifact.kind)
    if artifact.target == "onnx":
        return Interpreter(read_onnx(data))
    if artifact.target != "tflite" or not has_tensorflow():
        return None
    taken = (spec.name for spec in bundle.manifest.inputs)
    given = results(bundle.manifest, artifact.kind)
    model = TFLiteModel(
        data,
        {name: artifact.inputs.get(name, name) for name in taken},
        {name: artifact.outputs.get(name, name) for name in given},
        signature=artifact.kind.removesuffix("-int8"),
    )
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


def _some(examples: Mapping[str, Array], size: int, rng: np.random.Generator) -> Values:
    count = len(next(iter(examples.values())))
    chosen = rng.choice(count, size, replace=count < size)
    return {name: value[chosen] for name, value in examples.items()}


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
