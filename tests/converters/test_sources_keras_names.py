# SPDX-License-Identifier: Apache-2.0
"""Keras parameters are called the same whatever else the process has built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import edgefl
from edgefl.converters.sources import load_forward
from edgefl.converters.sources.naming_keras import counted_layers
from edgefl.errors import NotTrained
from edgefl.parameters import Schema

layers = keras.layers
X = np.zeros((2, 8), np.float32)


class Own(keras.Model):  # type: ignore[misc]
    """Layers in a subclass, one of them of two words, one named, one holding another's next name."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = layers.Dense(4), layers.LayerNormalization()
        self.named, self.taken = layers.Dense(4, name="head"), layers.LayerNormalization(name="dense_1")
        self.two = layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.two(self.taken(self.named(self.norm(self.one(x)))))


def functional() -> Any:
    x = keras.Input((8,))
    inner = keras.Sequential([layers.Dense(4), layers.BatchNormalization(), layers.Dense(4)])
    return keras.Model(x, layers.Dense(3)(inner(layers.Dense(4)(x))))


def sequential() -> Any:
    return keras.Sequential([layers.Reshape((4, 2)), layers.GRU(3), layers.Dense(3)])


def schema(model: Any) -> Schema:
    return edgefl.convert(model, X, batch_size=2, targets=["onnx"]).schema()


@pytest.mark.parametrize("make", [functional, sequential, Own])
def test_the_same_model_twice_has_the_same_names(make: Callable[[], Any]) -> None:
    layers.Dense(2), layers.GRU(2), layers.BatchNormalization()  # the process was not idle before
    first, second = make(), make()

    assert schema(first).id == schema(second).id


def test_the_names_are_those_of_a_fresh_process() -> None:
    keras.utils.clear_session()
    fresh = functional()
    own = [v.path for v in fresh.trainable_variables]

    assert [p.name for p in schema(fresh).parameters] == own
    assert [p.name for p in schema(functional()).parameters] == own


def test_names_that_users_gave_are_kept_and_not_given_again() -> None:
    model = Own()
    names = [p.name for p in schema(model).parameters]

    assert names == [
        *("own/dense/kernel", "own/dense/bias"),
        *("own/layer_normalization/gamma", "own/layer_normalization/beta"),
        *("own/head/kernel", "own/head/bias"),
        *("own/dense_1/gamma", "own/dense_1/beta"),
        *("own/dense_2/kernel", "own/dense_2/bias"),
    ]


def test_the_report_says_which_layer_is_which() -> None:
    keras.utils.clear_session()
    layers.Dense(2)
    model = functional()
    bundle = edgefl.convert(model, X, batch_size=2, targets=["onnx"])

    assert "dense_2 is dense_1" in bundle.manifest.provenance["layers"]
    assert counted_layers(model)["dense_1"] == "dense"


def test_a_layer_asked_for_by_its_name_in_this_process_is_not_passed_over_in_silence() -> None:
    keras.utils.clear_session()
    layers.Dense(2)
    model = functional()  # its first Dense is dense_1 here, dense in the bundle, where dense_1 is another
    said = "sequential/dense/kernel: its name in the bundle is this one, not sequential/dense_1/kernel"

    with pytest.warns(NotTrained, match=said):
        edgefl.convert(model, X, trainable="*dense_1/*", batch_size=2, targets=["onnx"])


def test_a_name_the_bundle_does_not_have_is_explained() -> None:
    keras.utils.clear_session()
    for _ in range(9):
        layers.Dense(2)

    with pytest.raises(edgefl.errors.SelectionError, match="dense_12/kernel is dense_3/kernel"):
        edgefl.convert(functional(), X, trainable="dense_12/*", batch_size=2, targets=["onnx"])


def two_of_each() -> Any:
    left, middle, right = keras.Input((4,)), keras.Input((2,), name="middle"), keras.Input((3,))
    joined = layers.Concatenate()([left, middle, right])
    return keras.Model(
        [left, middle, right], [layers.Dense(2)(joined), layers.Dense(1, name="score")(joined)]
    )


def test_inputs_and_outputs_are_called_the_same_in_any_process(tmp_path: Path) -> None:
    keras.utils.clear_session()
    fresh = load_forward(two_of_each(), batch_size=2)
    layers.Dense(2)(keras.Input((3,)))  # the process was not idle before
    later = two_of_each()
    later.save(tmp_path / "model.keras")

    assert fresh.inputs == ("input_0", "middle", "input_2")
    assert fresh.outputs == ("dense", "score")
    for model in (later, tmp_path / "model.keras"):
        forward = load_forward(model, batch_size=2)
        assert (forward.inputs, forward.outputs) == (fresh.inputs, fresh.outputs)


def test_an_input_s_place_gives_way_to_a_name() -> None:
    left, right = keras.Input((4,), name="input_1"), keras.Input((4,))
    model = keras.Model([left, right], layers.Add()([left, right]))

    assert load_forward(model, batch_size=2).inputs == ("input_1", "input_1_")
