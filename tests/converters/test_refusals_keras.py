# SPDX-License-Identifier: Apache-2.0
"""Keras models that cannot become a step: each refusal names the user's layer and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import edgefl
from edgefl.graph import read_onnx
from tests.converters.refusals import refused

layers = keras.layers
X = np.zeros((2, 6), np.float32)
Function = Callable[[Any], Any]


class Odd(layers.Layer):  # type: ignore[misc]
    """A layer around a function, which Keras need not trace to know its shape."""

    def __init__(self, function: Function, **options: Any) -> None:
        super().__init__(**options)
        self.function = function

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(6, 6), name="kernel")

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def call(self, x: Any) -> Any:
        return self.function(keras.ops.matmul(x, self.kernel))


def model(function: Function) -> Any:
    block = keras.Sequential([layers.Dense(6), Odd(function, name="mine")], name="block")
    return keras.Sequential([keras.Input((6,)), layers.Dense(6), block, layers.Dense(3)])


LAYER = "layer block/mine (Odd)"


@tf.custom_gradient  # type: ignore[untyped-decorator]
def doubled(x: Any) -> Any:
    return x, lambda dy: dy * 2


def eager(function: Function) -> Function:
    """Python in the middle of a graph."""
    return lambda x: tf.ensure_shape(tf.numpy_function(function, [x], tf.float32), x.shape)


def summed(x: Any) -> Any:
    return tf.while_loop(lambda a: tf.reduce_sum(a) < 10, lambda a: [a + 1], [x])[0]


CASES = {
    "matrix": (lambda x: x * tf.reduce_sum(tf.linalg.svd(x)[0]), "Newton-Schulz"),
    "solve": (lambda x: x @ tf.linalg.inv(tf.transpose(x) @ x), "Newton-Schulz"),
    "fourier": (lambda x: tf.math.real(tf.signal.fft(tf.complex(x, x))), "matrices of cosines and sines"),
    "special": (tf.math.lgamma, "as a polynomial"),
    "nonzero": (lambda x: x * tf.reduce_sum(tf.boolean_mask(x, x > 0)), "multiply by a mask"),
    "unique": (lambda x: x + tf.reduce_sum(tf.unique(tf.reshape(x, [-1]))[0]), "multiply by a mask"),
    "resizing": (lambda x: tf.image.resize(x[None, ..., None], (2, 6), "lanczos3")[0, ..., 0], "fixed scale"),
    "branch": (lambda x: x if keras.ops.sum(x) > 0 else -x, "keras.ops.where"),
    "loop": (summed, "fixed number of steps"),
    "numpy": (lambda x: x + np.asarray(x), "not with Python's or NumPy's"),
    "python": (eager(lambda x: x * 2), "not with Python's or NumPy's"),
    "shapes": (lambda x: x @ tf.ones((4, 4)), "shapes must not depend on data"),
    "noise": (lambda x: x + tf.random.normal((2, 6)), "as an input of the model"),
    "gradient": (doubled, "write it with differentiable operations"),
    "volume": (
        lambda x: tf.nn.conv3d(x[:, :, None, None, None], tf.ones((1,) * 5), [1] * 5, "SAME")[..., 0, 0, 0],
        "2-D ones",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_refusal_names_the_layer_and_says_what_to_do(case: str) -> None:
    function, todo = CASES[case]
    made = model(function)

    refused(lambda: edgefl.convert(made, X, batch_size=2, targets=["onnx"], prove=False), LAYER, todo)


def test_an_example_that_does_not_fit_names_the_layer() -> None:
    made = keras.Sequential([layers.Dense(6), layers.Reshape((4,), name="squares")])

    refused(
        lambda: edgefl.convert(made, X, batch_size=2, targets=["onnx"], prove=False),
        "layer squares (Reshape)",
        "on the example",
    )


def test_what_tflite_lacks_is_named_by_layer() -> None:
    made = model(lambda x: tf.cast(tf.exp(tf.cast(x, tf.float64)), tf.float32))

    refused(lambda: edgefl.convert(made, X, batch_size=2, targets=["tflite"], prove=False), LAYER, "rewrite")


def test_what_tensorflow_s_converter_refuses_is_named_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgefl.converters.targets.lowering.registry import LOWERINGS
    from edgefl.converters.targets.lowering.value import Lazy

    def inverses(call: Any) -> Any:
        return Lazy.plain(tf.reshape(tf.linalg.inv(tf.reshape(call[0].data, (3, 2, 2))), (2, 6)))

    monkeypatch.setitem(LOWERINGS, "Tanh", inverses)
    made = model(tf.tanh)

    refused(lambda: edgefl.convert(made, X, batch_size=2, targets=["tflite"], prove=False), LAYER, "rewrite")


def test_files_do_not_carry_the_layers_of_their_nodes() -> None:
    bundle = edgefl.convert(model(tf.tanh), X, batch_size=2, targets=["onnx"], prove=False)

    assert not any(node.layer for node in read_onnx(bundle.artifact("onnx", "step")))
