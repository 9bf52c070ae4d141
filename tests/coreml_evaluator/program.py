# SPDX-License-Identifier: Apache-2.0
"""Executes a MIL program, operation by operation, and holds every result against the type the file
declares for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.coreml_evaluator import (  # noqa: F401  (each registers its operations)
    compression,
    elementwise,
    indexing,
    linear,
    pooling,
    reduction,
    resizing,
    shaping,
)
from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import MalformedFile, Refused, Unsupported
from tests.coreml_evaluator.registry import OPERATIONS
from tests.coreml_evaluator.values import ReadBlob, Type, constant, tensor_type

MAX_LOOPS = 100_000
MAX_RANK = 5


@dataclass
class State:
    """A value that outlives a prediction."""

    value: Array


@dataclass
class Scope:
    """Values by name, and which of them are known when the program is compiled."""

    values: dict[str, Any] = field(default_factory=dict)
    constant: set[str] = field(default_factory=set)

    def inner(self) -> Scope:
        return Scope(dict(self.values), set(self.constant))


class MilFunction:
    """One function of a program.

    Attributes:
        inputs: types by name; of states, the type that is inside.
        states: which of the inputs are states.
    """

    def __init__(self, message: Any, read_blob: ReadBlob) -> None:
        if message.opset not in message.block_specializations:
            raise MalformedFile(f"no block for opset {message.opset!r}")
        self._block = message.block_specializations[message.opset]
        self._read_blob = read_blob
        self.opset = int(message.opset.removeprefix("CoreML"))
        self.inputs = {i.name: tensor_type(i.type, f"input {i.name}") for i in message.inputs}
        self.states = tuple(i.name for i in message.inputs if i.type.WhichOneof("type") == "stateType")
        self.outputs = tuple(self._block.outputs)

    def operations(self) -> list[str]:
        """The operations' names in order, constants left out, those of inner blocks included."""
        return [kind for kind in _kinds(self._block) if kind != "const"]

    def __call__(self, feeds: Mapping[str, Array | State]) -> dict[str, Array]:
        scope = Scope(dict(feeds))
        return dict(zip(self.outputs, self._run(self._block, scope), strict=True))

    def _run(self, block: Any, scope: Scope) -> list[Any]:
        for operation in block.operations:
            names = [o.name for o in operation.outputs]
            try:
                self._do(operation, scope)
            except (ValueError, IndexError, KeyError, TypeError, OverflowError) as exc:
                raise Refused(
                    f"operation {operation.type} for {', '.join(names)}: {type(exc).__name__}: {exc}"
                ) from exc
            except Refused as exc:
                raise Refused(f"operation {operation.type} for {', '.join(names)}: {exc}") from exc
        return [self._value(name, scope) for name in block.outputs]

    def _do(self, operation: Any, scope: Scope) -> None:
        declared = [tensor_type(o.type, o.name) for o in operation.outputs]
        names = [o.name for o in operation.outputs]
        for name in names:
            if name in scope.values:
                raise MalformedFile(f"two operations write {name}")
        if operation.type == "const":
            scope.values[names[0]] = constant(operation.attributes["val"], self._read_blob, names[0])
            scope.constant.add(names[0])
            _check(names[0], scope.values[names[0]], declared[0])
            return
        for result_type in declared:
            _bounded(result_type, operation.type)
        results, known = self._results(operation, scope)
        for name, value, result_type in zip(names, results, declared, strict=True):
            _check(name, value, result_type)
            scope.values[name] = value
            if known:
                scope.constant.add(name)

    def _results(self, operation: Any, scope: Scope) -> tuple[tuple[Any, ...], bool]:
        inputs, unknown = self._inputs(operation, scope)
        kind = operation.type
        if kind == "read_state":
            return (inputs["input"].value.copy(),), False
        if kind == "write_state":
            state, data = inputs["input"], inputs["data"]
            if state.value.shape != data.shape or state.value.dtype != data.dtype:
                raise Refused(f"a state of {state.value.shape} written with {data.shape}")
            state.value = data.copy()
            return (), False
        if kind == "cond":
            return tuple(self._run(operation.blocks[0 if inputs["pred"] else 1], scope.inner())), False
        if kind == "while_loop":
            return tuple(self._loop(operation, inputs["loop_vars"], scope)), False
        known = OPERATIONS.get(kind)
        if known is None:
            raise Unsupported(f"operation {kind} (for {', '.join(o.name for o in operation.outputs)})")
        must = known.constant | ({"weight"} if kind == "conv" and _dilated(inputs) else set())
        if variable := sorted(must & unknown):
            raise Refused(f"input {', '.join(variable)} must be constant")
        return known(kind, inputs, self.opset), kind.startswith("constexpr_") or not unknown

    def _inputs(self, operation: Any, scope: Scope) -> tuple[dict[str, Any], set[str]]:
        inputs: dict[str, Any] = {}
        unknown: set[str] = set()
        if operation.type.startswith("constexpr_") and not operation.inputs:  # the form of iOS 16
            named = {k: v for k, v in operation.attributes.items() if k != "name"}
            return {k: constant(v, self._read_blob, k) for k, v in named.items()}, unknown
        for key, argument in operation.inputs.items():
            values = [self._binding(b, scope, key) for b in argument.arguments]
            listed = key in ("values", "loop_vars", "ref_tensors", "begins", "ends", "end_masks")
            if not listed and len(values) != 1:
                raise MalformedFile(f"input {key} has {len(values)} values")
            if any(
                b.WhichOneof("binding") == "name" and b.name not in scope.constant for b in argument.arguments
            ):
                unknown.add(key)
            inputs[key] = values if listed else values[0]
        return inputs, unknown

    def _binding(self, binding: Any, scope: Scope, where: str) -> Any:
        if binding.WhichOneof("binding") == "value":
            return constant(binding.value, self._read_blob, where)
        return self._value(binding.name, scope)

    def _value(self, name: str, scope: Scope) -> Any:
        if name not in scope.values:
            raise MalformedFile(f"nothing is called {name} where it is used")
        return scope.values[name]

    def _loop(self, operation: Any, values: list[Any], scope: Scope) -> list[Any]:
        condition, body = operation.blocks
        for _ in range(MAX_LOOPS):
            if not self._run(condition, self._bound(condition, values, scope))[0]:
                return values
            values = self._run(body, self._bound(body, values, scope))
        raise Refused(f"a loop of more than {MAX_LOOPS} rounds")

    def _bound(self, block: Any, values: list[Any], scope: Scope) -> Scope:
        inner = scope.inner()
        inner.values.update({i.name: v for i, v in zip(block.inputs, values, strict=True)})
        return inner


def _check(name: str, value: Any, declared: Type) -> None:
    if isinstance(value, str):
        if declared.name != "STRING":
            raise MalformedFile(f"{name} is a string, declared {declared.name}")
    elif not declared.fits(np.asarray(value)):
        raise MalformedFile(
            f"{name} is declared {declared.name} {declared.shape}, it computes to {value.dtype} {value.shape}"
        )


def _bounded(declared: Type, kind: str) -> None:
    """Core ML takes five dimensions at most, but for constants on their way into a compressed one."""
    if declared.name == "STRING":
        return
    if len(declared.shape) > MAX_RANK and not kind.startswith("constexpr_"):
        raise Refused(f"rank {len(declared.shape)}, Core ML takes {MAX_RANK}")
    _ = declared.size  # refuses what is too large


def _dilated(inputs: Mapping[str, Any]) -> bool:
    return "dilations" in inputs and bool(np.any(inputs["dilations"] != 1))


def _kinds(block: Any) -> list[str]:
    return [k for o in block.operations for k in (o.type, *(k for b in o.blocks for k in _kinds(b)))]
