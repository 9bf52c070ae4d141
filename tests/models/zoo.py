# SPDX-License-Identifier: Apache-2.0
"""The models the project promises to train, each once, small, with random weights drawn from a fixed seed.

Importing this module imports no framework: an entry's model is made by `build()`, from `torch_models.py`,
`keras_models.py` or `transformer_models.py` beside it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Field:
    """One input or label of one example.

    Attributes:
        shape: without the batch.
        below: integers from 0 to `below - 1`; 0 for float32 drawn from a normal distribution.
        dtype: of integers.
    """

    shape: tuple[int, ...] = ()
    below: int = 0
    dtype: str = "int64"

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        shape = (count, *self.shape)
        if not self.below:
            return rng.standard_normal(shape).astype(np.float32)
        return rng.integers(0, self.below, shape).astype(self.dtype)


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        name: unique, a valid identifier with dashes.
        framework: `torch` or `keras`.
        family: `convolution`, `transformer`, `recurrent`, `audio`, `dense-prediction` or `tabular`.
        factory: `module:function` below `tests.models`; the function takes `options`.
        inputs: by argument name; a single one is given as an array, several as a dict.
        label: the type of `y`.
        loss: a name of `edgefl.converters.losses`.
        options: keyword arguments of the factory.
        quick: part of the fast cut.
        redraw: False where the model's own initial values have to stay.
    """

    name: str
    framework: str
    family: str
    factory: str
    inputs: Mapping[str, Field]
    label: Field
    loss: str = "softmax_cross_entropy"
    options: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False
    redraw: bool = True

    def build(self) -> Any:
        """The model, in evaluation mode, with the same weights every time."""
        module, function = self.factory.split(":")
        weights = importlib.import_module(f"tests.models.{self.framework}_weights")
        with weights.seeded():
            model = getattr(importlib.import_module(f"tests.models.{module}"), function)(**self.options)
            if self.redraw:
                weights.redraw(model)
        return model

    def data(self, count: int, seed: int = 0) -> dict[str, Array]:
        """Random examples, by argument name."""
        rng = np.random.default_rng(seed)
        return {name: one.draw(count, rng) for name, one in self.inputs.items()}

    def labels(self, count: int, seed: int = 0) -> Array:
        y = self.label.draw(count, np.random.default_rng((seed, 1)))
        return y.astype(np.int32) if self.label.below else y

    def example_inputs(self, count: int = 2) -> Any:
        """What `edgefl.convert` takes: an array, or a dict where there are several inputs."""
        return alone(self.data(count))


def alone(data: Mapping[str, Array]) -> Any:
    """The one array, or the mapping where there are several."""
    return next(iter(data.values())) if len(data) == 1 else dict(data)


def image(size: int = 32, channels: int = 3) -> dict[str, Field]:
    """Channels first, as PyTorch has them."""
    return {"pixel_values": Field((channels, size, size))}


def image_last(size: int = 32, channels: int = 3) -> dict[str, Field]:
    """Channels last, as Keras has them."""
    return {"image": Field((size, size, channels))}


def tokens(length: int = 12, vocabulary: int = 40) -> dict[str, Field]:
    return {"input_ids": Field((length,), vocabulary)}


def classes(count: int = 5) -> Field:
    return Field((), count)


def words(length: int = 12, vocabulary: int = 40) -> Field:
    return Field((length,), vocabulary)


def torch_entry(name: str, family: str, inputs: Mapping[str, Field], label: Field, **more: Any) -> Entry:
    return Entry(name, "torch", family, f"torch_models:{_function(name)}", inputs, label, **more)


def keras_entry(name: str, family: str, inputs: Mapping[str, Field], label: Field, **more: Any) -> Entry:
    return Entry(name, "keras", family, f"keras_models:{_function(name)}", inputs, label, **more)


def transformers_entry(
    name: str, family: str, inputs: Mapping[str, Field], label: Field, **more: Any
) -> Entry:
    """A model of Hugging Face's `transformers`."""
    return Entry(name, "torch", family, f"transformer_models:{_function(name)}", inputs, label, **more)


def _function(name: str) -> str:
    return name.replace("-", "_")


_MASKED_TOKENS = {**tokens(), "attention_mask": Field((12,), 2)}
_NEXT = {"loss": "next_token"}
_MSE = {"loss": "mean_squared_error"}

ENTRIES = (
    torch_entry("lenet", "convolution", image(28, 1), classes(), quick=True),
    transformers_entry("resnet-18", "convolution", image(32), classes()),
    keras_entry("resnet-8", "convolution", image_last(32), classes(), quick=True),
    keras_entry("mobilenet-v2", "convolution", image_last(32), classes()),
    transformers_entry("mobilenet-v2-torch", "convolution", image(32), classes()),
    keras_entry("mobilenet-v3-small", "convolution", image_last(32), classes()),
    transformers_entry("efficientnet-b0", "convolution", image(32), classes()),
    transformers_entry("convnext", "convolution", image(32), classes()),
    transformers_entry("mobilevit", "transformer", image(32), classes()),
    transformers_entry("vit", "transformer", image(32), classes(), quick=True),
    transformers_entry("swin", "transformer", image(32), classes()),
    transformers_entry("bert", "transformer", _MASKED_TOKENS, classes(), quick=True),
    transformers_entry("distilbert", "transformer", _MASKED_TOKENS, classes()),
    transformers_entry("gpt2", "transformer", tokens(), words(), **_NEXT),
    transformers_entry("llama", "transformer", tokens(), words(), **_NEXT, quick=True),
    keras_entry("ds-cnn", "audio", {"spectrum": Field((49, 10, 1))}, classes(12)),
    torch_entry("tcn", "audio", {"signal": Field((6, 48))}, classes(), quick=True),
    torch_entry("gru-lm", "recurrent", tokens(), words(), **_NEXT),
    torch_entry("lstm-lm", "recurrent", tokens(), words(), **_NEXT),
    keras_entry("gru-lm-keras", "recurrent", tokens(8), words(8), **_NEXT),
    keras_entry("lstm-lm-keras", "recurrent", tokens(8), words(8), **_NEXT, quick=True),
    torch_entry("unet", "dense-prediction", image(32, 1), Field((1, 32, 32)), **_MSE),
    keras_entry("unet-keras", "dense-prediction", image_last(16, 1), Field((16, 16), 3)),
    torch_entry("autoencoder", "dense-prediction", image(28, 1), Field((1, 28, 28)), **_MSE),
    torch_entry(
        "tab-transformer", "tabular", {"categories": Field((6,), 9), "numbers": Field((5,))}, classes(3)
    ),
    keras_entry(
        "wide-and-deep",
        "tabular",
        {"wide": Field((20,)), "deep": Field((8,)), "category": Field((2,), 11, "int32")},
        Field((1,)),
        **_MSE,
    ),
)

BY_NAME = {entry.name: entry for entry in ENTRIES}
