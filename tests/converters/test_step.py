# SPDX-License-Identifier: Apache-2.0
"""Whole steps against torch: gradients, trajectories, what is constant, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgefl.converters.autodiff.registry import VJPS
from edgefl.converters.losses import LOSSES
from edgefl.converters.selection import select
from edgefl.converters.step import Graphs, make_graphs
from edgefl.errors import ConversionError, NotDifferentiable, SelectionError
from edgefl.graph import Graph, Interpreter, TensorType, write_onnx
from tests.converters.small_models import Model, build, cnn_1d, cnn_2d, mlp

F = torch.nn.functional
MODELS = {"mlp": mlp, "cnn_1d": cnn_1d, "cnn_2d": cnn_2d}


def run_numpy(graph: Graph) -> Callable[..., dict]:
    return Interpreter(graph)


def run_onnx(graph: Graph) -> Callable[..., dict]:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(write_onnx(graph), options, providers=["CPUExecutionProvider"])
    return lambda feeds: dict(zip(graph.outputs, session.run(list(graph.outputs), feeds), strict=True))


ENGINES = {"numpy": run_numpy, "onnx": run_onnx}


def graphs_of(model: Model, spec: str = "all", loss: str = "softmax_cross_entropy") -> Graphs:
    f = model.forward
    return make_graphs(f, select(list(f.parameters), f.trainable, spec, buffers=f.buffers), loss)


def batch_of(model: Model, graphs: Graphs, seed: int = 0) -> dict[str, np.ndarray]:
    x = model.forward.graph.inputs["x"]
    random = np.random.default_rng(seed)
    classes = model.forward.graph.outputs["output"].shape[-1]
    label = graphs.label
    y = (
        random.integers(0, classes, label.shape)
        if label.dtype.kind == "i"
        else random.uniform(size=label.shape)
    )
    return {
        "x": random.standard_normal(x.shape).astype(np.float32),
        "y": y.astype(label.dtype),
        "weight": random.uniform(0.5, 2, x.shape[:1]).astype(np.float32),
    }


def torch_losses(loss: str, output: torch.Tensor, y: np.ndarray) -> torch.Tensor:
    target = torch.tensor(y)
    if loss == "softmax_cross_entropy":
        return F.cross_entropy(output, target.long(), reduction="none")
    if loss == "sigmoid_cross_entropy":
        return F.binary_cross_entropy_with_logits(output, target, reduction="none").mean(1)
    return F.mse_loss(output, target, reduction="none").mean(1)


def torch_step(model: Model, values, trained, batch, loss="softmax_cross_entropy"):
    parameters = {n: torch.tensor(v, requires_grad=n in trained) for n, v in values.items()}
    losses = torch_losses(loss, model.reference(parameters, torch.tensor(batch["x"])), batch["y"])
    weight = torch.tensor(batch["weight"])
    total = (losses * weight).sum() / weight.sum()
    total.backward()
    return total.item(), {n: parameters[n].grad.numpy() for n in trained}


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_equal_torch(name, loss, engine):
    model = MODELS[name]()
    graphs = graphs_of(model, loss=loss)
    batch = batch_of(model, graphs)
    values = dict(model.forward.parameters)
    made = ENGINES[engine](graphs.step)(batch | {n: values[n] for n in graphs.trained})

    expected, expected_gradients = torch_step(model, values, graphs.trained, batch, loss)
    assert made["loss"] == pytest.approx(expected, rel=1e-5)
    for parameter, gradient in expected_gradients.items():
        assert_close(made[f"grad/{parameter}"], gradient, 1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MODELS)
def test_twenty_steps_follow_torch(name, engine):
    model = MODELS[name]()
    graphs = graphs_of(model)
    step = ENGINES[engine](graphs.step)
    ours, theirs = dict(model.forward.parameters), dict(model.forward.parameters)
    for seed in range(20):
        batch = batch_of(model, graphs, seed)
        made = step(batch | {n: ours[n] for n in graphs.trained})
        _, gradients = torch_step(model, theirs, graphs.trained, batch)
        ours.update({n: ours[n] - np.float32(0.1) * made[f"grad/{n}"] for n in graphs.trained})
        theirs.update({n: theirs[n] - np.float32(0.1) * g for n, g in gradients.items()})
    for parameter in graphs.trained:
        assert_close(ours[parameter], theirs[parameter], 1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_inference_equals_torch(name):
    model = MODELS[name]()
    graphs = graphs_of(model, "last:1")
    x = batch_of(model, graphs)["x"]
    values = model.forward.parameters
    made = Interpreter(graphs.infer)({"x": x, **{n: values[n] for n in graphs.trained}})
    expected = model.reference({n: torch.tensor(v) for n, v in values.items()}, torch.tensor(x))
    assert_close(made["output"], expected.numpy(), 1e-5)


def test_signature():
    model = mlp()
    step = graphs_of(model, "b.*,c.bias").step
    assert list(step.inputs) == ["features", "y", "weight", "b.weight", "b.bias", "c.bias"]
    assert list(step.outputs) == ["loss", "grad/b.weight", "grad/b.bias", "grad/c.bias"]
    assert str(step.inputs["y"]) == "int32[8]"
    assert str(step.outputs["loss"]) == "float32[]"


def test_weights_of_zero_leave_examples_out():
    model = mlp(batch=4)
    graphs = graphs_of(model)
    batch = batch_of(model, graphs)
    batch["weight"] = np.array([1, 1, 0, 0], np.float32)
    other = {**batch, "x": batch["x"].copy(), "y": batch["y"].copy()}
    other["x"][2:], other["y"][2:] = 7.0, 0
    values = {n: model.forward.parameters[n] for n in graphs.trained}
    one, two = (Interpreter(graphs.step)(b | values) for b in (batch, other))
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])


def test_frozen_parameters_and_buffers_are_constants():
    graphs = graphs_of(cnn_2d(), "head.*")
    assert set(graphs.step.inputs) == {"features", "y", "weight", "head.weight", "head.bias"}
    assert set(graphs.infer.inputs) == {"x", "head.weight", "head.bias"}
    assert graphs.roles["norm.mean"] == "buffer"
    assert graphs.roles["stem.weight"] == "frozen"


@pytest.mark.parametrize(
    ("activation", "loss"), [("Softmax", "softmax_cross_entropy"), ("Sigmoid", "sigmoid_cross_entropy")]
)
def test_a_final_activation_is_left_to_the_loss(activation, loss):
    plain, ended = graphs_of(mlp(), loss=loss), graphs_of(mlp(last=activation), loss=loss)
    batch = batch_of(mlp(), plain)
    values = mlp().forward.parameters
    one, two = (Interpreter(g.step)(batch | values) for g in (plain, ended))
    assert one["loss"] == two["loss"]
    assert "Softmax" not in ended.step.operators()
    assert activation in ended.infer.operators()
    assert activation in ended.notes[0] and not plain.notes


def test_a_final_activation_stays_for_a_loss_of_its_own_values():
    graphs = graphs_of(mlp(last="Sigmoid"), loss="mean_squared_error")
    assert "Sigmoid" in graphs.step.operators()


@pytest.mark.parametrize(
    ("activation", "loss", "instead"),
    [
        ("Softmax", "sigmoid_cross_entropy", "softmax_cross_entropy, next_token"),
        ("Sigmoid", "softmax_cross_entropy:smoothing=0.1", "sigmoid_cross_entropy"),
        ("LogSoftmax", "sigmoid_cross_entropy", ""),
    ],
)
def test_probabilities_are_no_scores(activation, loss, instead):
    with pytest.raises(ConversionError, match=f"ends in {activation}, and .*{activation} out") as caught:
        graphs_of(mlp(last=activation), loss=loss)
    assert instead in str(caught.value)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda z: z.apply("Softmax", axis=0), "ends in Softmax, and"),
        (lambda z: z.apply("Softmax", axis=-1).reshape((4, 5, 1)).reshape((4, 1, 5)), "Reshape behind it"),
    ],
)
def test_a_softmax_the_loss_cannot_take_over_is_refused(end, message):
    model = build((4, 5), {"w": (5, 5)}, lambda p, x: end(x @ p["w"]), lambda p, x: x)
    with pytest.raises(ConversionError, match=message):
        graphs_of(model)


def test_log_probabilities_are_scores_too():
    plain, ended = graphs_of(mlp()), graphs_of(mlp(last="LogSoftmax"))
    values = mlp().forward.parameters
    one, two = (Interpreter(g.step)(batch_of(mlp(), plain) | values) for g in (plain, ended))
    np.testing.assert_allclose(one["loss"], two["loss"], rtol=1e-6)


def test_a_parameter_without_influence_is_frozen_and_said_so():
    model = mlp()
    f = model.forward
    extra = np.zeros(3, np.float32)
    graph = replace(f.graph, inputs={**f.graph.inputs, "idle": TensorType.of(extra)})
    forward = replace(
        f, graph=graph, parameters={**f.parameters, "idle": extra}, trainable=f.trainable | {"idle"}
    )
    graphs = make_graphs(forward, dict.fromkeys(forward.parameters, "shared"), "softmax_cross_entropy")
    assert graphs.roles["idle"] == "frozen"
    assert graphs.idle == {"idle": "the loss does not depend on it"}
    assert "grad/idle" not in graphs.step.outputs


def test_nothing_left_to_train_is_refused():
    model = mlp(last="Round")
    with pytest.raises(SelectionError, match="depends on none"):
        graphs_of(model, loss="mean_squared_error")


def test_an_operator_without_gradient_is_refused_with_advice(monkeypatch):
    model = mlp()
    nodes = tuple(
        replace(n, op="Atan", name="act/odd") if n.op == "Tanh" else n for n in model.forward.graph.nodes
    )
    forward = replace(model.forward, graph=replace(model.forward.graph, nodes=nodes))
    monkeypatch.delitem(VJPS, "Atan")
    with pytest.raises(NotDifferentiable) as refused:
        graphs_of(Model(forward, model.reference))
    text = str(refused.value)
    assert "node Atan 'act/odd'" in text
    assert "2 trainable parameters: 'a.weight', 'a.bias'" in text
    assert "trainable='*,!a.*'" in text
    assert graphs_of(Model(forward, model.reference), "*,!a.*").trained == (
        "b.weight",
        "b.bias",
        "c.weight",
        "c.bias",
    )


def test_a_loss_that_does_not_fit_the_output_is_refused():
    with pytest.raises(ConversionError, match="next_token needs scores"):
        graphs_of(mlp(), loss="next_token")


def test_an_unknown_loss_lists_the_known_ones():
    with pytest.raises(ConversionError) as refused:
        graphs_of(mlp(), loss="hinge")
    assert all(name in str(refused.value) for name in LOSSES)
