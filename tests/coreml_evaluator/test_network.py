# SPDX-License-Identifier: Apache-2.0
"""Neural network models that coremltools built and saved: predictions and update tasks against torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.coreml_evaluator.builders import coremltools
from tests.coreml_evaluator.errors import MalformedFile, Refused, Unsupported, WrongFeeds
from tests.coreml_evaluator.model import load, train

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


W1, B1, W2, B2 = random(4, 2, 3, 3) / 3, random(4, seed=1), random(3, 36, seed=2) / 6, random(3, seed=3)


def small_network(
    loss: str = "classes", optimizer: str = "sgd", edit: Callable[[Any], None] | None = None
) -> Any:
    """A convolution (stride 2), a pool, ReLU and a dense layer: `x` `[2, 8, 8]` to `output` `[3]`."""
    coremltools()
    from coremltools.models import MLModel, datatypes
    from coremltools.models.neural_network import AdamParams, NeuralNetworkBuilder, SgdParams

    outputs = [("output", datatypes.Array(3))]
    b = NeuralNetworkBuilder([("x", datatypes.Array(2, 8, 8))], outputs, use_float_arraytype=True)
    b.add_convolution("conv", 2, 4, 3, 3, 1, 1, "valid", 1, W1.transpose(2, 3, 1, 0), B1, True,
                      input_name="x", output_name="c")  # fmt: skip
    b.add_pooling("pool", 2, 2, 2, 2, "MAX", "VALID", "c", "p")
    b.add_activation("relu", "RELU", "p", "r")
    b.add_flatten("flat", 0, "r", "f")
    last = "scores" if loss == "classes" else "output"
    b.add_inner_product("dense", W2, B2, 36, 3, True, "f", last)
    if loss == "classes":
        b.add_softmax("softmax", "scores", "output")
        b.set_categorical_cross_entropy_loss("loss", "output")
    else:
        b.set_mean_squared_error_loss("loss", ("output", datatypes.Array(3)))
    b.make_updatable(["conv", "dense"])
    if optimizer == "sgd":
        params = SgdParams(lr=0.1, batch=4, momentum=0.5)
        params.set_lr(0.1, 0.0, 1.0)
        b.set_sgd_optimizer(params)
    else:
        b.set_adam_optimizer(AdamParams(lr=0.01, batch=4))
    b.set_epochs(5, [1, 5])
    if edit:
        edit(b.spec)
    return MLModel, b.spec


def saved(folder: Path, **options: Any) -> Path:
    path = folder / "small.mlmodel"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, spec = small_network(**options)
    path.write_bytes(spec.SerializeToString())
    return path


def in_torch() -> Any:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3),
        torch.nn.MaxPool2d(2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(36, 3),
    )
    for p, value in zip(net.parameters(), (W1, B1, W2, B2), strict=True):
        p.data = torch.from_numpy(value.copy())
    return net


def examples() -> tuple[Any, Any, Any]:
    return random(12, 2, 8, 8, seed=4), np.arange(12) % 3, random(12, 3, seed=5)


def trained_in_torch(
    net: Any, optimizer: Any, loss: Callable[[Any, Any], Any], x: Any, y: Any
) -> list[float]:
    losses = []
    for _ in range(5):
        for start in range(0, len(x), 4):
            value = loss(net(torch.from_numpy(x[start : start + 4])), torch.from_numpy(y[start : start + 4]))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses


def assert_equal(parameters: Any, net: Any) -> None:
    found = [parameters[layer][key] for layer in ("conv", "dense") for key in ("weight", "bias")]
    for own, expected in zip(found, net.parameters(), strict=True):
        np.testing.assert_allclose(own, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_prediction_matches_torch(tmp_path: Path) -> None:
    x = random(2, 8, 8, seed=6)

    got = load(saved(tmp_path))({"x": x})["output"]

    expected = in_torch()(torch.from_numpy(x[None])).softmax(1)[0].detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_classes_trained_with_momentum_match_torch(tmp_path: Path) -> None:
    x, labels, _ = examples()

    updated = train(saved(tmp_path), {"x": x, "output_true": labels[:, None].astype(np.int32)})

    net = in_torch()
    losses = trained_in_torch(
        net,
        torch.optim.SGD(net.parameters(), 0.1, momentum=0.5),
        torch.nn.functional.cross_entropy,
        x,
        labels,
    )
    np.testing.assert_allclose(updated.losses, losses, rtol=1e-4)
    assert_equal(updated.parameters, net)


def test_values_trained_with_adam_match_torch(tmp_path: Path) -> None:
    x, _, y = examples()

    updated = train(saved(tmp_path, loss="values", optimizer="adam"), {"x": x, "output_true": y})

    net = in_torch()
    trained_in_torch(net, torch.optim.Adam(net.parameters(), 0.01), torch.nn.functional.mse_loss, x, y)
    assert_equal(updated.parameters, net)


def test_only_updatable_layers_change(tmp_path: Path) -> None:
    def freeze(spec: Any) -> None:
        spec.neuralNetwork.layers[0].isUpdatable = False

    x, labels, _ = examples()

    updated = train(saved(tmp_path, edit=freeze), {"x": x, "output_true": labels[:, None].astype(np.int32)})

    assert list(updated.parameters) == ["dense"]


def test_values_outside_the_allowed_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    x, labels, _ = examples()
    feeds = {"x": x, "output_true": labels[:, None].astype(np.int32)}

    with pytest.raises(Refused, match=r"epochs 3: the model allows \[1, 5\]"):
        train(path, feeds, epochs=3)
    with pytest.raises(Refused, match=r"learning rate 2"):
        train(path, feeds, learning_rate=2.0)


def test_examples_must_be_the_training_inputs(tmp_path: Path) -> None:
    with pytest.raises(WrongFeeds, match="output_true"):
        train(saved(tmp_path), {"x": examples()[0]})


def test_flags_that_contradict_one_another_are_refused(tmp_path: Path) -> None:
    def contradict(spec: Any) -> None:
        spec.neuralNetwork.layers[0].convolution.weights.isUpdatable = False

    with pytest.raises(MalformedFile, match="conv is updatable, its weights are not"):
        load(saved(tmp_path, edit=contradict))


def test_unknown_layer_is_refused_by_name(tmp_path: Path) -> None:
    def replace(spec: Any) -> None:
        spec.neuralNetwork.layers[2].unary.type = 0

    with pytest.raises(Unsupported, match="layer relu of type unary"):
        load(saved(tmp_path, edit=replace))
