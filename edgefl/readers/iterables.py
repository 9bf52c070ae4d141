# SPDX-License-Identifier: Apache-2.0
"""Data sets of frameworks, and anything else that gives examples or batches one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.data import Examples, Wanted, named_examples
from edgefl.errors import DataError, DataShape
from edgefl.options import DataOptions
from edgefl.readers.tables import LABELS

Array = npt.NDArray[Any]
Parts = dict[str, Array]


def read_iterable(source: Iterable[Any], wanted: Wanted | None, how: DataOptions, max_bytes: int) -> Examples:
    """Examples of an iterable of `(x, y)`, `(x, y, weight)` or mappings; errors as for `read`."""
    gathered: dict[str, list[Array]] = {}
    taken, batched = 0, _is_loader(source)
    for number, item in enumerate(_items(source)):
        parts = _parts(item, number, how)
        if number == 0 and wanted is not None:
            batched = _is_batch(parts, wanted, batched)
        if gathered and parts.keys() != gathered.keys():
            raise DataError(f"item {number} has {sorted(parts)}, the ones before {sorted(gathered)}")
        for name, value in parts.items():
            gathered.setdefault(name, []).append(value)
            taken += value.nbytes
        if taken > max_bytes:
            raise DataError(f"there are more than {max_bytes} bytes of examples, or no end of them")
    if not gathered:
        raise DataError("the iterable gives no examples")
    found = _joined(gathered, batched)
    if wanted is not None and len(wanted.inputs) == 1 and isinstance(found.x, Mapping) and len(found.x) == 1:
        (x,) = found.x.values()  # whatever the data set calls it
        return replace(found, x=x)
    return found


def _items(source: Any) -> Iterator[Any]:
    """With arrays in place of the framework's tensors, where it offers that itself."""
    if hasattr(source, "as_numpy_iterator"):  # tf.data
        return iter(source.as_numpy_iterator())
    if hasattr(source, "with_format") and hasattr(source, "column_names"):  # datasets
        return iter(source.with_format("numpy"))
    return iter(source)


def _is_loader(source: Any) -> bool:
    """A torch DataLoader that makes batches."""
    return hasattr(source, "dataset") and getattr(source, "batch_size", None) is not None


def _parts(item: Any, number: int, how: DataOptions) -> Parts:
    """An item by name: inputs, `y` or `y/<output>`, `weight`."""
    if isinstance(item, Mapping):
        named = dict(item)
    elif isinstance(item, tuple | list) and len(item) in (2, 3):
        named = {**_spread(item[0], "x", ""), **_spread(item[1], "y", "y/")}
        if len(item) == 3:
            named["weight"] = item[2]
    else:
        kind = type(item).__name__
        raise DataError(f"item {number} is {kind}, expected (x, y), (x, y, weight) or arrays by name")
    if how.columns is not None and ";" not in how.columns and "=" not in how.columns:
        wanted = [name.strip() for name in how.columns.split(",")]
        kept = {*wanted, how.label_column, *LABELS}
        named = {name: value for name, value in named.items() if name in kept}
    label = how.label_column or next((n for n in LABELS if n in named), None)
    if label in named:
        named["y"] = named.pop(label)
    return {name: _array(value, number, name) for name, value in named.items()}


def _spread(value: Any, alone: str, prefix: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {f"{prefix}{name.removeprefix(prefix)}": each for name, each in value.items()}
    return {alone: value}


def _array(value: Any, number: int, name: str) -> Array:
    """An array of numbers: also of a tensor that still belongs to a graph, or of an image."""
    for method in ("detach", "cpu"):
        value = getattr(value, method)() if hasattr(value, method) else value
    made = np.asarray(value)
    if made.dtype.kind not in "fiub":
        raise DataError(f"item {number}, {name!r}: {made.dtype} values are no numbers")
    return made


def _is_batch(parts: Parts, wanted: Wanted, guess: bool) -> bool:
    """Whether items hold several examples, by the axes of an input or label the model knows."""
    specs = {spec.name: spec for spec in (*wanted.inputs, *(head.label for head in wanted.heads))}
    if len(wanted.inputs) == 1:
        specs["x"] = wanted.inputs[0]
    for name, value in parts.items():
        if name in specs:
            axes = len(specs[name].shape)
            if value.ndim == axes:
                return True
            if value.ndim == axes - 1:
                return False
            raise DataShape(
                f"item 0, {name!r} has {value.ndim} axes; the model wants {axes - 1} for one example"
            )
    return guess


def _joined(gathered: Mapping[str, list[Array]], batched: bool) -> Examples:

    try:
        join = np.concatenate if batched else np.stack
        return named_examples(
            {name: join(values) for name, values in gathered.items()}, "the source", labelled=False
        )
    except ValueError as exc:
        raise DataShape(f"the examples have different shapes: {exc}") from exc
