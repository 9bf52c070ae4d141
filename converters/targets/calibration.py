# SPDX-License-Identifier: Apache-2.0
"""Examples from which a quantizer learns the ranges of activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgefl.bundle import TensorSpec
from edgefl.data import Inputs, check_inputs
from edgefl.errors import CalibrationError, DataError
from edgefl.graph import Array

Calibration = Inputs | Iterator[Inputs]
"""Examples along the first dimension, or a generator of batches of them."""

MIN_EXAMPLES = 16
MAX_EXAMPLES = 1024  # spread over the data; ranges hardly change beyond, and engines run them one by one


def gather(examples: Calibration) -> Inputs:
    """Calibration examples as arrays; of batches made one by one, as many as are used."""
    return _merged(_taken(examples)) if isinstance(examples, Iterator) else examples


def _taken(batches: Iterator[Inputs]) -> list[Inputs]:
    taken: list[Inputs] = []
    count = 0
    for batch in batches:
        taken.append(batch)
        count += len(next(iter(batch.values()))) if isinstance(batch, Mapping) else len(batch)
        if count >= MAX_EXAMPLES:
            break
    if not taken:
        raise CalibrationError(f"the calibration generator gave no batch; {MIN_EXAMPLES} examples are needed")
    return taken


def _merged(batches: list[Inputs]) -> Inputs:
    try:
        if isinstance(batches[0], Mapping):
            return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        whole: Array = np.concatenate([np.asarray(batch) for batch in batches])
        return whole
    except (ValueError, KeyError, IndexError, TypeError) as exc:
        raise CalibrationError(f"calibration batches do not fit together: {exc}") from exc


def check_calibration(x: Calibration, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Calibration inputs by name, checked, in the graph's dtypes, thinned evenly to MAX_EXAMPLES.

    Raises:
        CalibrationError: wrong shapes or dtypes, NaN or infinity, fewer than MIN_EXAMPLES examples, or
            examples that are all the same.
    """
    try:
        inputs = check_inputs(gather(x), specs)
    except DataError as exc:
        raise CalibrationError(f"calibration examples do not fit the model: {exc}") from exc
    count = len(next(iter(inputs.values())))
    if count < MIN_EXAMPLES:
        raise CalibrationError(f"{count} calibration examples; at least {MIN_EXAMPLES} are needed")
    if all(bool((value == value[:1]).all()) for value in inputs.values()):
        raise CalibrationError(f"the {count} calibration examples are all the same; give varied ones")
    return thinned(inputs, MAX_EXAMPLES)


def thinned(inputs: Mapping[str, Array], limit: int) -> dict[str, Array]:
    """At most `limit` examples, evenly spread."""
    count = len(next(iter(inputs.values())))
    if count <= limit:
        return dict(inputs)
    chosen = np.linspace(0, count - 1, limit).astype(np.int64)
    return {name: value[chosen] for name, value in inputs.items()}


def batches(inputs: Mapping[str, Array], size: int) -> list[dict[str, Array]]:
    """The examples in batches of one size; the last is filled up with examples from the start."""
    count = len(next(iter(inputs.values())))
    starts = range(0, count, size)
    return [{n: v[np.arange(s, s + size) % count] for n, v in inputs.items()} for s in starts]
