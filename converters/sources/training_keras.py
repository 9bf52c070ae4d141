# SPDX-License-Identifier: Apache-2.0
"""Keras layers that behave differently in training, traced so that the graph still shows what they are.

tf2onnx would leave nothing of dropout at inference and only arithmetic of BatchNormalization. For a
while they call operations that it keeps: a marker that becomes `edgefl.Dropout`, and TensorFlow's fused
normalisation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgefl.converters.sources.onnx_model import DROPOUT_OPERATOR, STOP_DOMAIN
from edgefl.errors import SourceError

_MARKER = "FakeQuantWithMinMaxArgs"  # float attributes, one input, its shape kept; rare in models


@dataclass
class Drops:
    """What markers stand for: rate and mask shape by number."""

    found: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)

    def handlers(self) -> dict[str, Any]:
        """For tf2onnx's `custom_op_handlers`."""

        def drop(context: Any, node: Any, name: str, arguments: Any) -> Any:
            number = round(-float(node.get_attr_value("min"))) - 1
            rate, shape = self.found[number]
            for key in list(node.attr):
                del node.attr[key]
            node.set_attr("rate", rate)
            node.set_attr("shape", list(shape))
            node.set_attr("layer", number)
            node.type, node.domain = DROPOUT_OPERATOR, STOP_DOMAIN
            return node

        return {_MARKER: (drop, [])} if self.found else {}


def kept_layers(model: Any) -> list[Any]:
    """Layers whose dropout can be kept: Dropout, SpatialDropout, and those inside attention layers."""
    import keras

    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Dropout)]


def _refuse_other_randomness(model: Any) -> None:
    """Raise SourceError for layers that are random in training in a way that no marker keeps.

    Dropout inside recurrent layers is not among them: it stays off, which the report says.
    """
    import keras

    base = keras.layers
    kinds = (base.GaussianNoise, base.GaussianDropout, base.AlphaDropout)
    other = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, kinds) or type(layer).__name__.startswith("Random")
    ]
    if other:
        named = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in other)
        raise SourceError(
            f"{named}: random in training in a way that dropout=True cannot keep; convert without it, which "
            "leaves them off, or write them with Dropout"
        )


@contextlib.contextmanager
def keeping_dropout(model: Any, drops: Drops) -> Iterator[None]:
    """Within it dropout layers leave markers; raises SourceError where other layers are random."""
    _refuse_other_randomness(model)
    with contextlib.ExitStack() as stack:
        for layer in kept_layers(model):
            stack.enter_context(_calling(layer, _marked(layer, drops)))
        yield


def _marked(layer: Any, drops: Drops) -> Callable[..., Any]:
    def call(inputs: Any, training: bool = False) -> Any:
        import tensorflow as tf

        if not layer.rate:
            return inputs
        noise = _mask_shape(layer, inputs.shape)
        drops.found.append((float(layer.rate), noise))
        # Distinct attributes, so that no optimizer takes two layers on one tensor for the same.
        return tf.raw_ops.FakeQuantWithMinMaxArgs(inputs=inputs, min=-float(len(drops.found)), max=1.0)

    return call


def _mask_shape(layer: Any, shape: Any) -> tuple[int, ...]:
    if hasattr(layer, "_get_noise_shape"):
        wanted = layer._get_noise_shape(np.zeros(shape, np.bool_))
    else:
        wanted = layer.noise_shape
    full = tuple(int(n) for n in shape)
    if wanted is None:
        return full
    return tuple(n if w is None else int(w) for w, n in zip(wanted, full, strict=True))


@contextlib.contextmanager
def showing_batch_norm(model: Any) -> Iterator[None]:
    """Within it the trainable BatchNormalization layers are one operator each."""
    with contextlib.ExitStack() as stack:
        for layer in batch_norms(model):
            stack.enter_context(_calling(layer, _fused(layer)))
        yield


def batch_norms(model: Any) -> list[Any]:
    """The BatchNormalization layers that are not frozen."""
    import keras

    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


def _fused(layer: Any) -> Callable[..., Any]:
    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        import keras
        import tensorflow as tf

        if mask is not None:
            raise SourceError(
                f"layer {layer.name!r} normalises masked sequences; statistics of the batch without the "
                "masked steps are not covered, use batch_norm='frozen'"
            )
        axis = layer.axis % len(inputs.shape)
        last = [i for i in range(len(inputs.shape)) if i != axis] + [axis]
        moved = keras.ops.transpose(inputs, last)
        channels = moved.shape[-1]
        mean, variance = (keras.ops.convert_to_tensor(v) for v in (layer.moving_mean, layer.moving_variance))
        scale = keras.ops.convert_to_tensor(layer.gamma) if layer.scale else tf.ones((channels,))
        offset = keras.ops.convert_to_tensor(layer.beta) if layer.center else tf.zeros((channels,))
        flat = tf.reshape(moved, (moved.shape[0], 1, -1, channels))
        made = tf.raw_ops.FusedBatchNormV3(
            x=flat, scale=scale, offset=offset, mean=mean, variance=variance,
            epsilon=layer.epsilon, is_training=False,
        ).y  # fmt: skip
        return keras.ops.transpose(tf.reshape(made, moved.shape), np.argsort(last).tolist())

    return call


@contextlib.contextmanager
def _calling(layer: Any, call: Callable[..., Any]) -> Iterator[None]:
    object.__setattr__(layer, "call", call)
    try:
        yield
    finally:
        object.__delattr__(layer, "call")
