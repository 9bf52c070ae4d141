# SPDX-License-Identifier: Apache-2.0
"""Examples dealt out to devices."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.data import Examples
from edgefl.errors import DataError, OptionError

Array = npt.NDArray[Any]


def divide(examples: Examples, devices: int, partition: str = "iid", seed: int = 0) -> dict[str, Examples]:
    """Deal examples out to devices, by name.

    Args:
        partition: `iid`, or `dirichlet:ALPHA`: each class is spread over devices by a Dirichlet(ALPHA) draw
            (Hsu et al. 2019, arXiv:1909.06335). Devices left with nothing that counts are dropped.

    Raises:
        OptionError: an unknown partition.
        DataError: more devices than examples, or labels that are no classes for a division by class.
    """
    if not 1 <= devices <= len(examples):
        raise DataError(f"{len(examples)} examples cannot be divided among {devices} devices")
    rng = np.random.default_rng(seed)
    if partition == "iid":
        owners = rng.permutation(np.arange(len(examples)) % devices)
    else:
        owners = _dirichlet(_classes(examples), devices, _alpha(partition), rng)
    counts = np.ones(len(examples)) if examples.weight is None else np.asarray(examples.weight)
    masks = {f"device-{i:04d}": owners == i for i in range(devices)}
    return {name: _take(examples, mask) for name, mask in masks.items() if counts[mask].any()}


def _alpha(partition: str) -> float:
    found = re.fullmatch(r"dirichlet:(\d+(?:\.\d+)?)", partition)
    if not found or float(found[1]) <= 0:
        raise OptionError(
            f"partition {partition!r}: give iid or dirichlet:ALPHA with ALPHA over 0, as in dirichlet:0.3"
        )
    return float(found[1])


def _classes(examples: Examples) -> Array:
    """The one class of every example; of several outputs, the first that has such labels."""
    labels = examples.y if isinstance(examples.y, dict) else {"y": examples.y}
    arrays = [np.asarray(value) for value in labels.values()]
    found = next((a for a in arrays if a.ndim == 1 and a.dtype.kind in "iu"), None)
    if found is None:
        given = ", ".join(
            f"{name} is {a.dtype}{list(a.shape)}" for name, a in zip(labels, arrays, strict=True)
        )
        raise DataError(f"dirichlet needs one class label per example; {given}")
    return found


def _dirichlet(y: Array, devices: int, alpha: float, rng: np.random.Generator) -> Array:
    owners = np.empty(len(y), np.int64)
    for label in np.unique(y):
        where = np.flatnonzero(y == label)
        owners[where] = rng.choice(devices, len(where), p=rng.dirichlet(np.full(devices, alpha)))
    return owners


def _take(examples: Examples, mask: Array) -> Examples:
    weight = None if examples.weight is None else np.asarray(examples.weight)[mask]
    return Examples(_rows(examples.x, mask), _rows(examples.y, mask), weight)


def _rows(arrays: Any, mask: Array) -> Any:
    if isinstance(arrays, dict):
        return {name: np.asarray(value)[mask] for name, value in arrays.items()}
    return np.asarray(arrays)[mask]
