# SPDX-License-Identifier: Apache-2.0
"""The TFLite target: any of edgefl's graphs as builtin operators with one named signature."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from edgefl.converters.targets.flatbuffer import Finished, finish
from edgefl.converters.targets.quiet import quiet
from edgefl.converters.targets.refusal import refusal
from edgefl.errors import ConversionError, MissingDependency
from edgefl.graph import Graph

_BATCH_MATMUL_RUNTIME = "2.3.0"  # `products` writes it where TensorFlow did not
LITERT = "LiteRT "
"""What a release of TensorFlow Lite's successor begins with."""


@dataclass(frozen=True)
class TFLiteModel:
    """A converted graph.

    Attributes:
        data: the TFLite file; equal for equal graphs.
        inputs, outputs: contract name to the signature's name, in the graph's order.
        transposes: transposes that could not be cancelled.
        operators: builtin operator to number of uses.
        signature: the name of the file's one signature.
        min_runtime: the oldest TensorFlow Lite release that has its operators, such as `2.9.0`, or LiteRT's.
        newest: the operator and version that ask for that release, such as `DEQUANTIZE 6`; empty where
            TensorFlow chose them.
    """

    data: bytes
    inputs: dict[str, str]
    outputs: dict[str, str]
    transposes: int = 0
    operators: dict[str, int] = field(default_factory=dict)
    signature: str = ""
    min_runtime: str = ""
    newest: str = ""

    def to_json(self) -> dict[str, Any]:
        """What a bundle's report says of the file."""
        return {
            "transposes": self.transposes,
            "operators": self.operators,
            "min_runtime": self.min_runtime,
            "newest": self.newest,
        }


def to_tflite(graph: Graph, signature: str) -> TFLiteModel:
    """Convert a graph to TFLite builtins, channel-last inside, with one signature.

    Raises:
        UnsupportedOperator: a node has no counterpart among the builtins; the message names it.
        ConversionError: TensorFlow refuses the translated graph.
        MissingDependency: TensorFlow is not installed.
    """
    if not graph.inputs:
        raise ConversionError(f"signature {signature!r} has no inputs; TFLite's bindings need at least one")
    with quiet("absl", "tensorflow"):
        tf = import_tensorflow()
        inputs, outputs = safe_names(graph.inputs), safe_names(graph.outputs)
        data = _write(tf, graph, inputs)
        done = finish(data, signature, inputs, outputs)
    return described(done, signature, inputs, outputs)


def described(done: Finished, signature: str, inputs: dict[str, str], outputs: dict[str, str]) -> TFLiteModel:
    """A finished file with what is known about it."""
    transposes, release, newest = done.operators.get("TRANSPOSE", 0), done.min_runtime, ""
    if "BATCH_MATMUL" in done.operators and later_release(release, _BATCH_MATMUL_RUNTIME) != release:
        release, newest = _BATCH_MATMUL_RUNTIME, "BATCH_MATMUL 1"
    return TFLiteModel(done.data, inputs, outputs, transposes, done.operators, signature, release, newest)


def later_release(first: str, second: str) -> str:
    """The later of two releases, `2.9.0` or `LiteRT 1.0`: those of LiteRT came after TensorFlow Lite's."""

    def age(release: str) -> tuple[bool, list[int]]:
        numbers = release.removeprefix(LITERT).split(".")
        return release.startswith(LITERT), [int(part) for part in numbers if part.isdecimal()]

    return max(first, second, key=age)


def import_tensorflow() -> Any:
    """TensorFlow, quietly."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
    except ImportError as exc:
        raise no_tensorflow() from exc
    return tf


def has_tensorflow() -> bool:
    """Whether TensorFlow is installed; does not load it."""
    return importlib.util.find_spec("tensorflow") is not None


def no_tensorflow() -> MissingDependency:
    """What to say where TensorFlow, which writes TFLite files, is not installed."""
    return MissingDependency("tensorflow", "", "the TFLite target")


def safe_names(names: Iterable[str]) -> dict[str, str]:
    """Distinct names of letters, digits and underscores, as close to the given ones as that allows."""
    safe: dict[str, str] = {}
    for name in names:
        base = re.sub(r"\W", "_", name, flags=re.ASCII)
        base = base if base[:1].isalpha() else f"t_{base}"
        taken, count, candidate = set(safe.values()), 1, base
        while candidate in taken:
            count += 1
            candidate = f"{base}_{count}"
        safe[name] = candidate
    return safe


def _write(tf: Any, graph: Graph, names: dict[str, str]) -> bytes:
    """The graph by TensorFlow's converter, without what long graphs have no use for and wait for most.

    That is freezing variables, which there are none, by copying the graph operator by operator; collecting
    the lines of Python that made each; and reading and writing the file again twice, to share equal buffers
    and to note what made it. `finish` shares buffers too.
    """
    from tensorflow.lite.python.lite import TFLiteConverterBaseV2

    from edgefl.converters.targets.lowering import draw

    drawn = draw(graph, names)
    converter = tf.lite.TFLiteConverter([SimpleNamespace(graph=None)])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter._optimize_tflite_model = lambda data, *args, **options: data
    written = drawn.graph.as_graph_def(), drawn.inputs, drawn.outputs
    try:
        return bytes(TFLiteConverterBaseV2.convert(converter, *written))
    except Exception as exc:
        raise refusal(exc, drawn) from exc


def convert(converter: Any) -> bytes:
    """Run a converter; its errors come out as edgefl's."""
    try:
        return bytes(converter.convert())
    except Exception as exc:
        raise refusal(exc) from exc
