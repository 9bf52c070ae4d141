# SPDX-License-Identifier: Apache-2.0
"""Models with several inputs and outputs, from conversion to training: against the source framework."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from keras import layers

import edgefl
from edgefl import Bundle, Trainer
from edgefl.bundle import TensorSpec
from edgefl.converters.sources.keras import held
from edgefl.data import load_examples
from edgefl.errors import ConversionError, DataShape, LabelRange

F = torch.nn.functional
rng = np.random.default_rng(0)
WIDE = rng.standard_normal((10, 5)).astype(np.float32)
DEEP = rng.integers(0, 7, (10, 3)).astype(np.int32)
KIND = rng.integers(0, 4, 10).astype(np.int32)
PRICE = rng.standard_normal((10, 1)).astype(np.float32)
WEIGHT = np.array([1, 2, 0, 0.5, 1, 1, 0, 3, 1, 1], np.float32)
LOSSES = {"kind": "softmax_cross_entropy", "price": ("mean_squared_error", 0.3)}


class WideAndDeep(torch.nn.Module):
    """Takes a dict, returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(7, 4)
        self.body = torch.nn.Linear(17, 8)
        self.kind = torch.nn.Linear(8, 4)
        self.price = torch.nn.Linear(8, 1)

    def forward(self, wide, deep):
        h = torch.tanh(self.body(torch.cat([wide, self.table(deep).flatten(1)], 1)))
        return {"kind": self.kind(h), "price": self.price(h), "unused": h}


@pytest.fixture(scope="module")
def model() -> WideAndDeep:
    torch.manual_seed(0)
    return WideAndDeep()


@pytest.fixture(scope="module")
def bundle(model) -> Bundle:
    made = edgefl.convert(
        model, {"wide": WIDE, "deep": DEEP}, loss=LOSSES, batch_size=4, targets=("onnx", "tflite")
    )
    return Bundle.open(made.to_bytes())


def torch_loss(model, weight):
    made = model(torch.tensor(WIDE), torch.tensor(DEEP))
    losses = F.cross_entropy(made["kind"], torch.tensor(KIND).long(), reduction="none")
    losses = losses + 0.3 * F.mse_loss(made["price"], torch.tensor(PRICE), reduction="none").mean(1)
    w = torch.tensor(weight)
    return (losses * w).sum() / w.sum()


def test_the_manifest_names_every_head(bundle):
    m = bundle.manifest
    assert [h.label.name for h in m.heads] == ["y/kind", "y/price"]
    assert [h.output.name for h in m.heads] == ["output/kind", "output/price"]
    assert [h.loss for h in m.heads] == ["softmax_cross_entropy", "0.3*mean_squared_error"]
    assert [h.loss_name for h in m.heads] == ["softmax_cross_entropy", "mean_squared_error"]
    assert [s.name for s in m.inputs] == ["wide", "deep"]


@pytest.mark.parametrize("backend", ["numpy", "onnx"])
def test_loss_and_gradients_with_weights_equal_torch(bundle, model, backend):
    loss, gradients = Trainer(bundle, backend).loss_and_gradients(
        {"wide": WIDE, "deep": DEEP}, {"kind": KIND, "price": PRICE}, WEIGHT
    )
    expected = torch_loss(model, WEIGHT)
    model.zero_grad()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(gradients[name], p.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_outputs_by_name(bundle, model):
    made = Trainer(bundle, "numpy").predict({"wide": WIDE, "deep": DEEP})
    expected = model(torch.tensor(WIDE), torch.tensor(DEEP))
    assert list(made) == ["kind", "price"]
    for name, value in made.items():
        np.testing.assert_allclose(value, expected[name].detach().numpy(), rtol=1e-4, atol=1e-6)


def test_training_and_accuracy_of_the_first_head_that_has_one(bundle):
    trainer, x, y = Trainer(bundle, "onnx"), {"wide": WIDE, "deep": DEEP}, {"y/kind": KIND, "price": PRICE}
    before = trainer.evaluate(x, y)
    report = trainer.fit(x, y, epochs=30, lr=0.1, momentum=0.9)
    after = trainer.evaluate(x, y)
    assert report.examples == 10 and after.loss < before.loss / 2
    assert after.accuracy is not None and after.accuracy > before.accuracy


def test_examples_of_weight_zero_are_left_out_of_training(bundle):
    x, y = {"wide": WIDE, "deep": DEEP}, {"kind": KIND, "price": PRICE}
    one, two = Trainer(bundle, "numpy"), Trainer(bundle, "numpy")
    kept = WEIGHT > 0
    report = one.fit(x, y, lr=0.1, sample_weight=WEIGHT)
    two.fit(
        {n: v[kept] for n, v in x.items()},
        {n: v[kept] for n, v in y.items()},
        lr=0.1,
        sample_weight=WEIGHT[kept],
    )
    assert report.examples == 8 and report.steps == 2
    for name, value in one.parameters().items():
        np.testing.assert_array_equal(value, two.parameters()[name])


def test_examples_from_a_file(bundle, tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, **{"wide": WIDE, "deep": DEEP, "y/kind": KIND, "y/price": PRICE, "weight": WEIGHT})
    found = load_examples(path)
    assert len(found) == 10 and set(found.x) == {"wide", "deep"} and set(found.y) == {"y/kind", "y/price"}
    Trainer(bundle, "numpy").fit(found.x, found.y, sample_weight=found.weight)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (KIND, DataShape, "give them by name"),
        ({"kind": KIND}, DataShape, r"labels \['y/kind', 'y/price'\], given \['y/kind'\]"),
        ({"kind": KIND + 4, "price": PRICE}, LabelRange, "'y/kind' holds label"),
        ({"kind": KIND, "price": PRICE[:5]}, DataShape, "y/price has 5"),
    ],
)
def test_labels_that_do_not_fit_are_refused(bundle, y, error, message):
    with pytest.raises(error, match=message):
        Trainer(bundle, "numpy").fit({"wide": WIDE, "deep": DEEP}, y)


