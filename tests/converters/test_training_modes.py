# SPDX-License-Identifier: Apache-2.0
"""Dropout and BatchNorm policies: steps equal the frameworks' training mode, with the same masks."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

import edgefl
from edgefl import Bundle, Trainer
from edgefl.converters.autodiff import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.randomness import Masks
from edgefl.converters.sources.keras import held
from edgefl.converters.training import groups
from edgefl.errors import ConversionError, SourceError
from edgefl.graph import Interpreter, TensorType

F = torch.nn.functional
rng = np.random.default_rng(0)
BATCH, CLASSES = 6, 4
X = rng.standard_normal((BATCH, 3, 8, 8)).astype(np.float32)
Y = rng.integers(0, CLASSES, BATCH).astype(np.int32)
WEIGHT = np.array([1, 2, 0, 0.5, 1, 0], np.float32)


def drawn(shapes, rates, seed: int) -> list[np.ndarray]:
    """The masks of a graph's dropout layers, in order."""
    b = GraphBuilder()
    masks = Masks(Expr(b, b.input("seed", TensorType(np.dtype(np.int32), (1,)))), shapes)
    for i, rate in enumerate(rates):
        b.output(f"mask{i}", masks.scale(i, rate).name)
    made = Interpreter(b.build())({"seed": np.array([seed], np.int32)})
    return [made[f"mask{i}"] for i in range(len(rates))]


@contextlib.contextmanager
def dropping(monkeypatch, masks):
    """torch's dropout functions multiply by the given masks, one after another."""
    left = iter(masks)

    def dropout(x, p=0.5, training=True, inplace=False):
        return x * torch.tensor(next(left)) if training and p else x

    with monkeypatch.context() as patch:
        for name in ("dropout", "dropout2d"):
            patch.setattr(F, name, dropout)
        yield
    assert next(left, None) is None


def check(bundle, model, reference, *, backend="numpy", seed=7, x=X, y=Y, weight=WEIGHT):
    loss, gradients = Trainer(bundle, backend).loss_and_gradients(x, y, weight, seed)
    losses = reference()
    w = torch.tensor(weight)
    total = (losses * w).sum() / w.sum()
    model.zero_grad()
    total.backward()
    assert loss == pytest.approx(total.item(), rel=1e-5)
    found = dict(model.named_parameters())
    assert set(gradients) == {n for n, p in found.items() if p.grad is not None}
    for name, gradient in gradients.items():
        expected = found[name].grad.numpy()
        scale = np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4 * scale + 1e-7, err_msg=name)


def cross_entropy(output):
    return F.cross_entropy(output, torch.tensor(Y).long(), reduction="none")


# -- dropout


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout2d(0.4), nn.Flatten(), nn.Dropout(0.25, inplace=True),
        nn.Linear(8 * 36, CLASSES),
    )  # fmt: skip


SHAPES, RATES = [(BATCH, 8, 1, 1), (BATCH, 8 * 36)], [0.4, 0.25]


@pytest.fixture(scope="module")
def dropped() -> tuple[nn.Module, Bundle]:
    model = convolutional()
    made = edgefl.convert(model, X, batch_size=BATCH, dropout=True, targets=("onnx", "tflite"))
    return model, Bundle.open(made.to_bytes())


@pytest.mark.parametrize("backend", ["numpy", "onnx"])
def test_dropout_equals_torch_with_the_same_masks(dropped, monkeypatch, backend):
    model, bundle = dropped
    with dropping(monkeypatch, drawn(SHAPES, RATES, 7)):
        check(bundle, model, lambda: cross_entropy(model.train()(torch.tensor(X))), backend=backend)


