# SPDX-License-Identifier: Apache-2.0
"""Executes saved Core ML files with NumPy: an oracle for the converter, which it shares no code with.

`evaluate` and `load` run a model on arrays, ML Program or neural network; `train` does what an update
task on a device would do. Everything is read back from disk. What files may say is taken from the
format's documentation; what is not documented there is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import MalformedFile, Unsupported, WrongFeeds
from tests.coreml_evaluator.features import array_feature, to_blob
from tests.coreml_evaluator.network import Network
from tests.coreml_evaluator.package import Package
from tests.coreml_evaluator.program import MilFunction, State
from tests.coreml_evaluator.update import Updated, train

__all__ = ["Model", "State", "Updated", "evaluate", "load", "train"]


class _Layers:
    """A neural network on one example, as a function of features."""

    inputs: Mapping[str, Any] = {}
    states: tuple[str, ...] = ()

    def __init__(self, network: Network, outputs: Mapping[str, tuple[tuple[int, ...], Any]]) -> None:
        self._network, self._outputs = network, outputs

    def operations(self) -> list[str]:
        return self._network.operations()

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        blobs, _ = self._network.forward(
            {n: to_blob(a[None]) for n, a in feeds.items()}, self._network.parameters
        )
        missing = [name for name in self._outputs if name not in blobs]
        if missing:
            raise MalformedFile(f"no layer gives the output {', '.join(missing)}")
        return {
            n: blobs[n].reshape(shape or (-1,)).astype(dtype) for n, (shape, dtype) in self._outputs.items()
        }


class Model:
    """A model read from disk.

    Attributes:
        spec: the Model message, for what a test wants to look at.
        inputs, outputs: arrays' shapes and dtypes by feature name, as the model's description has them.
    """

    def __init__(self, path: str | Path, function: str | None = None) -> None:
        self._package = Package(path)
        self.spec = self._package.spec
        kind = self.spec.WhichOneof("Type")
        description = self._description(function)
        self.inputs = {f.name: array_feature(f) for f in description.input}
        self.outputs = {f.name: array_feature(f) for f in description.output}
        self._function: MilFunction | _Layers
        if kind == "mlProgram":
            self._function = self._mil(function or self.spec.description.defaultFunctionName or "main")
        elif kind == "neuralNetwork":
            self._function = _Layers(Network(self.spec.neuralNetwork), self.outputs)
        else:
            raise Unsupported(f"{path}: a model of type {kind}")

    def operations(self) -> list[str]:
        """What is executed, in order, by the operations' names."""
        return self._function.operations()

    def new_states(self) -> dict[str, State]:
        """Zeros for each state, as Core ML begins with."""
        types = self._function.inputs
        return {
            n: State(np.zeros([s or 0 for s in types[n].shape], types[n].dtype))
            for n in self._function.states
        }

    def __call__(
        self, feeds: Mapping[str, Array], states: Mapping[str, State] | None = None
    ) -> dict[str, Array]:
        """Outputs by name for inputs by name, of exactly the described shapes and dtypes.

        `states` are changed in place; without them every call begins with zeros.
        """
        if set(feeds) != set(self.inputs):
            raise WrongFeeds(f"given {sorted(feeds)}, the model's inputs are {sorted(self.inputs)}")
        for name, (shape, dtype) in self.inputs.items():
            if feeds[name].shape != shape or feeds[name].dtype != dtype:
                raise WrongFeeds(
                    f"input {name} is {feeds[name].dtype} {feeds[name].shape}, asked {dtype} {shape}"
                )
        values = self._function({**feeds, **(self.new_states() if states is None else states)})
        return {name: self._described(name, values) for name in self.outputs}

    def _described(self, name: str, values: Mapping[str, Array]) -> Array:
        if name not in values:
            raise MalformedFile(f"the program has no output {name}; it has {', '.join(values)}")
        shape, dtype = self.outputs[name]
        value = values[name]
        if value.dtype != dtype or (shape and value.shape != shape):
            raise MalformedFile(
                f"output {name} is described {dtype} {shape}, it is {value.dtype} {value.shape}"
            )
        return value

    def _description(self, function: str | None) -> Any:
        description = self.spec.description
        if not description.functions:
            return description
        wanted = function or description.defaultFunctionName
        found = [f for f in description.functions if f.name == wanted]
        if not found:
            raise WrongFeeds(
                f"no function {wanted!r}; the model has {[f.name for f in description.functions]}"
            )
        return found[0]

    def _mil(self, name: str) -> MilFunction:
        program = self.spec.mlProgram
        if name not in program.functions:
            raise MalformedFile(f"the program has no function {name!r}")
        function = MilFunction(program.functions[name], self._package.blob)
        arguments = {n: t for n, t in function.inputs.items() if n not in function.states}
        if set(arguments) != set(self.inputs):
            raise MalformedFile(f"described inputs {sorted(self.inputs)}, the program's {sorted(arguments)}")
        for feature, (shape, dtype) in self.inputs.items():
            if arguments[feature].dtype != dtype or arguments[feature].shape != shape:
                raise MalformedFile(
                    f"input {feature} is described {dtype} {shape}, the program has {arguments[feature]}"
                )
        return function


def load(path: str | Path, function: str | None = None) -> Model:
    """Read a saved model; raises EvaluatorError where the file is wrong or beyond the evaluator."""
    return Model(path, function)


def evaluate(path: str | Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run a saved model once."""
    return Model(path)(feeds)
