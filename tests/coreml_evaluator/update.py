# SPDX-License-Identifier: Apache-2.0
"""What an update task (`MLUpdateTask`) does with a saved updatable model: epochs of mini-batches, a loss, an
optimizer.

Losses by NeuralNetwork.proto: categorical cross entropy is `-log(input[target])`; for mean squared error
it gives no formula, and the name is taken at its word: the mean over the elements of an example. Both are
averaged over the mini-batch. SGD keeps `v = momentum * v + g` and subtracts `lr * v`; Adam is the
published one, with bias correction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import MalformedFile, Refused, Unsupported, WrongFeeds
from tests.coreml_evaluator.features import array_feature, to_blob
from tests.coreml_evaluator.network import Network, Parameters
from tests.coreml_evaluator.package import Package


@dataclass(frozen=True)
class Updated:
    """What an update task leaves.

    Attributes:
        parameters: of the updatable layers, by layer and by `weight` and `bias`.
        losses: the mean loss of each mini-batch before its step.
    """

    parameters: Parameters
    losses: tuple[float, ...]


def train(
    path: str | Path,
    examples: Mapping[str, Array],
    *,
    epochs: int | None = None,
    learning_rate: float | None = None,
    batch: int | None = None,
    orders: Sequence[Sequence[int]] | None = None,
) -> Updated:
    """Train a saved model.

    Args:
        examples: by training input, each with the examples along the first axis.
        epochs, learning_rate, batch: in place of the model's own; must be among those that it allows.
        orders: the examples' order in each epoch; without it they come as they are given.

    Raises:
        Refused: the model is not updatable, or a value is not among those allowed.
        WrongFeeds: the examples are not the training inputs.
    """
    spec = Package(path).spec
    if not spec.isUpdatable or spec.WhichOneof("Type") != "neuralNetwork":
        raise Refused(f"{path} is no updatable neural network")
    message = spec.neuralNetwork
    network = Network(message)
    loss = _Loss(message.updateParams)
    feeds = _examples(spec, examples, loss.target)
    optimizer = _Optimizer(message.updateParams.optimizer, learning_rate, batch)
    rounds = _allowed(message.updateParams.epochs, epochs, "epochs")
    return _fit(network, loss, feeds, optimizer, int(rounds), orders)


def _fit(
    network: Network,
    loss: _Loss,
    feeds: Mapping[str, Array],
    optimizer: _Optimizer,
    epochs: int,
    orders: Sequence[Sequence[int]] | None,
) -> Updated:
    parameters, losses = {k: dict(v) for k, v in network.parameters.items()}, []
    count = len(feeds[loss.target])
    for epoch in range(epochs):
        order = np.arange(count) if orders is None else np.asarray(orders[epoch])
        for start in range(0, len(order), optimizer.batch):
            chosen = order[start : start + optimizer.batch]
            inputs = {n: a[chosen] for n, a in feeds.items() if n != loss.target}
            blobs, backs = network.forward(inputs, parameters)
            value, gradient = loss(blobs, feeds[loss.target][chosen])
            losses.append(value)
            parameters = optimizer.step(parameters, network.backward(backs, {loss.input: gradient}))
    return Updated({name: parameters[name] for name in network.updatable}, tuple(losses))


class _Loss:
    def __init__(self, update: Any) -> None:
        if len(update.lossLayers) != 1:
            raise Unsupported(f"{len(update.lossLayers)} loss layers")
        self._kind = update.lossLayers[0].WhichOneof("LossLayerType")
        message = getattr(update.lossLayers[0], self._kind)
        self.input, self.target = str(message.input), str(message.target)

    def __call__(self, blobs: Mapping[str, Array], target: Array) -> tuple[float, Array]:
        """The mean loss of a mini-batch, and its gradient with respect to the loss's input."""
        if self.input not in blobs:
            raise MalformedFile(f"the loss is of {self.input}, which no layer gives")
        y = blobs[self.input]
        count = len(y)
        if self._kind == "categoricalCrossEntropyLossLayer":
            labels = target.reshape(count).astype(np.int64)
            if labels.size and (labels.min() < 0 or labels.max() >= y.shape[1] or y.shape[2:] != (1, 1)):
                raise WrongFeeds(f"labels {labels.min()} to {labels.max()} for {y.shape[1:]}")
            rows = np.arange(count)
            chosen = y[rows, labels, 0, 0]
            gradient = np.zeros_like(y)
            gradient[rows, labels, 0, 0] = -1 / (chosen * count)
            return float(-np.log(chosen).mean()), gradient
        difference = y - target.reshape(y.shape).astype(np.float32)
        return float(np.square(difference).mean()), 2 * difference / difference.size


