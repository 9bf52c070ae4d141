# SPDX-License-Identifier: Apache-2.0
"""Neural network models of the classic form: layers read back from disk, run, and run backwards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import MalformedFile, TooLarge, Unsupported
from tests.coreml_evaluator.layers import LAYERS, Back
from tests.coreml_evaluator.values import MAX_ELEMENTS

Parameters = dict[str, dict[str, Array]]
_MESSAGES = {"weights": "weight"}
_HELD = ("weights", "bias", "scale", "gamma", "beta", "mean", "variance")


class Network:
    """A chain or graph of layers.

    Attributes:
        parameters: arrays by layer and by `weight`, `bias`, `gamma`...
        updatable: layers that an update task trains.
    """

    def __init__(self, message: Any) -> None:
        if message.preprocessing:
            raise Unsupported("preprocessing of images")
        if message.arrayInputShapeMapping != 0:
            raise Unsupported("arrays mapped exactly: only the mapping to [Seq, B, C, H, W] is known here")
        self._layers = list(message.layers)
        names = [one.name for one in self._layers]
        if len(set(names)) != len(names):
            raise MalformedFile("two layers of one name")
        for one in self._layers:
            if one.WhichOneof("layer") not in LAYERS:
                raise Unsupported(f"layer {one.name} of type {one.WhichOneof('layer')}")
        self.parameters: Parameters = {one.name: _held(one) for one in self._layers}
        self.updatable = tuple(one.name for one in self._layers if _updatable(one))

    def operations(self) -> list[str]:
        return [one.WhichOneof("layer") for one in self._layers]

    def forward(
        self, feeds: Mapping[str, Array], parameters: Parameters
    ) -> tuple[dict[str, Array], list[Back]]:
        """All blobs `[B, C, H, W]` by name, and each layer's way back."""
        blobs, backs = dict(feeds), []
        for one in self._layers:
            kind = one.WhichOneof("layer")
            missing = [n for n in one.input if n not in blobs]
            if missing or len(one.output) != 1 or one.output[0] in blobs:
                raise MalformedFile(f"layer {one.name}: inputs {list(one.input)}, outputs {list(one.output)}")
            y, back = LAYERS[kind](getattr(one, kind), parameters[one.name], [blobs[n] for n in one.input])
            if y.size > MAX_ELEMENTS:
                raise TooLarge(f"layer {one.name}: {y.size} elements, allowed {MAX_ELEMENTS}")
            blobs[one.output[0]] = np.asarray(y, np.float32)
            backs.append(back)
        return blobs, backs

    def backward(self, backs: list[Back], starts: Mapping[str, Array]) -> Parameters:
        """Gradients of the updatable layers' parameters, from gradients of blobs."""
        flowing = dict(starts)
        found: Parameters = {}
        for one, back in zip(reversed(self._layers), reversed(backs), strict=True):
            if one.output[0] not in flowing:
                continue
            inputs, weights = back(flowing.pop(one.output[0]))
            for name, gradient in zip(one.input, inputs, strict=True):
                flowing[name] = flowing[name] + gradient if name in flowing else gradient
            if one.name in self.updatable:
                found[one.name] = {k: g for k, g in weights.items() if k in self.parameters[one.name]}
        return found


def _held(one: Any) -> dict[str, Array]:
    params = getattr(one, one.WhichOneof("layer"))
    present = {f.name for f, _ in params.ListFields()}
    return {
        _MESSAGES.get(key, key): _weights(getattr(params, key), _shape(one, key), f"{one.name}.{key}")
        for key in _HELD
        if key in present and not (key == "bias" and not params.hasBias)
    }


def _shape(one: Any, key: str) -> tuple[int, ...]:
    kind = one.WhichOneof("layer")
    p = getattr(one, kind)
    if kind == "innerProduct":
        return (p.outputChannels, p.inputChannels) if key == "weights" else (p.outputChannels,)
    if kind == "convolution":
        size = tuple(int(k) for k in p.kernelSize) or (3, 3)
        return (p.outputChannels, p.kernelChannels, *size) if key == "weights" else (p.outputChannels,)
    if kind == "scale":
        return tuple(p.shapeScale if key == "scale" else p.shapeBias)
    return (p.channels,)


def _weights(message: Any, shape: tuple[int, ...], where: str) -> Array:
    count = math.prod(int(n) for n in shape)
    if count > MAX_ELEMENTS:
        raise TooLarge(f"{where}: {count} elements, allowed {MAX_ELEMENTS}")
    if message.HasField("quantization"):
        raise Unsupported(f"{where}: quantized weights")
    if message.float16Value:
        values = np.frombuffer(message.float16Value, "<f2").astype(np.float32)
    else:
        values = np.array(message.floatValue, np.float32)
    if values.size != count:
        raise MalformedFile(f"{where}: {values.size} values for shape {shape}")
    return values.reshape([int(n) for n in shape])


def _updatable(one: Any) -> bool:
    """Whether a layer is trained; raises MalformedFile where its flags contradict one another."""
    if not one.isUpdatable:
        return False
    kind = one.WhichOneof("layer")
    if kind not in ("innerProduct", "convolution"):
        raise MalformedFile(f"layer {one.name} of type {kind} cannot be updatable")
    params = getattr(one, kind)
    if not params.weights.isUpdatable or (params.hasBias and not params.bias.isUpdatable):
        raise MalformedFile(f"layer {one.name} is updatable, its weights are not")
    if params.weights.float16Value:
        raise MalformedFile(f"layer {one.name}: updatable weights must be float32")
    return True
