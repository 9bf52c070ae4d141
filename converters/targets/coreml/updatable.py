# SPDX-License-Identifier: Apache-2.0
"""Classic updatable models (`MLUpdateTask`), where what is trained is a chain of layers they have."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.converters.targets.coreml import package
from edgefl.converters.targets.coreml.package import serialized
from edgefl.converters.targets.coreml.program import import_coremltools
from edgefl.converters.targets.coreml.tail import ACTIVATIONS, Layer, Tail, find_tail
from edgefl.converters.targets.quiet import quiet
from edgefl.converters.targets.tflite import safe_names
from edgefl.errors import ConversionError, UnsupportedOperator
from edgefl.graph import read_onnx
from edgefl.graph.interpreter import settled

OPTIMIZERS = ("sgd", "adam")
EPOCHS = (1, 2, 3, 5, 10, 20, 50)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
INPUT, OUTPUT = "x", "output"
_LOSSES = ("softmax_cross_entropy", "mean_squared_error")


@dataclass(frozen=True)
class Updatable:
    """An updatable model.

    Attributes:
        data: the `.mlmodel`; equal for equal bundles.
        inputs, outputs: contract name to Core ML's name; `y` is the training input.
        layers: each trained layer with its `weight` and `bias` parameters, and whether the parameter is the
            transpose of the layer's weight.
    """

    data: bytes
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    layers: tuple[Mapping[str, Any], ...]


def to_updatable(bundle: Bundle, optimizer: str = "sgd") -> Updatable:
    """The step's layers with the bundle's parameters, to be trained one example at a time or in mini-batches.

    Args:
        optimizer: `sgd` (with momentum) or `adam`; rates and their ranges come from the bundle's defaults.

    Raises:
        UnsupportedOperator: the first layer that updatable models do not have, and why.
        ConversionError: an unknown optimizer, or coremltools refuses the model.
    """
    if optimizer not in OPTIMIZERS:
        raise ConversionError(f"updatable optimizer {optimizer!r}: there are {', '.join(OPTIMIZERS)}")
    tail = _tail(bundle)
    with quiet("coremltools"):
        import_coremltools()
        from coremltools.models.neural_network import NeuralNetworkBuilder

        try:
            builder, names = _built(NeuralNetworkBuilder, tail, bundle)
            _train(
                builder, bundle, optimizer, [names[i] for i, layer in enumerate(tail.layers) if layer.trained]
            )
            data = serialized(builder.spec, f"edgefl updatable, {bundle.manifest.loss}")
            validate("updatable", data)
        except (ValueError, TypeError, RuntimeError) as exc:
            raise ConversionError(f"coremltools refuses the updatable model: {exc}") from exc
    rows = tuple(_row(n, layer) for n, layer in zip(names, tail.layers, strict=True) if layer.trained)
    return Updatable(data, {tail.input: INPUT, "y": f"{OUTPUT}_true"}, {"output": OUTPUT}, rows)


def _tail(bundle: Bundle) -> Tail:
    manifest = bundle.manifest
    if manifest.loss not in _LOSSES:
        raise UnsupportedOperator(f"loss {manifest.loss!r}: updatable models have {' and '.join(_LOSSES)}")
    if len(manifest.step_inputs) != 1:
        raise UnsupportedOperator(f"{len(manifest.step_inputs)} data inputs: a chain of layers has one")
    values = bundle.parameters()
    trained = {p.name: values[p.name] for p in manifest.trained}
    step = settled(read_onnx(bundle.artifact("onnx", "step")))
    return find_tail(step, manifest.step_inputs[0].name, manifest.loss, trained)


def _row(name: str, layer: Layer) -> dict[str, Any]:
    return {
        "layer": name,
        "weight": layer.weight_name,
        "bias": layer.bias_name,
        "transposed": layer.transposed,
    }


def _built(builder_class: Any, tail: Tail, bundle: Bundle) -> tuple[Any, list[str]]:
    """A network of the tail's layers, and the layers' names."""
    from coremltools.models import datatypes

    softmax = bundle.manifest.loss == "softmax_cross_entropy"
    shape = tail.layers[-1].shape if tail.layers else tail.shape
    if softmax and len(shape) != 1:
        raise UnsupportedOperator(
            f"scores of shape {shape}: updatable classifiers give one vector per example"
        )
    builder = builder_class(
        [(INPUT, datatypes.Array(*tail.shape))],
        [(OUTPUT, datatypes.Array(*shape))],
        use_float_arraytype=True,
    )
    keys = [layer.weight_name or f"{layer.op}_{i}" for i, layer in enumerate(tail.layers)]
    names = list(safe_names(keys).values())
    source = INPUT
    for i, (name, layer) in enumerate(zip(names, tail.layers, strict=True)):
        last = i == len(names) - 1 and not softmax
        result = OUTPUT if last else f"{name}_result"
        add: Callable[..., None] = _ADD.get(layer.op, _activation)
        add(builder, layer, name, source, result)
        source = result
    if softmax:
        builder.add_softmax("softmax", source, OUTPUT)
        builder.set_categorical_cross_entropy_loss("loss", OUTPUT)
    else:
        builder.set_mean_squared_error_loss("loss", (OUTPUT, datatypes.Array(*shape)))
    return builder, names


def _train(builder: Any, bundle: Bundle, optimizer: str, layers: list[str]) -> None:
    """Updatable flags, optimizer with its ranges, epochs, shuffling."""
    from coremltools.models import neural_network

    defaults, batch = bundle.manifest.defaults, bundle.manifest.batch_size
    rate = float(defaults.get("lr", 0.01))
    chosen: Any = neural_network.SgdParams if optimizer == "sgd" else neural_network.AdamParams
    params = chosen(lr=rate, batch=batch)
    params.set_lr(rate, 0.0, max(1.0, rate))
    params.set_batch(batch, sorted({*BATCHES, batch}))
    if optimizer == "sgd":
        params.set_momentum(float(defaults.get("momentum", 0.0)), 0.0, 1.0)
        set_optimizer = builder.set_sgd_optimizer
    else:
        set_optimizer = builder.set_adam_optimizer
    builder.make_updatable(layers)
    set_optimizer(params)
    epochs = int(defaults.get("epochs", 1))
    builder.set_epochs(epochs, sorted({*EPOCHS, epochs}))


def validate(kind: str, data: bytes) -> None:
    """Read an artifact back from disk as coremltools does.

    Raises:
        ConversionError: coremltools does not accept it.
        MissingDependency: coremltools is not installed.
    """
    with quiet("coremltools"), tempfile.TemporaryDirectory() as folder:
        ct = import_coremltools()
        if kind != "updatable":
            package.load(data)
            return
        path = Path(folder) / "updatable.mlmodel"
        path.write_bytes(data)
        try:
            ct.models.MLModel(str(path), skip_model_load=True)
        except Exception as exc:  # coremltools' own validation shares no base class
            raise ConversionError(f"coremltools does not accept the updatable model: {exc}") from exc


# -- layers


def _dense(builder: Any, layer: Layer, name: str, source: str, result: str) -> None:
    assert layer.weight is not None
    outer, inner = layer.weight.shape
    builder.add_inner_product(
        name=name,
        W=layer.weight.astype(np.float32),
        b=layer.bias,
        input_channels=inner,
        output_channels=outer,
        has_bias=layer.bias is not None,
        input_name=source,
        output_name=result,
    )


def _pads(layer: Layer) -> dict[str, int]:
    top, left, bottom, right = (int(n) for n in layer.attributes.get("pads", (0, 0, 0, 0)))
    return {"padding_top": top, "padding_bottom": bottom, "padding_left": left, "padding_right": right}


def _strides(layer: Layer) -> dict[str, int]:
    height, width = (int(n) for n in layer.attributes.get("strides", (1, 1)))
    return {"stride_height": height, "stride_width": width}


def _conv(builder: Any, layer: Layer, name: str, source: str, result: str) -> None:
    assert layer.weight is not None
    outer, inner, height, width = layer.weight.shape
    builder.add_convolution(
        name=name,
        kernel_channels=inner,
        output_channels=outer,
        height=height,
        width=width,
        border_mode="valid",
        groups=int(layer.attributes.get("group", 1)),
        W=np.ascontiguousarray(layer.weight.transpose(2, 3, 1, 0)),
        b=layer.bias,
        has_bias=layer.bias is not None,
        input_name=source,
        output_name=result,
        dilation_factors=[int(n) for n in layer.attributes.get("dilations", (1, 1))],
        **_strides(layer),
        **_pads(layer),
    )


def _pool(builder: Any, layer: Layer, name: str, source: str, result: str) -> None:
    height, width = (int(n) for n in layer.attributes["kernel_shape"])
    builder.add_pooling(
        name=name,
        height=height,
        width=width,
        layer_type="MAX" if layer.node.op == "MaxPool" else "AVERAGE",
        padding_type="VALID",
        input_name=source,
        output_name=result,
        exclude_pad_area=not layer.attributes.get("count_include_pad", 0),
        **_strides(layer),
        **_pads(layer),
    )


def _mean(builder: Any, layer: Layer, name: str, source: str, result: str) -> None:
    builder.add_pooling(
        name=f"{name}_pool",
        height=1,
        width=1,
        stride_height=1,
        stride_width=1,
        layer_type="AVERAGE",
        padding_type="VALID",
        input_name=source,
        output_name=f"{name}_pooled",
        is_global=True,
    )
    _flatten(builder, layer, name, f"{name}_pooled", result)


def _flatten(builder: Any, layer: Layer, name: str, source: str, result: str) -> None:
    builder.add_flatten(name=name, mode=0, input_name=source, output_name=result)


def _activation(builder: Any, layer: Layer, name: str, source: str, result: str) -> None:
    slopes = {"LeakyRelu": 0.01, "Elu": 1.0}
    alpha = [float(layer.attributes.get("alpha", slopes[layer.op]))] if layer.op in slopes else None
    builder.add_activation(name, ACTIVATIONS[layer.op], source, result, params=alpha)


_ADD: Mapping[str, Callable[..., None]] = {
    "dense": _dense,
    "conv": _conv,
    "pool": _pool,
    "mean": _mean,
    "flatten": _flatten,
}