def test_dropout_is_off_where_nothing_is_trained(dropped):
    model, bundle = dropped
    expected = model.eval()(torch.tensor(X))
    trainer = Trainer(bundle, "onnx")
    np.testing.assert_allclose(trainer.predict(X), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert trainer.evaluate(X, Y).loss == pytest.approx(cross_entropy(expected).mean().item(), rel=1e-5)
    check(bundle, model, lambda: cross_entropy(model.eval()(torch.tensor(X))), seed=-1)


def test_the_manifest_says_what_was_kept(dropped):
    model, bundle = dropped
    assert bundle.manifest.seeded and bundle.manifest.provenance["dropout"] == "kept: 2, 4"
    plain = edgefl.convert(model, X, batch_size=BATCH, targets=("onnx",)).manifest
    assert not plain.seeded and plain.provenance["dropout"] == "off: 2, 4"
    assert model.training is False and model[4].inplace


def test_training_draws_new_masks_each_step_and_repeats_with_the_seed(dropped):
    _, bundle = dropped
    runs = []
    for seed in (1, 1, 2):
        trainer = Trainer(bundle, "numpy")
        runs.append(trainer.fit(X, Y, epochs=3, lr=1e-6, seed=seed).losses)
    assert runs[0] == runs[1] != runs[2]
    assert len({round(loss, 4) for loss in runs[0]}) == 3


class Attention(nn.Module):
    """Dropout that functions do, inside attention and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        made, _ = self.attention(x, x, x, need_weights=False)
        return self.head(F.dropout(made, 0.3, self.training).mean(1))


def test_dropout_inside_attention(monkeypatch):
    torch.manual_seed(0)
    model, x = Attention(), rng.standard_normal((BATCH, 5, 8)).astype(np.float32)
    bundle = edgefl.convert(model, x, batch_size=BATCH, dropout=True, targets=("onnx",))
    masks = drawn([(BATCH, 2, 5, 5), (BATCH, 5, 8)], [0.2, 0.3], 7)

    def reference():
        model.train()
        q, k, v = (
            t.reshape(BATCH, 5, 2, 4).transpose(1, 2)
            for t in F.linear(
                torch.tensor(x), model.attention.in_proj_weight, model.attention.in_proj_bias
            ).chunk(3, -1)
        )
        p = torch.softmax(q @ k.transpose(-2, -1) / 2, -1) * torch.tensor(masks[0])
        made = model.attention.out_proj((p @ v).transpose(1, 2).reshape(BATCH, 5, 8))
        return cross_entropy(model.head((made * torch.tensor(masks[1])).mean(1)))

    check(bundle, model, reference, x=x)


def test_a_frozen_part_before_dropout_is_cut_off(monkeypatch):
    model = convolutional()
    bundle = edgefl.convert(model, X, batch_size=BATCH, dropout=True, trainable="5.*", targets=("onnx",))
    assert bundle.manifest.find("onnx", "features")
    for name, p in model.named_parameters():
        p.requires_grad = name.startswith("5.")
    with dropping(monkeypatch, drawn(SHAPES, RATES, 7)):
        check(bundle, model, lambda: cross_entropy(model.train()(torch.tensor(X))))


def test_lora_stands_beside_the_weights_of_both_graphs():
    bundle = edgefl.convert(
        convolutional(), X, batch_size=BATCH, dropout=True, trainable="lora:rank=2", targets=("onnx",)
    )
    trainer = Trainer(bundle, "numpy")
    before = trainer.evaluate(X, Y).loss
    trainer.fit(X, Y, epochs=30, lr=0.05)
    assert trainer.evaluate(X, Y).loss < before


def test_keras_dropout_equals_keras_with_the_same_masks():
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6, 5)), layers.Dense(7, activation="tanh"), layers.SpatialDropout1D(0.3),
         layers.GlobalAveragePooling1D(), layers.Dropout(0.5), layers.Dense(CLASSES)]
    )  # fmt: skip
    x = rng.standard_normal((BATCH, 6, 5)).astype(np.float32)
    bundle = edgefl.convert(model, batch_size=BATCH, dropout=True, targets=("onnx",))
    loss, gradients = Trainer(bundle, "numpy").loss_and_gradients(x, Y, WEIGHT, 7)
    spatial, plain = drawn([(BATCH, 1, 7), (BATCH, 7)], [0.3, 0.5], 7)
    dense, head = model.layers[0], model.layers[-1]
    with tf.GradientTape() as tape:
        z = head(tf.reduce_mean(dense(x) * spatial, 1) * plain)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(Y, z)
        total = tf.reduce_sum(losses * WEIGHT) / WEIGHT.sum()
    expected = tape.gradient(total, [v.value for v in model.trainable_variables])
    names = {id(v): name for name, v in held(model).items()}
    assert loss == pytest.approx(float(total), rel=1e-5)
    for variable, want in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(gradients[names[id(variable)]], want, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(Trainer(bundle, "numpy").predict(x), model(x), rtol=1e-4, atol=1e-5)


def test_other_randomness_and_none_at_all_are_refused():
    with pytest.raises(ConversionError, match="the model has none"):
        edgefl.convert(nn.Linear(4, 3), np.zeros((2, 4), np.float32), dropout=True)


class Noisy(nn.Module):
    def __init__(self, noise):
        super().__init__()
        self.dense, self.noise = nn.Linear(4, 3), noise

    def forward(self, x):
        return nn.functional.dropout(self.noise(self.dense(x)), 0.5, self.training)


@pytest.mark.parametrize(
    "operator, noise",
    {
        "alpha_dropout": nn.AlphaDropout(0.5),
        "rrelu": nn.RReLU(),
        "exponential_": nn.functional.gumbel_softmax,
        "randn_like": lambda x: x + torch.randn_like(x),
    }.items(),
)
def test_randomness_that_no_seed_repeats_is_refused(operator, noise):
    with pytest.raises(SourceError, match=f"{operator} is random"):
        edgefl.convert(Noisy(noise), np.zeros((2, 4), np.float32), dropout=True, targets=("onnx",))


@pytest.mark.parametrize("kind", ["GaussianNoise", "GaussianDropout", "AlphaDropout", "RandomContrast"])
def test_keras_layers_that_are_random_otherwise_are_refused(kind):
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), getattr(layers, kind)(0.1, name="odd"), layers.Dropout(0.5),
         layers.Flatten(), layers.Dense(3)]
    )  # fmt: skip
    with pytest.raises(SourceError, match=rf"'odd' \({kind}\)"):
        edgefl.convert(model, batch_size=2, dropout=True, targets=("onnx",))


# -- BatchNorm


def normalised() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16, momentum=0.2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 5),
        nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, CLASSES),
    )  # fmt: skip
    for module in (model[1], model[5]):
        module.running_mean.normal_()
        module.running_var.uniform_(0.5, 2)
        nn.init.normal_(module.weight, 1, 0.2)
    return model


KEPT = WEIGHT > 0


@pytest.mark.parametrize("backend", ["numpy", "onnx"])
def test_batch_statistics_of_a_padded_batch_are_those_of_its_examples(backend):
    model = normalised()
    bundle = edgefl.convert(model, X, batch_size=BATCH, batch_norm="batch", targets=("onnx", "tflite"))

    def reference():
        losses = torch.zeros(BATCH)
        real = F.cross_entropy(
            model.train()(torch.tensor(X[KEPT])), torch.tensor(Y[KEPT]).long(), reduction="none"
        )
        return losses.index_put((torch.tensor(np.flatnonzero(KEPT)),), real)

    check(bundle, model, reference, backend=backend)


def test_running_statistics_follow_torch():
    model = normalised()
    bundle = edgefl.convert(model, X, batch_size=BATCH, batch_norm="batch", targets=("onnx",))
    assert bundle.manifest.updated == ("1.running_mean", "1.running_var", "5.running_mean", "5.running_var")
    assert bundle.manifest.provenance["batch_norm"].startswith("batch: 2 layers")
    trainer = Trainer(bundle, "onnx")
    trainer.fit(X, Y, epochs=3, lr=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    order = np.random.Generator(np.random.PCG64(0))
    model.train()
    for _ in range(3):
        rows = order.permutation(BATCH)
        optimizer.zero_grad()
        F.cross_entropy(model(torch.tensor(X[rows])), torch.tensor(Y[rows]).long()).backward()
        optimizer.step()
    state, found = model.state_dict(), trainer.parameters()
    for name in (*bundle.manifest.updated, "0.weight", "7.bias"):
        np.testing.assert_allclose(found[name], state[name].numpy(), rtol=1e-3, atol=1e-4, err_msg=name)
    expected = model.eval()(torch.tensor(X)).detach().numpy()
    np.testing.assert_allclose(trainer.predict(X), expected, rtol=1e-3, atol=1e-3)
    evaluated = trainer.evaluate(X, Y).loss
    assert evaluated == pytest.approx(cross_entropy(torch.tensor(expected)).mean().item(), rel=1e-3)


def test_statistics_stay_on_the_device_and_travel_in_a_bundle():
    bundle = edgefl.convert(normalised(), X, batch_size=BATCH, batch_norm="batch", targets=("onnx",))
    trainer = Trainer(Bundle.open(bundle.slice("onnx").to_bytes()), "numpy")
    trainer.fit(X, Y, lr=0.1)
    own = trainer.parameters()
    assert "1.running_mean" not in trainer.delta()
    trainer.rebase({n: v for n, v in bundle.parameters().items() if n in own})
    np.testing.assert_array_equal(trainer.parameters()["1.running_mean"], own["1.running_mean"])
    other = Trainer(bundle.with_parameters(own, 1), "numpy")
    trainer.load_parameters(own)
    np.testing.assert_array_equal(trainer.predict(X), other.predict(X))


def test_frozen_is_the_default_and_uses_the_running_statistics():
    model = normalised()
    bundle = edgefl.convert(model, X, batch_size=BATCH, targets=("onnx",))
    assert bundle.manifest.updated == () and not bundle.manifest.seeded
    check(bundle, model, lambda: cross_entropy(model.eval()(torch.tensor(X))))


@pytest.mark.parametrize(
    ("channels", "expected"), [(3, 1), (8, 1), (12, 1), (16, 2), (24, 3), (64, 8), (256, 32), (1280, 32)]
)
def test_group_counts(channels, expected):
    assert groups(channels) == expected


def test_group_norm_equals_torch():
    model = normalised()
    bundle = edgefl.convert(model, X, batch_size=BATCH, batch_norm="group", targets=("onnx",))
    text = bundle.manifest.provenance["batch_norm"]
    assert text == "group: 2 layers became GroupNorm, 5 channels in 1 groups, 16 channels in 2 groups"
    assert not [p.name for p in bundle.manifest.parameters if "running" in p.name]

    def reference():
        h = torch.tensor(X)
        for i, module in enumerate(model):
            count = {1: 2, 5: 1}.get(i)
            h = F.group_norm(h, count, module.weight, module.bias, module.eps) if count else module(h)
        return cross_entropy(h)

    check(bundle, model, reference)


def keras_model(axis: int = -1):
    keras.utils.set_random_seed(0)
    norm = layers.BatchNormalization(momentum=0.8, axis=axis)
    model = keras.Sequential(
        [keras.Input((5, 6)), layers.Conv1D(7, 3, name="conv"), norm, layers.ReLU(), layers.Flatten(),
         layers.Dense(CLASSES, name="head")]
    )  # fmt: skip
    norm.moving_mean.assign(rng.standard_normal(norm.moving_mean.shape))
    norm.gamma.assign(rng.uniform(0.5, 2, norm.gamma.shape))
    return model, norm


@pytest.mark.parametrize("axis", [-1, 1])
def test_keras_batch_statistics_equal_keras(axis):
    import tensorflow as tf

    model, norm = keras_model(axis)
    x = rng.standard_normal((BATCH, 5, 6)).astype(np.float32)
    bundle = edgefl.convert(model, batch_size=BATCH, batch_norm="batch", targets=("onnx",))
    trainer = Trainer(bundle, "numpy")
    np.testing.assert_allclose(trainer.predict(x), model(x, training=False), rtol=1e-4, atol=1e-5)
    loss, gradients = trainer.loss_and_gradients(x, Y, seed=0)
    step = trainer.fit(x, Y, lr=1e-9)
    with tf.GradientTape() as tape:
        total = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(Y, model(x, training=True)))
    expected = tape.gradient(total, [v.value for v in model.trainable_variables])
    names = {id(v): name for name, v in held(model).items()}
    assert loss == pytest.approx(float(total), rel=1e-5) and step.steps == 1
    for variable, want in zip(model.trainable_variables, expected, strict=True):
        scale = float(np.abs(want).max())
        np.testing.assert_allclose(gradients[names[id(variable)]], want, rtol=1e-3, atol=1e-4 * scale + 1e-7)
    found = trainer.parameters()
    for variable in (norm.moving_mean, norm.moving_variance):
        np.testing.assert_allclose(found[names[id(variable)]], variable.numpy(), rtol=1e-4, atol=1e-6)


def test_a_frozen_keras_layer_stays_frozen():
    model, norm = keras_model()
    norm.trainable = False
    with pytest.raises(ConversionError, match="no BatchNorm that trains"):
        edgefl.convert(model, batch_size=BATCH, batch_norm="batch", targets=("onnx",))


def test_unknown_policies_are_refused():
    with pytest.raises(ConversionError, match="allowed frozen, batch, group"):
        edgefl.convert(normalised(), X, batch_norm="sync")


def test_batch_norm_without_running_statistics_is_refused():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(SourceError, match="padded batches would not be exact"):
        edgefl.convert(model, np.zeros((2, 4), np.float32))


def test_dropout_in_an_onnx_file_is_kept():
    from onnx import TensorProto, helper, numpy_helper

    weight = rng.standard_normal((6, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("Dropout", ["x", "rate"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["scores"]),
    ]
    edges = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k])
        for n, k in (("x", 6), ("scores", CLASSES))
    ]
    values = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.float32(0.4), "rate")]
    graph = helper.make_graph(nodes, "g", edges[:1], edges[1:], values)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    bundle = edgefl.convert(proto.SerializeToString(), batch_size=BATCH, dropout=True, targets=("onnx",))
    assert bundle.manifest.provenance["dropout"] == "kept: 1 layers"
    x = rng.standard_normal((BATCH, 6)).astype(np.float32)
    (mask,) = drawn([(BATCH, 6)], [0.4], 7)
    loss, _ = Trainer(bundle, "numpy").loss_and_gradients(x, Y, seed=7)
    assert loss == pytest.approx(cross_entropy(torch.tensor((x * mask) @ weight)).mean().item(), rel=1e-5)
