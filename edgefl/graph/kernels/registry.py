# SPDX-License-Identifier: Apache-2.0
"""Where kernels register."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from edgefl.graph.model import Array, Attribute

Inputs = Sequence["Array | None"]
Attributes = Mapping[str, Attribute]
Outputs = tuple[Array, ...]

Kernel = Callable[[Inputs, Attributes], Outputs]
"""`(inputs, attributes) -> outputs`; an omitted optional input is None, trailing ones may be absent."""

KERNELS: dict[str, Kernel] = {}

FULL_KERNELS: dict[str, Kernel] = {}
"""Kernels that also make costly optional outputs; used where a node asks for more than the first output."""

ELEMENTWISE: set[str] = set()
"""Operators whose output has the broadcast shape of the inputs, each element made from its counterparts."""

BATCHWISE: set[str] = set()
"""Operators that treat each element of their first input's first axis alone, as that axis of every output."""

_K = TypeVar("_K", bound=Kernel)


def kernel(
    *operators: str, full: bool = False, elementwise: bool = False, batchwise: bool = False
) -> Callable[[_K], _K]:
    """Register a function as the kernel of the named operators."""

    def register(function: _K) -> _K:
        (FULL_KERNELS if full else KERNELS).update(dict.fromkeys(operators, function))
        ELEMENTWISE.update(operators if elementwise else ())
        BATCHWISE.update(operators if batchwise else ())
        return function

    return register
