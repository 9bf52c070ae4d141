# SPDX-License-Identifier: Apache-2.0
"""Keras models against Keras itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from edgefl.converters.sources import Forward, load_forward
from edgefl.errors import SourceError, UnsupportedOperator
from tests.converters.source_oracle import close, outputs, random_data


def check(model: Any, example: object = None, batch_size: int = 3) -> Forward:
    """The forward pass agrees with the model at inference."""
    forward = load_forward(model, example, batch_size=batch_size)
    data = random_data(forward)
    values = list(data.values())
    given: Any = dict(zip(example, values, strict=True)) if isinstance(example, dict) else values
    expected = model(given if len(values) > 1 or isinstance(example, dict) else values[0], training=False)
    expected = list(expected.values()) if isinstance(expected, dict) else expected
    expected = expected if isinstance(expected, (list, tuple)) else [expected]

    _, made = outputs(forward, data)

    for got, want in zip(made, expected, strict=True):
        close(got, want)
    return forward


def spread(model: Any) -> Any:
    """Random values for what Keras initialises to zeros and ones."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if variable.dtype == "float32":
            variable.assign(rng.uniform(0.1, 0.6, variable.shape))
    return model


def test_mlp_keeps_names_values_and_layouts() -> None:
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, activation="relu", name="hidden"), layers.Dense(4)]
    )

    forward = check(model)

    layers_of_the_model = ["hidden/kernel", "hidden/bias", "dense/kernel", "dense/bias"]
    assert list(forward.parameters) == [f"sequential/{name}" for name in layers_of_the_model]
    kernel = "sequential/hidden/kernel"
    np.testing.assert_array_equal(forward.parameters[kernel], np.asarray(model.layers[0].kernel))
    assert forward.inputs == ("x",)
    assert forward.outputs == ("output",)
    assert list(forward.graph.inputs) == ["x", *forward.parameters]


def test_convolutions_of_two_axes() -> None:
    model = keras.Sequential(
        [
            keras.Input((14, 14, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="relu6"),
            layers.SeparableConv2D(6, 3, dilation_rate=2, padding="same", activation="swish"),
            layers.Conv2D(6, 3, groups=2, padding="same", activation="hard_swish"),
            layers.AveragePooling2D(3, strides=2, padding="same"),
            layers.Conv2DTranspose(4, 3, strides=2, padding="same"),
            layers.LeakyReLU(),
            layers.MaxPooling2D(3, strides=2, padding="same"),
            layers.Dropout(0.5, name="drop"),
            layers.Flatten(),
            layers.Dense(4, activation="gelu"),
            layers.Softmax(),
        ]
    )

    forward = check(spread(model))

    assert {name.rpartition("/")[2] for name in forward.buffers} == {"moving_mean", "moving_variance"}
    assert forward.trainable == set(forward.parameters) - forward.buffers
    assert forward.provenance["dropout"] == "off: drop"


def test_convolutions_of_one_axis() -> None:
    model = keras.Sequential(
        [
            keras.Input((32, 6)),
            layers.Conv1D(8, 5, padding="causal"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling1D(2),
            layers.SeparableConv1D(8, 3, activation="elu"),
            layers.Conv1D(8, 3, dilation_rate=2, activation="selu"),
            layers.GlobalAveragePooling1D(),
            layers.LayerNormalization(),
            layers.Dense(4, activation="softplus"),
        ]
    )

    forward = load_forward(spread(model), batch_size=2)
    graph, _ = outputs(forward, random_data(forward))
    check(model)

    on_data = [n for n in graph if n.op == "Transpose" and not n.inputs[0].startswith(model.name)]
    weights = {f for n in graph if n.op == "Reshape" for f in n.inputs if f in forward.parameters}
    assert len(on_data) <= 2 + len(weights)


def test_transposes_between_layers_cancel() -> None:
    model = keras.Sequential([keras.Input((8, 8, 4))])
    for _ in range(3):
        model.add(layers.Conv2D(4, 3, padding="same", use_bias=False))
        model.add(layers.BatchNormalization())
        model.add(layers.ReLU())

    forward = check(spread(model))

    graph, _ = outputs(forward, random_data(forward))
    assert graph.operators()["Transpose"] == 2 + 3


def test_normalisation_of_images_of_one_pixel() -> None:
    stack = [layers.Conv2D(6, 4), layers.LayerNormalization(), layers.GlobalAveragePooling2D()]

    check(spread(keras.Sequential([keras.Input((4, 4, 3)), *stack])))


@keras.saving.register_keras_serializable("edgefl_tests")
class Scale(layers.Layer):
    """A layer of the user's own."""

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), name="factor")
        self.fixed = self.add_weight(shape=(1,), name="fixed", trainable=False)

    def call(self, x: Any) -> Any:
        return keras.ops.tanh(x * self.factor) + self.fixed


