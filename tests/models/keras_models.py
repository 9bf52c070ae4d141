# SPDX-License-Identifier: Apache-2.0
"""Keras models of the zoo: hand-written, and from `keras.applications` without weights."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers


def application(name: str, size: int = 32, outputs: int = 5, **options: Any) -> Any:
    """A network of `keras.applications` that gives scores."""
    build = getattr(keras.applications, name)
    shape = (size, size, 3)
    return build(weights=None, input_shape=shape, classes=outputs, classifier_activation=None, **options)


def mobilenet_v2() -> Any:
    return application("MobileNetV2", alpha=0.35)


def mobilenet_v3_small() -> Any:
    return application("MobileNetV3Small", alpha=0.5, include_preprocessing=False)


def _normal_conv(x: Any, filters: int, kernel: int = 3, strides: int = 1) -> Any:
    x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


def _residual(x: Any, filters: int, strides: int) -> Any:
    y = layers.ReLU()(_normal_conv(x, filters, 3, strides))
    y = _normal_conv(y, filters)
    x = _normal_conv(x, filters, 1, strides) if strides > 1 else x
    return layers.ReLU()(layers.Add()([x, y]))


def resnet_8() -> Any:
    image = keras.Input((32, 32, 3))
    x = layers.ReLU()(_normal_conv(image, 8))
    for filters, strides in ((8, 1), (12, 2), (16, 2)):
        x = _residual(x, filters, strides)
    return keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def ds_cnn() -> Any:
    """Keyword spotting: a strided convolution and separable ones."""
    stack: list[Any] = [keras.Input((49, 10, 1))]
    stack += [layers.Conv2D(12, (10, 4), (2, 2), padding="same"), layers.BatchNormalization(), layers.ReLU()]
    for _ in range(3):
        stack += [layers.DepthwiseConv2D(3, padding="same"), layers.BatchNormalization(), layers.ReLU()]
        stack += [layers.Conv2D(12, 1), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.2)]
    stack += [layers.AveragePooling2D((25, 5)), layers.Flatten(), layers.Dense(12)]
    return keras.Sequential(stack)


def _language_model(layer: Any) -> Any:
    stack = [keras.Input((8,), dtype="int32", name="input_ids"), layers.Embedding(40, 10)]
    return keras.Sequential([*stack, layer(12, return_sequences=True), layers.Dense(40)])


def gru_lm_keras() -> Any:
    return _language_model(layers.GRU)


def lstm_lm_keras() -> Any:
    return _language_model(layers.LSTM)


def unet_keras() -> Any:
    image = keras.Input((16, 16, 1))
    a = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    b = layers.Conv2D(8, 3, padding="same", activation="swish")(layers.MaxPooling2D()(a))
    c = layers.Conv2D(8, 3, padding="same", activation="gelu")(layers.AveragePooling2D(2)(b))
    d = layers.Concatenate()([b, layers.Conv2DTranspose(8, 3, 2, padding="same")(c)])
    e = layers.Concatenate()([a, layers.UpSampling2D(interpolation="bilinear")(d)])
    return keras.Model(image, layers.Conv2D(3, 1)(layers.LayerNormalization()(e)))


def wide_and_deep() -> Any:
    wide, deep = keras.Input((20,), name="wide"), keras.Input((8,), name="deep")
    category = keras.Input((2,), name="category", dtype="int32")
    embedded = layers.Flatten()(layers.Embedding(11, 4)(category))
    hidden = layers.Concatenate()([layers.Normalization(mean=0.1, variance=2.0)(deep), embedded])
    for units in (16, 8):
        hidden = layers.Dense(units, activation="relu")(hidden)
    score = layers.Add()([layers.Dense(1)(wide), layers.Dense(1)(hidden)])
    return keras.Model({"wide": wide, "deep": deep, "category": category}, score)