def test_keras_outputs_have_the_names_keras_gives_them():
    keras.utils.set_random_seed(0)
    wide, deep = keras.Input((5,), name="wide"), keras.Input((3,), name="deep", dtype="int32")
    flat = layers.Flatten()(layers.Embedding(7, 4)(deep))
    h = layers.Dense(8, activation="tanh")(layers.Concatenate()([wide, flat]))
    kind, price = layers.Dense(4, activation="softmax", name="kind")(h), layers.Dense(1, name="price")(h)
    made = keras.Model({"wide": wide, "deep": deep}, [kind, price])
    bundle = edgefl.convert(made, loss=LOSSES, batch_size=4, targets=("onnx",))
    loss, gradients = Trainer(bundle, "numpy").loss_and_gradients(
        {"wide": WIDE, "deep": DEEP}, {"kind": KIND, "price": PRICE}, WEIGHT
    )
    import tensorflow as tf

    with tf.GradientTape() as tape:
        p, z = made({"wide": WIDE, "deep": DEEP}, training=False)
        losses = tf.keras.losses.sparse_categorical_crossentropy(KIND, p) + 0.3 * (z[:, 0] - PRICE[:, 0]) ** 2
        total = tf.reduce_sum(losses * WEIGHT) / WEIGHT.sum()
    expected = tape.gradient(total, [v.value for v in made.trainable_variables])
    names = {id(v): name for name, v in held(made).items()}
    assert loss == pytest.approx(float(total), rel=1e-5)
    for variable, want in zip(made.trainable_variables, expected, strict=True):
        want = tf.convert_to_tensor(want).numpy()
        np.testing.assert_allclose(gradients[names[id(variable)]], want, rtol=1e-3, atol=1e-5)
    assert [h.activation for h in bundle.manifest.heads] == ["Softmax", ""]


def test_one_named_output_is_a_plain_head(model):
    bundle = edgefl.convert(
        model,
        {"wide": WIDE, "deep": DEEP},
        loss={"price": torch.nn.HuberLoss()},
        label={"price": TensorSpec("y", (1, 1), "float32")},
        batch_size=4,
        targets=("onnx",),
    )
    assert bundle.manifest.loss == "callable:HuberLoss" and bundle.manifest.label.name == "y"
    assert "kind.weight" not in [p.name for p in bundle.manifest.trained]
    loss, _ = Trainer(bundle, "numpy").loss_and_gradients({"wide": WIDE, "deep": DEEP}, PRICE)
    made = model(torch.tensor(WIDE), torch.tensor(DEEP))["price"]
    assert loss == pytest.approx(F.huber_loss(made, torch.tensor(PRICE)).item(), rel=1e-5)


def test_negative_shares_are_refused(model):
    with pytest.raises(ConversionError, match="share -1"):
        edgefl.convert(model, {"wide": WIDE, "deep": DEEP}, loss={"kind": ("softmax_cross_entropy", -1)})
