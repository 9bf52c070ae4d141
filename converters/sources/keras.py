# SPDX-License-Identifier: Apache-2.0
"""Keras 3: parameters become inputs by `model.stateless_call`, traced by tf2onnx."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.converters.instead import instead_of
from edgefl.converters.sources.forward import (
    Example,
    Forward,
    Statistics,
    assemble,
    dropout_note,
    example,
    output_names,
    parameter_names,
)
from edgefl.converters.sources.layers_keras import first_words, name_nodes, noting
from edgefl.converters.sources.naming_keras import (
    counted_layers,
    input_names,
    own_outputs,
    renamed,
    variable_names,
)
from edgefl.converters.sources.onnx_model import to_graph
from edgefl.converters.sources.recurrent_keras import handlers as recurrent_handlers
from edgefl.converters.sources.recurrent_keras import kept_whole
from edgefl.converters.sources.stopping_tensorflow import keeping_stops, refuse_own_gradients
from edgefl.converters.sources.training_keras import (
    Drops,
    batch_norms,
    keeping_dropout,
    kept_layers,
    showing_batch_norm,
)
from edgefl.converters.sources.unrolling import unrolled
from edgefl.converters.targets.quiet import quiet
from edgefl.errors import EdgeflError, MissingDependency, SourceError
from edgefl.graph import OPSET
from edgefl.graph.model import TensorType

_RANDOM = ("Dropout", "GaussianNoise", "Random")


def load_keras_file(
    path: str | Path, example_inputs: object, *, batch_size: int, dropout: bool = False, show: bool = False
) -> Forward:
    """The forward pass of a `.keras` file; custom layers must be registered with Keras beforehand."""
    keras = _keras()
    try:
        with quiet():
            model = keras.saving.load_model(str(path), compile=False)
    except Exception as exc:
        raise SourceError(
            f"Keras cannot load {path}: {first_words(exc)}; with custom layers give `module.py:factory`"
        ) from exc
    return load_keras(model, example_inputs, batch_size=batch_size, dropout=dropout, show=show)


def load_keras(
    model: Any, example_inputs: object, *, batch_size: int, dropout: bool = False, show: bool = False
) -> Forward:
    """The forward pass of a Keras 3 model with `training=False`; recurrent layers are unrolled.

    Parameters are named by `variable.path`, with layers counted within the model (`naming_keras`). Example
    inputs may be None where the model knows its input shape.
    `dropout` leaves dropout layers, `show` BatchNormalization layers as operators of the graph.

    Raises:
        SourceError: the model cannot be called or traced, or runs on another backend than TensorFlow.
        UnsupportedOperator: see `onnx_model.to_graph`.
    """
    keras = _keras()
    if keras.backend.backend() != "tensorflow":
        raise SourceError(
            f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow before it is imported"
        )
    spec = _example(model, example_inputs, batch_size)
    _build(model, spec)
    values = held(model)
    names = parameter_names(values)
    labels = [f"parameter_{i}" for i in range(len(values))] + [f"data_{i}" for i in range(len(spec.types))]
    traced, keys = _export(model, values, spec, labels, dropout, show)
    graph = to_graph(traced.proto)
    own = {id(v): names[n] for n, v in values.items()}
    trainable = set(map(id, model.trainable_variables))
    return assemble(
        graph,
        data=dict(zip(labels[len(values) :], spec.names(input_names(model)), strict=True)),
        parameters={
            names[n]: (label, np.asarray(v)) for label, (n, v) in zip(labels, values.items(), strict=False)
        },
        outputs=dict(
            zip(graph.outputs, output_names(keys or own_outputs(model), len(graph.outputs)), strict=True)
        ),
        trainable={names[n] for n, v in values.items() if id(v) in trainable},
        buffers={names[n] for n, v in values.items() if id(v) in _never_trained(model)},
        provenance=_provenance(model, dropout),
        statistics=[
            Statistics(
                own[id(layer.moving_mean)],
                own[id(layer.moving_variance)],
                1 - float(layer.momentum),
                unbiased=False,
            )
            for layer in batch_norms(model)
        ],
        aliases={v.path: names[n] for n, v in values.items() if v.path != n},
        strays=dict.fromkeys(
            traced.variables,
            "Keras does not track what only a function's closure holds; make it an attribute of a layer",
        ),
    )


def _keras() -> Any:
    try:
        import keras
        import tf2onnx  # noqa: F401  its absence is better said before the tracing
    except ImportError as exc:
        raise MissingDependency(str(exc.name), "keras", "converting Keras models") from exc
    return keras


def held(model: Any) -> dict[str, Any]:
    """Float variables by name, trainable ones first."""
    variables = (*model.trainable_variables, *model.non_trainable_variables)
    return variable_names(model, [v for v in variables if np.dtype(v.dtype).kind == "f"])


def _never_trained(model: Any) -> set[int]:
    """Identities of variables made with `trainable=False`, whether their layers are frozen or not."""
    return {id(v) for layer in model._flatten_layers() for v in layer._non_trainable_variables}


def _example(model: Any, inputs: object, batch_size: int) -> Example:
    if inputs is not None:
        return example(inputs, batch_size)
    structures = (getattr(model, name, None) for name in ("_inputs_struct", "inputs"))
    known = next((structure for structure in structures if structure is not None), None)
    if known is None:
        raise SourceError(f"{type(model).__name__} does not know its input shape; give example_inputs")
    return example(known, batch_size)


def _build(model: Any, spec: Example) -> None:
    """Make the variables of a model that has not seen data yet."""
    if model.built and model.variables:
        return
    try:
        with quiet("tensorflow"), noting(model) as running:
            model(_structured(spec, [np.zeros(t.shape, t.dtype) for t in spec.types]))
    except Exception as exc:
        what = f"layer {running.failed}" if running.failed else type(model).__name__
        raise SourceError(f"{what} cannot be called on the example: {first_words(exc)}") from exc


def _structured(spec: Example, data: Sequence[Any]) -> Any:
    if spec.keys:
        return dict(zip(spec.keys, data, strict=True))
    return data[0] if len(data) == 1 else list(data)


def _export(
    model: Any, values: dict[str, Any], spec: Example, labels: list[str], dropout: bool, show: bool
) -> tuple[Traced, list[str] | None]:
    """The ONNX model, its inputs named `labels`, and the names of its outputs where it returns a dict."""
    import tensorflow as tf

    keys: list[str] | None = None
    mode = {"training": False} if "training" in inspect.signature(model.call).parameters else {}
    bind = _binder(model, values)

    def forward(*flat: Any) -> list[Any]:
        nonlocal keys
        data = _structured(spec, flat[len(values) :])
        made, _ = model.stateless_call(*bind(flat), data, **mode)
        keys = [str(key) for key in made] if isinstance(made, dict) else None
        tensors = list(made.values()) if isinstance(made, dict) else tf.nest.flatten(made)
        return [tf.identity(t) for t in tensors]

    types = [TensorType(np.dtype(v.dtype), tuple(v.shape)) for v in values.values()] + list(spec.types)
    drops = Drops()
    with contextlib.ExitStack() as stack:
        stack.enter_context(kept_whole(model))
        stack.enter_context(unrolled(model))
        if dropout:
            stack.enter_context(keeping_dropout(model, drops))
        if show:
            stack.enter_context(showing_batch_norm(model))
        traced = trace(
            forward, dict(zip(labels, types, strict=True)), f"Keras model {model.name!r}", drops, model
        )
    return traced, keys


@dataclass(frozen=True)
class Traced:
    """A traced function.

    Attributes:
        proto: the `onnx.ModelProto`.
        variables: names of trainable variables that it reads, and that became constants.
    """

    proto: Any
    variables: tuple[str, ...]


def trace(
    function: Callable[..., Any],
    types: Mapping[str, TensorType],
    what: str,
    drops: Drops | None = None,
    model: Any = None,
) -> Traced:
    """The ONNX model of a function of TensorFlow tensors, its inputs named and typed as in `types`.

    Dropout that `drops` collects while the function is traced is kept. Nodes are named by their layers, those
    within `model`.

    Raises:
        SourceError: it cannot be traced; `what` says what it is.
    """
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec(t.shape, t.dtype, name=n) for n, t in types.items()]
    try:
        with quiet("tensorflow", "tf2onnx"), _inlined(), _transposes_left(), noting(model) as running:
            wrapped = tf.function(function, autograph=False)
            traced = wrapped.get_concrete_function(*signature)
            refuse_own_gradients(traced.graph, running.of)
            proto, _ = tf2onnx.convert.from_function(
                wrapped,
                input_signature=signature,
                opset=OPSET,
                **keeping_stops({**recurrent_handlers(), **(drops or Drops()).handlers()}),
            )
            _fix_captures(proto, traced)
            name_nodes(proto, running)
    except EdgeflError as exc:
        raise type(exc)(first_words(exc)) from exc
    except Exception as exc:
        where = f"layer {running.failed} of {what}" if running.failed else what
        raise SourceError(f"{where} cannot be traced: {first_words(exc)} {_advice(exc)}") from exc
    return Traced(proto, tuple(v.name.partition(":")[0] for v in traced.graph.trainable_variables))


def _fix_captures(proto: Any, function: Any) -> None:
    """Tensors that layers hold besides their variables were traced as inputs; make them constants."""
    from onnx import numpy_helper

    held = {inner.name: outer for outer, inner in function.graph.captures}
    for value in [v for v in proto.graph.input if v.name in held]:
        proto.graph.initializer.append(numpy_helper.from_array(held[value.name].numpy(), value.name))
        proto.graph.input.remove(value)


def _binder(model: Any, values: dict[str, Any]) -> Callable[[Sequence[Any]], tuple[list[Any], list[Any]]]:
    """From traced parameters to the two lists `stateless_call` takes; integer variables keep their values."""
    index = {id(variable): i for i, variable in enumerate(values.values())}
    rest = {id(v): np.asarray(v) for v in model.non_trainable_variables if id(v) not in index}

    def bind(flat: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        def tensors(variables: Sequence[Any]) -> list[Any]:
            return [flat[index[id(v)]] if id(v) in index else rest[id(v)] for v in variables]

        return tensors(model.trainable_variables), tensors(model.non_trainable_variables)

    return bind


@contextlib.contextmanager
def _inlined() -> Iterator[None]:
    """Functions within the traced one become part of it; Keras compiles grouped convolutions."""
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextlib.contextmanager
def _transposes_left() -> Iterator[None]:
    """Transposes that only move axes of size 1 stay transposes until edgefl looks at them.

    tf2onnx (1.17) would turn them into reshapes by the shapes it has noted, and its note on a tensor's square
    is that of before it moved transposes past it: a LayerNormalization of images of one pixel comes out
    wrong.
    """
    from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

    before = TransposeOptimizer.post_optimize_action
    TransposeOptimizer.post_optimize_action = lambda self: None
    try:
        yield
    finally:
        TransposeOptimizer.post_optimize_action = before


def _provenance(model: Any, dropout: bool) -> dict[str, str]:
    import keras
    import tensorflow as tf
    import tf2onnx

    kept = [layer.name for layer in kept_layers(model) if layer.rate] if dropout else []
    off = [
        layer.name
        for layer in model._flatten_layers()
        if layer.name not in kept
        and (any(word in type(layer).__name__ for word in _RANDOM) or bool(getattr(layer, "dropout", False)))
    ]
    return {
        "source": "keras",
        "framework": f"keras {keras.__version__}, tensorflow {tf.__version__}, tf2onnx {tf2onnx.__version__}",
        "model": type(model).__name__,
        **({"layers": layers} if (layers := renamed(counted_layers(model))) else {}),
        **dropout_note(kept, off),
    }


def _advice(exc: Exception) -> str:
    """What to do about what could not be traced."""
    said = str(exc)
    if "as a Python `bool`" in said:
        return "Choose by keras.ops.where or a mask, and loop a fixed number of times"
    if "numpy" in said.lower():
        return f"Instead {instead_of('py_func')}"
    return "It must use keras.ops or TensorFlow operations, and shapes must not depend on data"
