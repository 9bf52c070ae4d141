# SPDX-License-Identifier: Apache-2.0
"""Written files on this machine's engines, to compare them with the graph they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgefl.converters.targets.quiet import quiet
from edgefl.converters.targets.tflite import TFLiteModel, import_tensorflow
from edgefl.errors import DataShape, NotProved
from edgefl.graph import Array

Feeds = Sequence[Mapping[str, Array]]
_SAID = 300
"""Characters of an engine's message that are passed on."""


def run_onnx(data: bytes, feeds: Feeds) -> list[dict[str, Array]]:
    """An ONNX file's outputs by name, batch by batch, on onnxruntime's CPU.

    Raises:
        NotProved: it does not run the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return [dict(zip(names, session.run(names, dict(feed)), strict=True)) for feed in feeds]
    except Exception as exc:  # the engine's exceptions share no base class
        said = str(exc).split("\n", 1)[0][:_SAID]
        raise NotProved(f"onnxruntime {onnxruntime.__version__} does not run the ONNX file: {said}") from exc


def run_tflite(model: TFLiteModel, feeds: Feeds) -> list[dict[str, Array]]:
    """A TFLite file's outputs by contract name, batch by batch, on TensorFlow's interpreter.

    Raises:
        DataShape: a feed has not the shape of the file's input, to which the file would be adapted.
    """
    with quiet("absl", "tensorflow"):
        tf = import_tensorflow()
        # Its XNNPACK delegate (2.21) computes int8 BATCH_MATMUL wrongly; LiteRT and tflite-runtime do not.
        plain = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = tf.lite.Interpreter(
            model_content=model.data, num_threads=1, experimental_op_resolver_type=plain
        )
        runner = interpreter.get_signature_runner(model.signature)
        shapes = {name: tuple(row["shape"]) for name, row in runner.get_input_details().items()}
        given = [{model.inputs[n]: v for n, v in feed.items()} for feed in feeds]
        for name, value in ((n, v) for feed in given for n, v in feed.items()):
            if np.shape(value) != shapes[name]:
                raise DataShape(f"{name!r} has shape {np.shape(value)}, the file takes {shapes[name]}")
        own = [runner(**feed) for feed in given]
    return [{name: row[tensor] for name, tensor in model.outputs.items()} for row in own]
