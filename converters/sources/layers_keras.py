# SPDX-License-Identifier: Apache-2.0
"""Which layer of a Keras model an operation, or an error, comes from."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from edgefl.graph.model import in_layer

_COLOUR = re.compile(r"\x1b\[\d*m")
_WRAPPED = re.compile(
    r"Exception encountered when calling .*?\x1b\[1m(?:.*Error encountered:)?(.*)\x1b\[0m", re.DOTALL
)
_SHOWN = 200  # characters of what a framework says


@dataclass
class Running:
    """The layers of a model that are running, and the operations that each has added.

    Attributes:
        model: not named itself.
        layers: those running, outermost first.
        made: the layer of each operation of a `tf.Graph`, by its name.
        failed: the innermost layer that an error has left, until another one ends well.
    """

    model: Any
    layers: list[Any] = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)
    failed: str = ""

    @property
    def layer(self) -> str:
        """The innermost layer as `path (Class)`; empty for the model itself."""
        inner = [layer for layer in self.layers if layer is not self.model]
        return f"{'/'.join(layer.name for layer in inner)} ({type(inner[-1]).__name__})" if inner else ""

    @contextlib.contextmanager
    def within(self, layer: Any) -> Iterator[None]:
        import tensorflow as tf

        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        before = len(graph.get_operations()) if graph is not None else 0
        self.layers.append(layer)
        try:
            yield
            self.failed = ""
        except Exception:
            self.failed = self.failed or self.layer
            raise
        finally:
            if graph is not None:
                for operation in graph.get_operations()[before:]:
                    self.made.setdefault(operation.name, self.layer)
            self.layers.pop()

    def of(self, name: str) -> str:
        """The layer of an operation, or of what tf2onnx made of it under a longer name."""
        while name and name not in self.made:
            name = name[: max(name.rfind("/"), name.rfind("_"), 0)]
        return self.made.get(name, "")


@contextlib.contextmanager
def noting(model: Any = None) -> Iterator[Running]:
    """Within it Keras layers that are called are noted."""
    from keras.layers import Layer

    before, running = Layer.__call__, Running(model)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        with running.within(layer):
            return before(layer, *args, **kwargs)

    Layer.__call__ = call
    try:
        yield running
    finally:
        Layer.__call__ = before


def name_nodes(proto: Any, running: Running) -> None:
    """Put layers into the names of an ONNX model's nodes; those of no operation are of what they read."""
    layers: dict[str, str] = {}
    for node in proto.graph.node:
        layer = running.of(node.name) or next(filter(None, map(layers.get, node.input)), "")
        layers.update(dict.fromkeys(node.output, layer))
        node.name = in_layer(node.name or node.output[0], layer)


def first_words(exc: BaseException) -> str:
    """What an error of Keras or TensorFlow says, in one line, without what Keras puts around it."""
    text = exc.args[0] if exc.args and isinstance(exc.args[0], str) else str(exc)
    while (inner := _WRAPPED.search(text)) is not None:
        text = inner[1]
    lines = [line.strip() for line in _COLOUR.sub("", text).splitlines() if line.strip()]
    said = lines[0] if lines else "no message"
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."
