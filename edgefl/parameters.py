# SPDX-License-Identifier: Apache-2.0
"""Parameters of a model: their names, shapes and roles, and the flat vector that updates travel in."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from edgefl.errors import DataShape, DataType

Role = Literal["shared", "personal", "frozen", "buffer"]
ROLES: tuple[str, ...] = get_args(Role)

Arrays = Mapping[str, npt.NDArray[Any]]
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Parameter:
    """One named array of a model.

    Attributes:
        name: the source framework's name.
        shape: the source framework's layout.
        dtype: NumPy name, such as `float32`.
        role: `shared` is trained and federated, `personal` is trained and never leaves the device,
            `frozen` is not trained, `buffer` is state such as BatchNorm statistics.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: Role

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def trained(self) -> bool:
        return self.role in ("shared", "personal")


@dataclass(frozen=True)
class Schema:
    """The ordered parameters an update covers, as one flat float32 vector of `size` elements."""

    parameters: tuple[Parameter, ...]

    @staticmethod
    def of_arrays(arrays: Arrays) -> Schema:
        """The schema of a bare dictionary: names in sorted order, all shared."""
        return Schema(
            tuple(
                Parameter(name, tuple(arrays[name].shape), str(arrays[name].dtype), "shared")
                for name in sorted(arrays)
            )
        )

    @cached_property
    def size(self) -> int:
        return sum(p.size for p in self.parameters)

    @cached_property
    def id(self) -> bytes:
        """First 8 bytes of BLAKE2b over the canonical JSON of names, shapes and dtypes in order."""
        rows = [[p.name, list(p.shape), p.dtype] for p in self.parameters]
        text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False)
        return hashlib.blake2b(text.encode()).digest()[:8]

    def ranges(self) -> Iterable[tuple[Parameter, int, int]]:
        """Each parameter with its half-open range in the flat vector."""
        start = 0
        for p in self.parameters:
            yield p, start, start + p.size
            start += p.size

    def flatten(self, arrays: Arrays) -> Vector:
        """Concatenate arrays, each in C order, to float32 of shape `(size,)`.

        Raises:
            DataShape: a name is missing or unknown, or a shape differs.
            DataType: an array is not floating point.
        """
        self._check_names(arrays)
        flat = np.empty(self.size, np.float32)
        for p, start, stop in self.ranges():
            value = arrays[p.name]
            if tuple(value.shape) != p.shape:
                raise DataShape(f"parameter {p.name!r} has shape {tuple(value.shape)}, expected {p.shape}")
            if not np.issubdtype(value.dtype, np.floating):
                raise DataType(f"parameter {p.name!r} has dtype {value.dtype}, expected floating point")
            flat[start:stop] = value.reshape(-1)
        return flat

    def unflatten(self, vector: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Cut a vector of shape `(size,)` into named arrays of the schema's dtypes (copies)."""
        if vector.shape != (self.size,):
            raise DataShape(f"vector has shape {vector.shape}, expected ({self.size},)")
        return {
            p.name: vector[start:stop].astype(p.dtype).reshape(p.shape) for p, start, stop in self.ranges()
        }

    def _check_names(self, arrays: Arrays) -> None:
        names = {p.name for p in self.parameters}
        missing, unknown = sorted(names - set(arrays)), sorted(set(arrays) - names)
        if missing or unknown:
            raise DataShape(f"parameters do not match the schema: missing {missing}, unknown {unknown}")
