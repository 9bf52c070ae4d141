# SPDX-License-Identifier: Apache-2.0
"""Names of Keras variables, inputs and outputs that depend on the model alone.

Keras numbers layers without a name by what else the process has built: `dense_7` here is `dense` in the next
process, and devices of one federation would not know each other's parameters. Names of that form are counted
anew within the model, from the lowest number on, which gives what Keras gives in a fresh process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_UNNAMED = re.compile(r"(keras_tensor|input_layer)(_[0-9]+)?")  # a saved model has the second for the first


def input_names(model: Any) -> tuple[str, ...]:
    """The inputs of a functional model: those without a name of the user's by their place, as `input_1`."""
    given = [tensor.name for tensor in getattr(model, "inputs", None) or ()]
    taken = {name for name in given if not _UNNAMED.fullmatch(name)}
    names = []
    for place, name in enumerate(given):
        if name not in taken:
            name = f"input_{place}"
            while name in taken:
                name += "_"
        names.append(name)
    return tuple(names)


def own_outputs(model: Any) -> list[str] | None:
    """The outputs of a functional model, by the layers they come from as Keras has it, counted anew."""
    layers = counted_layers(model)
    names = [layers.get(name, name) for name in getattr(model, "output_names", None) or ()]
    return names if len(set(names)) == len(names) else None


def variable_names(model: Any, variables: Iterable[Any]) -> dict[str, Any]:
    """The variables by name, in their order; names that repeat are numbered."""
    layers = counted_layers(model)
    named: dict[str, Any] = {}
    for variable in variables:
        *scopes, last = variable.path.split("/")
        path, count = "/".join([*(layers.get(scope, scope) for scope in scopes), last]), 1
        name = path
        while name in named:
            count += 1
            name = f"{path}:{count}"
        named[name] = variable
    return named


def counted_layers(model: Any) -> dict[str, str]:
    """Names of layers that Keras numbered, to their names within this model; others are left alone."""
    numbers: dict[str, dict[int, str]] = {}
    others = set()
    for layer in model._flatten_layers():
        number = _number(layer)
        if number is None:
            others.add(layer.name)
        else:
            numbers.setdefault(_snake(layer), {})[number] = layer.name
    return {
        old: new
        for word, found in numbers.items()
        for old, new in zip([found[n] for n in sorted(found)], _free(word, len(found), others), strict=True)
    }


def renamed(layers: Mapping[str, str]) -> str:
    """The change in words, empty where there is none."""
    return ", ".join(f"{old} is {new}" for old, new in layers.items() if old != new)


def _free(word: str, count: int, taken: set[str]) -> list[str]:
    """`word`, `word_1`, `word_2` ..., without those that a user gave to another layer."""
    names: list[str] = []
    number = 0
    while len(names) < count:
        name = f"{word}_{number}" if number else word
        number += 1
        if name not in taken:
            names.append(name)
    return names


def _number(layer: Any) -> int | None:
    """Which of its class Keras counted a layer as, None where its name is not of that form."""
    found = re.fullmatch(rf"{re.escape(_snake(layer))}(?:_([1-9][0-9]*))?", layer.name)
    return int(found[1] or 0) if found else None


def _snake(layer: Any) -> str:
    """A class's name as Keras writes it in names of layers."""
    name = re.sub(r"\W+", "", type(layer).__name__)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
