# SPDX-License-Identifier: Apache-2.0
"""Keras's recurrent layers traced as one operator each: ONNX's RNN, GRU or LSTM, unrolled later by edgefl.

TensorFlow and tf2onnx take a minute over some hundred unrolled steps. Layers that ONNX's operators do not
cover are left to be unrolled: those with masks or other activations, and an LSTM whose last states are read.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from edgefl.converters.sources.unrolling import looping

_MARKER = "PyFunc"  # any inputs, one output, never computed while tracing
_TOKEN = "edgefl:"  # what tells ours from a model's own
_ACTIVATIONS = {"tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu", "softplus": "Softplus"}


@contextlib.contextmanager
def kept_whole(model: Any) -> Iterator[None]:
    """Within it the recurrent layers that can be are one operator each; `unrolled` goes inside."""
    with contextlib.ExitStack() as stack:
        for layer in model._flatten_layers():
            if _operator(layer) and _activations(layer) is not None and not _reads_memory(layer):
                stack.enter_context(looping(layer, _whole(layer, layer.inner_loop)))
        yield


def handlers() -> dict[str, Any]:
    """For tf2onnx's `custom_op_handlers`."""

    def write(context: Any, node: Any, name: str, arguments: Any) -> Any:
        token = node.get_attr_value("token")
        text = token.decode() if isinstance(token, bytes) else str(token)
        if not text.startswith(_TOKEN):
            return node
        told = json.loads(text.removeprefix(_TOKEN))
        for key in list(node.attr):
            del node.attr[key]
        node.type = told.pop("operator")
        for key, value in told.items():
            node.set_attr(key, value)
        context.replace_inputs(node, [*node.input[:4], "", *node.input[4:]])  # no lengths of sequences
        return node

    return {_MARKER: (write, [])}


def _operator(layer: Any) -> str:
    """ONNX's operator for a layer; "" for other layers, subclasses and cells included."""
    from keras import layers

    known = {layers.SimpleRNN: "RNN", layers.GRU: "GRU", layers.LSTM: "LSTM"}
    return known.get(type(layer), "")


def _activations(layer: Any) -> list[str] | None:
    cell, names = layer.cell, ["activation"]
    if _operator(layer) != "RNN":
        names = ["recurrent_activation", "activation", *names[: _operator(layer) == "LSTM"]]
    wanted = [_ACTIVATIONS.get(getattr(getattr(cell, name), "__name__", "")) for name in names]
    return None if None in wanted else [name for name in wanted if name]


def _reads_memory(layer: Any) -> bool:
    """Whether more is asked for than outputs: an LSTM's memory is no output of ours, nor is a kept state."""
    return bool(layer.stateful or (layer.return_state and _operator(layer) == "LSTM"))


def _whole(layer: Any, unrolled: Callable[..., Any]) -> Callable[..., Any]:
    def run(sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        import keras
        import tensorflow as tf

        if mask is not None and any(part is not None for part in keras.tree.flatten(mask)):
            return unrolled(sequences, initial_state, mask, training)
        states = keras.tree.flatten(initial_state)
        x = tf.transpose(tf.reverse(sequences, [1]) if layer.go_backwards else sequences, (1, 0, 2))
        steps, batch = (int(n) for n in x.shape[:2])
        token = {"operator": _operator(layer), "hidden_size": layer.units, "activations": _activations(layer)}
        if _operator(layer) == "GRU":
            token["linear_before_reset"] = int(layer.cell.reset_after)
        inputs = [x, *_weights(layer), *(tf.expand_dims(state, 0) for state in states)]
        made = tf.raw_ops.PyFunc(input=inputs, token=_TOKEN + json.dumps(token), Tout=[x.dtype])[0]
        outputs = tf.reshape(made, (steps, batch, layer.units))
        last = outputs[-1]
        whole = tf.transpose(outputs, (1, 0, 2)) if layer.return_sequences else last[:, None]
        return last, whole, [last, *states[1:]]

    return run


def _weights(layer: Any) -> tuple[Any, Any, Any]:
    """W `[1, G * H, I]`, R `[1, G * H, H]` and both biases `[1, 2 * G * H]`, gates in ONNX's order."""
    import tensorflow as tf

    cell, units = layer.cell, layer.units
    kernel, recurrent = (tf.convert_to_tensor(w) for w in (cell.kernel, cell.recurrent_kernel))
    gates = int(kernel.shape[1]) // units
    order = (0, 3, 1, 2) if _operator(layer) == "LSTM" else range(gates)  # Keras has i f c o, ONNX i o f c

    def ordered(columns: Any) -> Any:
        parts = tf.split(columns, gates, axis=-1)
        return tf.concat([parts[i] for i in order], -1)

    rows = tf.zeros((2, gates * units), kernel.dtype)
    if cell.bias is not None:
        held = tf.convert_to_tensor(cell.bias)
        rows = held if len(held.shape) == 2 else tf.concat([held[None], rows[1:]], 0)
    flat = (tf.expand_dims(tf.transpose(ordered(w)), 0) for w in (kernel, recurrent))
    return (*flat, tf.reshape(ordered(rows), (1, -1)))
