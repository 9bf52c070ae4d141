# SPDX-License-Identifier: Apache-2.0
"""Reading a node's inputs and attributes inside kernels, with the errors a wrong node deserves."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from edgefl.graph.kernels.registry import Attributes, Inputs
from edgefl.graph.model import Array


def optional(inputs: Inputs, i: int) -> Array | None:
    """Input i, or None when it is omitted."""
    return inputs[i] if i < len(inputs) else None


def required(inputs: Inputs, i: int = 0) -> Array:
    """Input i; raises ValueError when it is omitted."""
    value = optional(inputs, i)
    if value is None:
        raise ValueError(f"input {i} is required")
    return value


def present(inputs: Inputs) -> list[Array]:
    """The inputs, none of which may be omitted."""
    return [required(inputs, i) for i in range(len(inputs))]


def same_dtype(*arrays: Array | None) -> np.dtype[Any]:
    """The one dtype of the arrays given; raises TypeError when they differ, since ONNX never promotes."""
    dtypes = {array.dtype for array in arrays if array is not None}
    if len(dtypes) != 1:
        raise TypeError(f"inputs must share one dtype, given {', '.join(sorted(map(str, dtypes)))}")
    return dtypes.pop()


def integer(attributes: Attributes, name: str, default: int) -> int:
    value = attributes.get(name, default)
    if not isinstance(value, (int, np.integer)):
        raise TypeError(f"attribute {name!r} must be an integer, given {value!r}")
    return int(value)


def real(attributes: Attributes, name: str, default: float) -> float:
    value = attributes.get(name, default)
    if not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"attribute {name!r} must be a number, given {value!r}")
    return float(value)


def text(attributes: Attributes, name: str, default: str) -> str:
    value = attributes.get(name, default)
    if not isinstance(value, str):
        raise TypeError(f"attribute {name!r} must be a string, given {value!r}")
    return value


def integers(attributes: Attributes, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    value = attributes.get(name)
    if value is None:
        return default
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"attribute {name!r} must be integers, given {value!r}")
    return tuple(int(cast(int, n)) for n in value)


def ints_of(array: Array) -> tuple[int, ...]:
    """The elements of an integer tensor (a shape, axes, pads)."""
    if array.dtype.kind not in "iu":
        raise TypeError(f"expected an integer tensor, given {array.dtype}")
    return tuple(int(n) for n in array.reshape(-1))


def axis_of(axis: int, rank: int) -> int:
    """A possibly negative axis as one in [0, rank); raises ValueError when out of range."""
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is out of range for rank {rank}")
    return axis % rank if rank else 0


def axes_of(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Possibly negative axes as distinct ones in [0, rank)."""
    found = tuple(axis_of(axis, rank) for axis in axes)
    if len(set(found)) != len(found):
        raise ValueError(f"axes {axes} repeat for rank {rank}")
    return found
