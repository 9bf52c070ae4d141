# SPDX-License-Identifier: Apache-2.0
"""Keras's recurrent layers unrolled while a model is traced: a loop cannot become a training step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def unrolled(model: Any) -> Iterator[None]:
    """Set `unroll` on all recurrent layers for a while."""
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "unroll")]
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.callback(setattr, layer, "unroll", layer.unroll)
            layer.unroll = True
            if layer.go_backwards and getattr(layer, "zero_output_for_mask", False):
                stack.enter_context(_flipped(layer))
        yield


@contextlib.contextmanager
def _flipped(layer: Any) -> Iterator[None]:
    """Reverse sequences outside the layer: unrolled, Keras 3 zeroes outputs by a mask it did not reverse."""
    layer.go_backwards = False
    try:
        with looping(layer, _on_flipped(layer.inner_loop)):
            yield
    finally:
        layer.go_backwards = True


@contextlib.contextmanager
def looping(layer: Any, loop: Callable[..., Any]) -> Iterator[None]:
    """Let a layer run over time by another function for a while."""
    before = layer.__dict__.get("inner_loop")
    object.__setattr__(layer, "inner_loop", loop)
    try:
        yield
    finally:
        object.__delattr__(layer, "inner_loop")
        if before is not None:
            object.__setattr__(layer, "inner_loop", before)


def _on_flipped(inner_loop: Callable[..., Any]) -> Callable[..., Any]:
    import keras

    def flip(tensor: Any) -> Any:
        return None if tensor is None else keras.ops.flip(tensor, axis=1)

    def run(sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        flipped = keras.tree.map_structure(flip, sequences)
        return inner_loop(flipped, initial_state, flip(mask), training)

    return run