def functional() -> Any:
    first, second = keras.Input((8, 8, 4), name="first"), keras.Input((4,), name="second")
    conv = layers.Conv2D(4, 3, padding="same")
    hidden = layers.Concatenate()([conv(first) + first, conv(conv(first))])
    pooled = layers.GlobalMaxPooling2D()(Scale(name="scale")(hidden))
    joined = layers.Concatenate()([pooled, second])
    return keras.Model(
        [first, second],
        [layers.Dense(3, name="kind")(joined), layers.Multiply(name="square")([second, second])],
    )


def test_functional_models_with_shared_layers_and_several_inputs_and_outputs() -> None:
    forward = check(functional())

    assert forward.inputs == ("first", "second")
    assert forward.outputs == ("kind", "square")
    assert "scale/factor" in forward.parameters
    assert forward.buffers == {"scale/fixed"}


class Subclassed(keras.Model):
    """A model that is built when it sees data, with a dict in and a dict out."""

    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.embed, self.head = layers.Embedding(5, 4), layers.Dense(2)

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        hidden = keras.ops.mean(self.embed(inputs["tokens"]), axis=1) * inputs["scale"]
        return {"logits": self.head(hidden), "hidden": hidden}


def test_subclassed_models_are_built_by_the_example() -> None:
    example = {"tokens": np.zeros((1, 6), np.int32), "scale": np.zeros((1, 1), np.float32)}

    forward = check(Subclassed(), example)

    assert forward.inputs == ("tokens", "scale")
    assert forward.outputs == ("logits", "hidden")
    assert len(forward.parameters) == 3


def test_frozen_layers_are_not_trainable() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="base"), layers.Dense(2, name="head")])
    model.layers[0].trainable = False

    forward = check(model)

    assert {name.split("/")[-2] for name in forward.trainable} == {"head"}
    assert not forward.buffers


def test_a_keras_file(tmp_path: Path) -> None:
    model = functional()
    model.save(tmp_path / "model.keras")

    forward = load_forward(tmp_path / "model.keras", batch_size=2)

    np.testing.assert_array_equal(
        forward.parameters["scale/factor"], np.asarray(model.get_layer("scale").factor)
    )


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"nothing")

    with pytest.raises(SourceError, match=r"Keras cannot load .*model\.keras"):
        load_forward(tmp_path / "model.keras", batch_size=2)


def test_a_model_that_does_not_know_its_input_needs_an_example() -> None:
    with pytest.raises(SourceError, match="Subclassed does not know its input shape; give example_inputs"):
        load_forward(Subclassed(), batch_size=2)


class Broken(layers.Layer):
    def call(self, x: Any) -> Any:
        return keras.ops.convert_to_tensor(np.asarray(x) + 1)


def test_a_layer_that_cannot_be_traced_is_named() -> None:
    model = keras.Sequential([layers.Dense(3), Broken(name="culprit")])
    model(np.zeros((1, 3), np.float32))

    with pytest.raises(SourceError, match=r"layer culprit \(Broken\) of .* cannot be traced"):
        load_forward(model, np.zeros((1, 3)), batch_size=2)


class Fourier(layers.Layer):
    def call(self, x: Any) -> Any:
        import tensorflow as tf

        return tf.math.bessel_i0(x)


def test_an_operator_without_onnx_counterpart_is_named() -> None:
    model = keras.Sequential([keras.Input((4,)), Fourier()])

    with pytest.raises(UnsupportedOperator, match="BesselI0"):
        load_forward(model, batch_size=2)
