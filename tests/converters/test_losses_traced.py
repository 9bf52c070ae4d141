# SPDX-License-Identifier: Apache-2.0
"""Losses given as callables, and losses of several outputs: all as in the framework."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
import torch

from edgefl.bundle import TensorSpec
from edgefl.converters.losses import make_objective
from edgefl.converters.losses.traced import traced_loss
from edgefl.converters.step import make_graphs
from edgefl.errors import ConversionError, SourceError
from edgefl.graph import Interpreter, TensorType
from tests.converters.small_models import mlp

F = torch.nn.functional
FLOAT = np.dtype(np.float32)
INT = np.dtype(np.int32)
SCORES = TensorType(FLOAT, (8, 4))


def focal(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    ce = F.cross_entropy(output, y, reduction="none")
    return (1 - torch.exp(-ce)) ** 2 * ce


def focal_keras(y_true, y_pred):
    p = keras.ops.sum(keras.ops.softmax(y_pred) * keras.ops.one_hot(y_true, 4), axis=-1)
    return -keras.ops.square(1 - p) * keras.ops.log(p)


def weighted_classes() -> torch.nn.Module:
    return torch.nn.CrossEntropyLoss(weight=torch.tensor([0.5, 1.0, 2.0, 1.5]))


def torch_reference(losses: torch.Tensor, weight: np.ndarray) -> torch.Tensor:
    w = torch.tensor(weight)
    return (losses * w).sum() / w.sum()


TORCH = {
    "function": (focal, focal),
    "module": (torch.nn.CrossEntropyLoss(), partial(F.cross_entropy, reduction="none")),
    "class": (torch.nn.CrossEntropyLoss, partial(F.cross_entropy, reduction="none")),
    "functional": (F.cross_entropy, partial(F.cross_entropy, reduction="none")),
    "weights of classes": (
        weighted_classes(),
        lambda z, y: F.cross_entropy(z, y, weighted_classes().weight, reduction="none"),
    ),
}


def step_of(function, source, label):
    model = mlp()
    forward = replace(model.forward, provenance={"source": source})
    roles = dict.fromkeys(forward.parameters, "shared")
    graphs = make_graphs(forward, roles, make_objective(function, forward, label))
    random = np.random.default_rng(0)
    batch = {
        "x": random.standard_normal((8, 6)).astype(np.float32),
        "weight": np.array([1, 2, 0.5, 0, 1, 3, 0, 1], np.float32),
    }
    return model, graphs, batch


def torch_gradients(model, batch, y, reference):
    parameters = {n: torch.tensor(v, requires_grad=True) for n, v in model.forward.parameters.items()}
    losses = reference(model.reference(parameters, torch.tensor(batch["x"])), y)
    total = torch_reference(losses, batch["weight"])
    total.backward()
    return total.item(), {n: p.grad.numpy() for n, p in parameters.items()}


def check(model, graphs, batch, y, reference):
    made = Interpreter(graphs.step)({**batch, "y": y, **model.forward.parameters})
    target = torch.tensor(y).long() if y.dtype.kind == "i" else torch.tensor(y)
    expected, gradients = torch_gradients(model, batch, target, reference)
    assert made["loss"] == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(made[f"grad/{name}"], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", TORCH)
def test_a_torch_callable_equals_torch(name):
    function, reference = TORCH[name]
    model, graphs, batch = step_of(function, "pytorch", np.zeros(3, np.int64))
    assert str(graphs.label) == "int32[8]"
    check(model, graphs, batch, np.array([0, 1, 2, 3, 0, 1, 2, 3], np.int32), reference)


@pytest.mark.parametrize(
    ("module", "reference"),
    [
        (torch.nn.SmoothL1Loss(), lambda z, y: F.smooth_l1_loss(z, y, reduction="none").mean(1)),
        (torch.nn.MSELoss(reduction="sum"), lambda z, y: ((z - y) ** 2).sum(1)),
        (lambda z, y: (z - y).abs(), lambda z, y: (z - y).abs().mean(1)),
    ],
)
def test_values_beyond_the_batch_are_reduced_as_the_loss_does(module, reference):
    model, graphs, batch = step_of(module, "pytorch", TensorSpec("y", (1, 4), "float32"))
    y = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    check(model, graphs, batch, y, reference)


@pytest.mark.parametrize(
    "function",
    [
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        partial(keras.losses.sparse_categorical_crossentropy, from_logits=True),
        focal_keras,
    ],
    ids=["object", "function", "own"],
)
def test_a_keras_callable_equals_keras(function):
    import tensorflow as tf

    model, graphs, batch = step_of(function, "keras", np.zeros(3, np.int32))
    y = np.array([0, 1, 2, 3, 0, 1, 2, 3], np.int32)
    made = Interpreter(graphs.step)({**batch, "y": y, **model.forward.parameters})

    values = {n: tf.Variable(v) for n, v in model.forward.parameters.items()}
    with tf.GradientTape() as tape:
        h = tf.tanh(batch["x"] @ tf.transpose(values["a.weight"]) + values["a.bias"])
        h = tf.nn.relu(h @ tf.transpose(values["b.weight"]) + values["b.bias"])
        z = h @ tf.transpose(values["c.weight"]) + values["c.bias"]
        plain = tf.nn.sparse_softmax_cross_entropy_with_logits
        losses = focal_keras(y, z) if function is focal_keras else plain(y, z)
        total = tf.reduce_sum(losses * batch["weight"]) / tf.reduce_sum(batch["weight"])
    gradients = tape.gradient(total, values)
    assert made["loss"] == pytest.approx(float(total), rel=1e-5)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(made[f"grad/{name}"], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "label", "message"),
    [
        (lambda z, y: F.cross_entropy(z, y), np.zeros(2, int), "one value per example"),
        (lambda z, y: z[:, 0] - z[:, 0].mean(), np.zeros(2, int), "depends on the other examples"),
        (lambda z, y: z.reshape(-1), np.zeros(2, int), "one value per example"),
        (focal, None, "give label="),
        (3, None, "is no loss"),
    ],
)
def test_what_would_not_be_exact_is_refused(function, label, message):
    with pytest.raises(ConversionError, match=message):
        step_of(function, "pytorch", label)


def test_a_loss_with_parameters_is_refused():
    with pytest.raises(SourceError, match="parameters of its own"):
        traced_loss(torch.nn.Linear(4, 1), SCORES, TensorType(FLOAT, (8, 4)), "pytorch")


def test_a_plain_function_for_an_onnx_model_is_refused():
    with pytest.raises(ConversionError, match="plain function"):
        traced_loss(focal, SCORES, TensorType(INT, (8,)), "onnx")
    found = traced_loss(torch.nn.CrossEntropyLoss(), SCORES, TensorType(INT, (8,)), "onnx")
    assert found.name == "callable:CrossEntropyLoss"


@pytest.mark.parametrize("spec", [{}, {"other": "mean_squared_error"}])
def test_losses_of_unknown_outputs_are_refused(spec):
    with pytest.raises(ConversionError, match=r"the model has \['output'\]"):
        make_objective(spec, mlp().forward)
