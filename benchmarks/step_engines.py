# SPDX-License-Identifier: Apache-2.0
"""What the step benchmark compares: each engine is a function `(folder, threads) -> (block, version)`.

A folder holds one network: `model.edgefl`, the batch and weights in `batch.npz` and `weights.npz`, and
`ort_training/`. Every engine starts from the same weights and makes plain SGD steps on the same batch.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.step_worker import Block, timed

LR = 0.01
Made = tuple[Block, str]


def batch(folder: Path) -> tuple[Any, Any]:
    with np.load(folder / "batch.npz") as file:
        return file["x"], file["y"]


# -- edgefl's runtime on stock engines


def onnx(folder: Path, threads: int) -> Made:
    return _edgefl(folder, "onnx", threads)


def openvino(folder: Path, threads: int) -> Made:
    return _edgefl(folder, "openvino", threads)


def tflite(folder: Path, threads: int) -> Made:
    return _edgefl(folder, "tflite", threads, "xnnpack")


def tflite_runtime(folder: Path, threads: int) -> Made:
    import sys

    sys.modules["ai_edge_litert"] = None  # type: ignore[assignment]  # so that the older package is taken
    return _edgefl(folder, "tflite", threads, "xnnpack")


def _edgefl(folder: Path, backend: str, threads: int, delegate: str = "cpu") -> Made:
    """`Trainer.fit` as a user calls it; times lie between its calls of `on_step`."""
    from edgefl.bundle import Bundle
    from edgefl.runtime import Trainer

    trainer = Trainer(Bundle.open(folder / "model.edgefl"), backend, delegate, threads)
    x, y = batch(folder)

    def block(count: int) -> tuple[list[float], list[float]]:
        marks = [time.perf_counter()]
        report = trainer.fit(
            x, y, epochs=count, lr=LR, on_step=lambda number, loss: marks.append(time.perf_counter())
        )
        return (1e3 * np.diff(marks)).tolist(), list(report.losses)

    return block, trainer.backend.version


# -- peers


def ort_training(folder: Path, threads: int) -> Made:
    """onnxruntime-training's own artifacts, loss and optimizer."""
    import onnxruntime
    from onnxruntime.training import api

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    made = folder / "ort_training"
    state = api.CheckpointState.load_checkpoint(str(made / "checkpoint"))
    files = [str(made / f"{kind}_model.onnx") for kind in ("training", "eval", "optimizer")]
    module = api.Module(files[0], state, files[1], session_options=options)
    optimizer = api.Optimizer(files[2], module)
    optimizer.set_learning_rate(LR)
    x, y = batch(folder)
    y = y.reshape(-1).astype(np.int64)
    module.train()

    def step() -> float:
        loss = module(x, y)
        optimizer.step()
        module.lazy_reset_grad()
        return float(loss)

    return timed(step), f"onnxruntime-training {onnxruntime.__version__}"


def eager(folder: Path, threads: int) -> Made:
    return _torch(folder, threads, compiled=False)


def compiled(folder: Path, threads: int) -> Made:
    return _torch(folder, threads, compiled=True)


def _torch(folder: Path, threads: int, compiled: bool) -> Made:
    import torch

    from benchmarks.step_models import network

    torch.set_num_threads(threads)
    module = network(folder.name).module
    forward = torch.compile(module) if compiled else module
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=LR)
    x, y = (torch.from_numpy(a) for a in batch(folder))
    y = y.long().reshape(-1)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        scores = forward(x)
        loss = torch.nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), y)
        loss.backward()
        optimizer.step()
        return float(loss)

    return timed(step), f"torch {torch.__version__}"


def train_on_batch(folder: Path, threads: int) -> Made:
    model, x, y, version = _keras(folder, threads)
    import keras

    model.compile(keras.optimizers.SGD(LR), _loss())
    return timed(lambda: float(model.train_on_batch(x, y))), version


def tf_function(folder: Path, threads: int) -> Made:
    model, x, y, version = _keras(folder, threads)
    import keras
    import tensorflow as tf

    loss, optimizer, variables = _loss(), keras.optimizers.SGD(LR), model.trainable_variables
    optimizer.build(variables)

    @tf.function  # type: ignore[untyped-decorator]
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        optimizer.apply(tape.gradient(value, variables), variables)
        return value

    x, y = tf.constant(x), tf.constant(y)
    return timed(lambda: float(step(x, y))), version


def _loss() -> Any:
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _keras(folder: Path, threads: int) -> tuple[Any, Any, Any, str]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    from benchmarks.step_keras import network

    with np.load(folder / "weights.npz") as file:
        model = network(folder.name, [file[f"arr_{i}"] for i in range(len(file.files))])
    x, y = batch(folder)
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x.ndim == 4 else x
    return model, x, y, f"tensorflow {tf.__version__}"
