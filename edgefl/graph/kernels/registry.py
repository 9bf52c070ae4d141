# SPDX-License-Identifier: Apache-2.0
"""Where kernels register."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from edgefl.graph.model import Array, Attribute

Kernel = Callable[[Sequence["Array | None"], Mapping[str, Attribute]], tuple[Array, ...]]
"""`(inputs, attributes) -> outputs`; an omitted optional input is None, trailing ones may be absent."""

KERNELS: dict[str, Kernel] = {}

_K = TypeVar("_K", bound=Kernel)


def kernel(*operators: str) -> Callable[[_K], _K]:
    """Register a function as the kernel of the named operators."""

    def register(function: _K) -> _K:
        for operator in operators:
            KERNELS[operator] = function
        return function

    return register
