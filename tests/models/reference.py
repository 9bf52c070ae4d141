# SPDX-License-Identifier: Apache-2.0
"""A model in its own framework: loss and gradients by that framework's own differentiation, in float64 or in
float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.converters.sources import keras as keras_source
from edgefl.converters.sources.forward import parameter_names
from tests.models.zoo import Array, Entry, alone

Values = Mapping[str, Array]


@dataclass(frozen=True)
class Reference:
    """A model that can be differentiated.

    Attributes:
        differentiate: `(trained parameters, inputs, labels) -> (loss, gradients)`. Parameters that are not
            given keep the model's values. Gradients come for those given: zeros where nothing depends on one.
        trainable: names of the parameters the framework would train, as the bundle names them.
    """

    differentiate: Callable[[Values, Values, Array], tuple[float, dict[str, Array]]]
    trainable: frozenset[str]


def reference(entry: Entry, model: Any, dtype: str = "float64") -> Reference:
    """The entry's reference computing in `dtype`; `model` is what `entry.build()` gave, left as it is."""
    return (_torch if entry.framework == "torch" else _keras)(entry, model, dtype)


# -- PyTorch


def _torch(entry: Entry, model: Any, dtype: str) -> Reference:
    import contextlib
    import copy

    import torch

    # The bundle's names: some models have parameters called as the step's own tensors.
    floats = [n for n, v in (*model.named_parameters(), *model.named_buffers()) if v.is_floating_point()]
    names = {bundle: own for own, bundle in parameter_names(floats).items()}
    own = getattr(torch, dtype)
    source = copy.deepcopy(model).to(own).eval()
    precise = _in_double if dtype == "float64" else contextlib.nullcontext

    def run(values: Values, x: Values, y: Array) -> tuple[float, dict[str, Array]]:
        weights = {n: torch.tensor(v, dtype=own, requires_grad=True) for n, v in values.items()}
        data = {n: torch.tensor(v) for n, v in x.items()}
        data = {n: v.to(own) if v.is_floating_point() else v for n, v in data.items()}
        args, kwargs = ((next(iter(data.values())),), {}) if len(data) == 1 else ((), data)
        with precise():
            # A copy for each call: some models keep what they computed from earlier parameters.
            net = copy.deepcopy(source)
            made = torch.func.functional_call(net, {names[n]: v for n, v in weights.items()}, args, kwargs)
        loss = _torch_loss(entry.loss, _first(made), torch.tensor(y))
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, materialize_grads=True)
        gradients = {n: g.double().numpy() for n, g in zip(weights, found, strict=True)}
        return float(loss.detach()), gradients

    bundle_names = {own: bundle for bundle, own in names.items()}
    trainable = frozenset(bundle_names[n] for n, p in model.named_parameters() if p.requires_grad)
    return Reference(run, trainable)


def _in_double() -> Any:
    """A context in which models that ask for float32 (for a softmax, a norm) get float64."""
    import torch
    from torch.overrides import TorchFunctionMode

    def wider(value: Any) -> Any:
        return torch.float64 if value is torch.float32 else value

    class Double(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.Tensor.float:
                function = torch.Tensor.double
            return function(*map(wider, args), **{n: wider(v) for n, v in (kwargs or {}).items()})

    return Double()


def _first(made: Any) -> Any:
    """The first tensor of what a model returns."""
    import torch

    if isinstance(made, torch.Tensor):
        return made
    leaves = made.values() if hasattr(made, "values") else torch.utils._pytree.tree_leaves(made)
    return next(value for value in leaves if isinstance(value, torch.Tensor))


def _torch_loss(name: str, output: Any, y: Any) -> Any:
    from torch.nn import functional as F

    if name == "mean_squared_error":
        return F.mse_loss(output, y.to(output.dtype))
    if name == "next_token":
        output, y = output[:, :-1], y[:, 1:]
    return F.cross_entropy(output.reshape(-1, output.shape[-1]), y.reshape(-1).long())


# -- Keras


def _keras(entry: Entry, model: Any, dtype: str) -> Reference:
    import keras
    import tensorflow as tf

    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        net = entry.build()
        _forward_keras(net, entry)
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
    for own, single in zip(net.variables, model.variables, strict=True):
        own.assign(np.asarray(single))
    ordered = (*model.trainable_variables, *model.non_trainable_variables)
    held = keras_source.held(model)
    names = {id(held[own]): name for own, name in parameter_names(held).items()}
    own = (*net.trainable_variables, *net.non_trainable_variables)
    variables = {names[id(v)]: o for v, o in zip(ordered, own, strict=True) if id(v) in names}

    def run(values: Values, x: Values, y: Array) -> tuple[float, dict[str, Array]]:
        for name, value in values.items():
            variables[name].assign(value)
        data = {n: tf.cast(v, dtype) if v.dtype.kind == "f" else tf.constant(v) for n, v in x.items()}
        with tf.GradientTape() as tape:
            made = net(alone(data), training=False)
            loss = _keras_loss(entry.loss, tf.nest.flatten(made)[0], y)
        wanted = [variables[name].value for name in values]
        found = tape.gradient(loss, wanted, unconnected_gradients="zero")
        return float(loss), {
            n: np.asarray(tf.convert_to_tensor(g), np.float64) for n, g in zip(values, found, strict=True)
        }

    trainable = frozenset(names[id(v)] for v in model.trainable_variables)
    return Reference(run, trainable)


def _forward_keras(net: Any, entry: Entry) -> None:
    """Keras picks a layer's dtype when it is built, which for subclassed models is the first call."""
    net(alone(entry.data(2)), training=False)


def _keras_loss(name: str, output: Any, y: Array) -> Any:
    import tensorflow as tf

    if name == "mean_squared_error":
        return tf.reduce_mean(tf.square(output - tf.cast(y, output.dtype)))
    if name == "next_token":
        output, y = output[:, :-1], y[:, 1:]
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=output))