class _Optimizer:
    def __init__(self, message: Any, learning_rate: float | None, batch: int | None) -> None:
        self._kind = message.WhichOneof("OptimizerType")
        if self._kind is None:
            raise MalformedFile("an updatable model without an optimizer")
        self._message = getattr(message, self._kind)
        self._rate = _allowed(self._message.learningRate, learning_rate, "learning rate")
        self.batch = int(_allowed(self._message.miniBatchSize, batch, "mini-batch size"))
        self._state: dict[tuple[str, str], tuple[Array, Array]] = {}
        self._count = 0

    def step(self, parameters: Parameters, gradients: Parameters) -> Parameters:
        self._count += 1
        rule = self._sgd if self._kind == "sgdOptimizer" else self._adam
        return {
            name: {
                key: p - rule((name, key), gradients[name][key]) if name in gradients else p
                for key, p in held.items()
            }
            for name, held in parameters.items()
        }

    def _sgd(self, key: tuple[str, str], g: Array) -> Array:
        velocity, _ = self._state.get(key, (np.zeros_like(g), g))
        velocity = np.float32(self._message.momentum.defaultValue) * velocity + g
        self._state[key] = velocity, g
        return np.asarray(np.float32(self._rate) * velocity)

    def _adam(self, key: tuple[str, str], g: Array) -> Array:
        m, v = self._state.get(key, (np.zeros_like(g), np.zeros_like(g)))
        b1, b2 = self._message.beta1.defaultValue, self._message.beta2.defaultValue
        m, v = np.float32(b1) * m + np.float32(1 - b1) * g, np.float32(b2) * v + np.float32(1 - b2) * g * g
        self._state[key] = m, v
        upper, lower = m / (1 - b1**self._count), v / (1 - b2**self._count)
        return np.asarray(self._rate * upper / (np.sqrt(lower) + self._message.eps.defaultValue)).astype(
            np.float32
        )


def _allowed(parameter: Any, given: float | None, what: str) -> float:
    """A parameter's default, or the value given if the model allows it."""
    value = parameter.defaultValue if given is None else given
    kind = parameter.WhichOneof("AllowedValues")
    if kind == "range":
        low, high = parameter.range.minValue, parameter.range.maxValue
        if not low <= value <= high:
            raise Refused(f"{what} {value}: the model allows {low} to {high}")
    elif kind == "set" and value not in list(parameter.set.values):
        raise Refused(f"{what} {value}: the model allows {sorted(parameter.set.values)}")
    return float(value)


def _examples(spec: Any, examples: Mapping[str, Array], target: str) -> dict[str, Array]:
    described = {f.name: array_feature(f) for f in spec.description.trainingInput}
    if target not in described:
        raise MalformedFile(f"the loss's target {target} is no training input")
    if set(examples) != set(described):
        raise WrongFeeds(f"given {sorted(examples)}, the training inputs are {sorted(described)}")
    counts = {len(a) for a in examples.values()}
    if len(counts) != 1 or counts == {0}:
        raise WrongFeeds(f"training inputs of {sorted(counts)} examples")
    for name, (shape, _) in described.items():
        if examples[name].shape[1:] != shape:
            raise WrongFeeds(f"examples {name} are {examples[name].shape[1:]}, asked {shape}")
    return {n: a if n == target else to_blob(a) for n, a in examples.items()}


def write_parameters(path: Path, parameters: Parameters) -> None:
    """Give a saved model other parameters, by layer and by `weight` and `bias`, of the layers' shapes."""
    package = Package(path)
    held = Network(package.spec.neuralNetwork).parameters
    for layer in package.spec.neuralNetwork.layers:
        for key, value in parameters.get(layer.name, {}).items():
            if value.shape != held[layer.name][key].shape:
                raise WrongFeeds(f"{layer.name}.{key} is {value.shape}, asked {held[layer.name][key].shape}")
            message = getattr(
                getattr(layer, layer.WhichOneof("layer")), "weights" if key == "weight" else key
            )
            message.floatValue[:] = np.asarray(value, np.float32).reshape(-1).tolist()
    path.write_bytes(package.spec.SerializeToString())
