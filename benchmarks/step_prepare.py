# SPDX-License-Identifier: Apache-2.0
"""Makes what the engines of the step benchmark train: `python -m benchmarks.step_prepare FOLDER MODEL...`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.step_shapes import Array


def prepare(folder: Path, name: str) -> dict[str, Any]:
    """Write one network's bundle, batch, weights and artifacts of onnxruntime-training.

    Returns:
        The number of trained parameters, and the seconds its conversion took.
    """
    from benchmarks.step_models import network, weights
    from edgefl.converters import convert

    folder.mkdir(parents=True, exist_ok=True)
    made = network(name)
    np.savez(folder / "weights.npz", *weights(made.module))
    np.savez(folder / "batch.npz", x=made.x, y=made.y)
    started = time.perf_counter()
    bundle = convert(made.module, made.x, batch_size=len(made.x), name=name)
    seconds = time.perf_counter() - started
    bundle.save(folder / "model.edgefl")
    forward, parameters = exported(made.module, made.x)
    write_ort_training(forward, parameters, len(made.y.reshape(-1)), folder / "ort_training")
    trained = sum(int(np.prod(p.shape)) for p in bundle.manifest.trained)
    return {"model": name, "parameters": trained, "conversion_s": round(seconds, 1)}


def exported(module: Any, x: Array) -> tuple[bytes, dict[str, Array]]:
    """The forward graph as torch exports it, in operators that onnxruntime-training differentiates, and the
    trained parameters: LayerNorm and GRU are decomposed, a frozen BatchNorm is a scale and a shift, since as
    BatchNormalization it would silently use the batch's statistics. edgefl's own optimisations are left out.
    """
    from edgefl.converters.graft import bind
    from edgefl.converters.normalize import REWRITES
    from edgefl.converters.normalize.registry import replay
    from edgefl.converters.sources import load_forward
    from edgefl.converters.targets import to_onnx

    forward = load_forward(module, x, batch_size=len(x))
    trained = {name: forward.parameters[name] for name in forward.parameters if name in forward.trainable}
    fixed = {name: value for name, value in forward.parameters.items() if name not in trained}
    return to_onnx(bind(replay(forward.graph, REWRITES), fixed)), trained


def write_ort_training(forward: bytes, parameters: Mapping[str, Array], rows: int, folder: Path) -> None:
    """Artifacts of onnxruntime-training.

    Args:
        forward: a graph from data and parameters to scores.
        parameters: what is trained.
        rows: of the scores that have a label.
    """
    import onnx
    from onnxruntime.training import artifacts

    model = onnx.load_from_string(forward)
    graph = model.graph
    names = [value.name for value in graph.input if value.name in parameters]
    data = [value for value in graph.input if value.name not in parameters]
    graph.initializer.extend(onnx.numpy_helper.from_array(parameters[name], name) for name in names)
    del graph.input[:]
    graph.input.extend(data)
    classes = graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    shape = onnx.numpy_helper.from_array(np.array([rows, classes], np.int64), "scores_shape")
    graph.initializer.append(shape)
    graph.node.append(onnx.helper.make_node("Reshape", [graph.output[0].name, shape.name], ["scores"]))
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info("scores", 1, [rows, classes]))
    folder.mkdir(exist_ok=True)
    artifacts.generate_artifacts(
        model,
        requires_grad=names,
        loss=artifacts.LossType.CrossEntropyLoss,
        optimizer=artifacts.OptimType.SGD,
        artifact_directory=str(folder),
    )


def main(folder: str, *names: str) -> int:
    for name in names:
        print(json.dumps(prepare(Path(folder) / name, name)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
