# SPDX-License-Identifier: Apache-2.0
"""The table of operations, and how one of them is called.

An operation is a function whose keyword parameters are the inputs of the MIL documentation, with the
documented defaults. Arrays come in as they are stored, but float16 as float32: a result is rounded to float16
once, as it is stored.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import Refused, Unsupported

Function = Callable[..., Any]


@dataclass(frozen=True)
class Operation:
    """How one operation is done.

    Attributes:
        function: computes the outputs.
        constant: inputs that must be known when the program is compiled.
        same: inputs that must share one data type.
        own_type: the function chooses the output's data type itself (casts and their like).
        opset: the function wants the number of the opset, 5 for iOS 15.
    """

    function: Function
    constant: frozenset[str]
    same: tuple[str, ...]
    own_type: bool
    opset: bool

    def __call__(self, name: str, inputs: Mapping[str, Any], opset: int) -> tuple[Any, ...]:
        known = inspect.signature(self.function).parameters
        if extra := [key for key in inputs if key not in known]:
            raise Unsupported(f"operation {name} has no input {', '.join(extra)}; it has {', '.join(known)}")
        if missing := [
            k for k, p in known.items() if p.default is p.empty and k not in inputs and k != "opset"
        ]:
            raise Refused(f"operation {name} needs the input {', '.join(missing)}")
        self._same_types(name, inputs)
        half = any(_is_half(value) for value in inputs.values())
        given = {key: _wide(value) for key, value in inputs.items()}
        if self.opset:
            given["opset"] = opset
        with np.errstate(all="ignore"):
            result = self.function(**given)
            outputs = result if isinstance(result, tuple) else (result,)
            return outputs if self.own_type else tuple(_narrow(value, half) for value in outputs)

    def _same_types(self, name: str, inputs: Mapping[str, Any]) -> None:
        arrays = [a for key in self.same if key in inputs for a in _leaves(inputs[key])]
        if len({a.dtype for a in arrays}) > 1:
            raise Refused(f"operation {name}: {', '.join(self.same)} must share a type")


OPERATIONS: dict[str, Operation] = {}


def op(
    name: str, constant: str = "", same: str = "x y", own_type: bool = False, opset: bool = False
) -> Callable[[Function], Function]:
    """Register an operation; names of inputs are separated by spaces."""

    def register(function: Function) -> Function:
        OPERATIONS[name] = Operation(
            function, frozenset(constant.split()), tuple(same.split()), own_type, opset
        )
        return function

    return register


def ints(values: Any) -> list[int]:
    return [int(v) for v in np.asarray(values).reshape(-1)]


def _leaves(value: Any) -> list[Array]:
    if isinstance(value, list):
        return [a for item in value for a in _leaves(item)]
    return [value] if isinstance(value, np.ndarray) else []


def _is_half(value: Any) -> bool:
    return any(a.dtype == np.float16 for a in _leaves(value))


def _wide(value: Any) -> Any:
    if isinstance(value, list):
        return [_wide(item) for item in value]
    return value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype == np.float16 else value


def _narrow(value: Array, half: bool) -> Array:
    value = np.asarray(value)
    if value.dtype.kind != "f":
        return value
    return value.astype(np.float16 if half else np.float32, copy=False)
