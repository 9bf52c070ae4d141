# SPDX-License-Identifier: Apache-2.0
"""Classic updatable models: their training emulated from the saved file, against the runtime's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgefl
from edgefl.bundle import Bundle
from edgefl.converters.targets.coreml import to_updatable
from edgefl.errors import ConversionError, UnsupportedOperator
from edgefl.runtime import Trainer
from tests.coreml_evaluator.model import load
from tests.coreml_evaluator.update import train

pytest.importorskip("coremltools")

BATCH, STEPS = 4, 20


def converted(model: nn.Module, shape: tuple[int, ...], **options: Any) -> Bundle:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        x = np.zeros((BATCH, *shape), np.float32)
        return edgefl.convert(model, x, targets=("onnx",), batch_size=BATCH, **options)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


def convolution() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(8 * 2 * 2, 3),
    )


def examples(shape: tuple[int, ...], classes: int = 3) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    count = BATCH * STEPS
    x = random.normal(size=(count, *shape)).astype(np.float32)
    return x, random.integers(0, classes, count).astype(np.int32)


def save(data: bytes, folder: Path) -> Path:
    path = folder / "updatable.mlmodel"
    path.write_bytes(data)
    return path


def trained(bundle: Bundle, x: Any, y: Any) -> dict[str, Any]:
    """Parameters after one pass in the order of the examples."""
    trainer = Trainer(bundle, backend="numpy")
    values = {p.name: trainer.parameters()[p.name].copy() for p in bundle.manifest.trained}
    for start in range(0, len(x), BATCH):
        trainer.load_parameters(values)
        _, gradients = trainer.loss_and_gradients(x[start : start + BATCH], y[start : start + BATCH])
        values = {name: value - np.float32(0.05) * gradients[name] for name, value in values.items()}
    return values


@pytest.mark.parametrize(
    ("make", "shape", "trainable"),
    [(dense, (6,), "all"), (dense, (6,), "last:2"), (convolution, (2, 8, 8), "all")],
    ids=["dense", "tail", "convolution"],
)
def test_twenty_steps_are_the_runtimes(
    tmp_path: Path, make: Callable[[], nn.Module], shape: tuple[int, ...], trainable: str
) -> None:
    bundle = converted(seeded(make), shape, trainable=trainable)
    x, y = examples(shape)
    model = to_updatable(bundle)
    fed = x if bundle.manifest.find("onnx", "features") is None else features(bundle, x)

    made = train(
        save(model.data, tmp_path), {"x": fed, "output_true": y.reshape(-1, 1)}, learning_rate=0.05, epochs=1
    )

    expected = trained(bundle, x, y)
    for row in model.layers:
        weight = made.parameters[row["layer"]]["weight"]
        own = weight.T if row["transposed"] else weight
        np.testing.assert_allclose(
            own.reshape(expected[row["weight"]].shape), expected[row["weight"]], atol=2e-5
        )
        bias = made.parameters[row["layer"]]["bias"]
        np.testing.assert_allclose(bias.reshape(-1), expected[row["bias"]], atol=2e-5)


def features(bundle: Bundle, x: Any) -> Any:
    """What the frozen prefix makes of the examples."""
    from edgefl.graph import read_onnx, run

    graph = read_onnx(bundle.artifact("onnx", "features"))
    (name,) = graph.inputs
    parts = [run(graph, {name: x[i : i + BATCH]}) for i in range(0, len(x), BATCH)]
    return np.concatenate([next(iter(part.values())) for part in parts])


def test_it_predicts_what_the_model_does(tmp_path: Path) -> None:
    bundle = converted(seeded(convolution), (2, 8, 8))
    x, _ = examples((2, 8, 8))

    model = load(save(to_updatable(bundle).data, tmp_path))

    scores = Trainer(bundle, backend="numpy").predict(x[:2])
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    found = np.stack([model({"x": one})["output"].reshape(-1) for one in x[:2]])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_file_allows_what_the_bundle_suggests() -> None:
    from coremltools.proto import Model_pb2

    bundle = converted(seeded(dense), (6,))
    spec = Model_pb2.Model()
    spec.ParseFromString(to_updatable(bundle, "adam").data)

    update = spec.neuralNetwork.updateParams
    assert spec.isUpdatable
    assert [layer.isUpdatable for layer in spec.neuralNetwork.layers] == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]
    assert update.optimizer.adamOptimizer.learningRate.defaultValue == pytest.approx(0.05)
    assert update.optimizer.adamOptimizer.miniBatchSize.defaultValue == BATCH
    assert update.epochs.defaultValue == 1
    assert update.shuffle.defaultValue


def test_mean_squared_error_is_trained_too(tmp_path: Path) -> None:
    bundle = converted(seeded(dense), (6,), loss="mean_squared_error")
    x, _ = examples((6,))
    y = np.random.default_rng(1).normal(size=(len(x), 3)).astype(np.float32)
    model = to_updatable(bundle)

    made = train(save(model.data, tmp_path), {"x": x, "output_true": y}, learning_rate=0.05, epochs=1)

    expected = trained(bundle, x, y)
    for row in model.layers:
        np.testing.assert_allclose(
            made.parameters[row["layer"]]["weight"], expected[row["weight"]], atol=2e-5
        )


def test_equal_bundles_give_equal_bytes() -> None:
    bundle = converted(seeded(dense), (6,))

    assert to_updatable(bundle).data == to_updatable(bundle).data


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)), "layer_norm"),
        (lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)), "gelu"),
    ],
    ids=["norm", "gelu"],
)
def test_the_first_layer_in_the_way_is_named(model: Callable[[], nn.Module], named: str) -> None:
    bundle = converted(seeded(model), (6,))

    with pytest.raises(UnsupportedOperator, match=named):
        to_updatable(bundle)


def test_other_losses_and_optimizers_are_refused() -> None:
    bundle = converted(seeded(dense), (6,), loss="sigmoid_cross_entropy")

    with pytest.raises(UnsupportedOperator, match="softmax_cross_entropy and mean_squared_error"):
        to_updatable(bundle)
    with pytest.raises(ConversionError, match="sgd, adam"):
        to_updatable(bundle, "lion")
