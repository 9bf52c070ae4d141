# SPDX-License-Identifier: Apache-2.0
"""The Python side of android_bridge/host: what its Java doubles ask of the machine that runs them."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np

_KINDS = ("float32", "int32", "uint8", "int64", "bool", "int8")
_LITE = {name: name.upper() for name in _KINDS}
_ORT = {**_LITE, "float32": "FLOAT"}
_NAMES = {"tensor(float)": "float32", "tensor(int32)": "int32", "tensor(int64)": "int64"}
"""onnxruntime's names of types."""


class TfliteModel:
    """A TFLite file on the host's LiteRT."""

    types = _LITE

    def __init__(self, path: str) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=path, num_threads=1)
        self._interpreter.allocate_tensors()
        self._listed = self._interpreter.get_signature_list()
        self._runners = {key: self._interpreter.get_signature_runner(key) for key in self._listed}
        self._made: dict[str, Any] = {}

    def signatures(self) -> list[str]:
        return list(self._listed)

    def names(self, signature: str, side: int) -> list[str]:
        return list(self._listed[signature]["outputs" if side else "inputs"])

    def output(self, signature: str, name: str) -> tuple[str, tuple[int, ...]]:
        details = self._runners[signature].get_output_details()[name]
        return np.dtype(details["dtype"]).name, tuple(int(n) for n in details["shape"])

    def run(self, signature: str, contents: dict[str, bytes]) -> dict[str, Any]:
        details = self._runners[signature].get_input_details()
        feeds = {
            name: np.frombuffer(data, details[name]["dtype"]).reshape(details[name]["shape"])
            for name, data in contents.items()
        }
        return dict(self._runners[signature](**feeds))


class OnnxModel:
    """An ONNX file on the host's onnxruntime."""

    types = _ORT

    def __init__(self, path: str) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def signatures(self) -> list[str]:
        return []

    def names(self, signature: str, side: int) -> list[str]:
        found = self._session.get_outputs() if side else self._session.get_inputs()
        return [one.name for one in found]

    def output(self, signature: str, name: str) -> tuple[str, tuple[int, ...]]:
        row = next(one for one in self._session.get_outputs() if one.name == name)
        return _NAMES[row.type], tuple(row.shape)

    def run(self, signature: str, contents: dict[str, bytes]) -> dict[str, Any]:
        feeds = {
            row.name: np.frombuffer(contents[row.name], _NAMES[row.type]).reshape(row.shape)
            for row in self._session.get_inputs()
        }
        names = self.names(signature, 1)
        return dict(zip(names, self._session.run(names, feeds), strict=True))


class Host:
    """Implements dev.edgefl.host.Host; `jpype` is handed in so that this file imports without it."""

    def __init__(self, jpype: Any) -> None:
        self._jpype = jpype
        self._models: dict[int, Any] = {}
        self._next = itertools.count(1)
        self.open_models = self._models
        self.errors: list[BaseException] = []

    def call(self, module: Any, function: Any, arguments: Any) -> Any:
        """A Python function with Java's arguments, as Chaquopy converts them."""
        try:
            made = getattr(importlib.import_module(str(module)), str(function))(
                *map(self._to_python, arguments)
            )
        except Exception as exc:  # crosses Java, and must come out as a PyException there
            self.errors.append(exc)
            return self._jpype.JArray(self._jpype.JString)([f"{type(exc).__name__}: {exc}"])
        return self._to_java(made)

    def load(self, engine: Any, path: Any) -> int:
        model = {"tflite": TfliteModel, "onnx": OnnxModel}[str(engine)]
        handle = next(self._next)
        self._models[handle] = self._guard(lambda: model(str(path)))
        return handle

    def unload(self, model: Any) -> None:
        del self._models[int(model)]

    def version(self, engine: Any) -> str:
        package = {"tflite": "ai_edge_litert", "onnx": "onnxruntime"}[str(engine)]
        return str(importlib.import_module(package).__version__)

    def signatures(self, model: Any) -> Any:
        return self._strings(self._models[int(model)].signatures())

    def names(self, model: Any, signature: Any, side: Any) -> Any:
        return self._strings(self._models[int(model)].names(str(signature), int(side)))

    def output(self, model: Any, signature: Any, name: Any) -> Any:
        found = self._models[int(model)]
        dtype, shape = found.output(str(signature), str(name))
        size = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
        return self._strings([found.types[dtype], str(size), *map(str, shape)])

    def run(self, model: Any, signature: Any, inputs: Any, contents: Any, outputs: Any) -> Any:
        feeds = {str(name): bytes(data) for name, data in zip(inputs, contents, strict=True)}
        made = self._guard(lambda: self._models[int(model)].run(str(signature), feeds))
        rows = [np.ascontiguousarray(made[str(name)]).tobytes() for name in outputs]
        return self._jpype.JArray(self._jpype.JArray(self._jpype.JByte))([self._bytes(row) for row in rows])

    def _guard(self, call: Any) -> Any:
        try:
            return call()
        except Exception as exc:  # LiteRT's Java throws IllegalArgumentException where a file is bad
            raise self._jpype.JClass("java.lang.IllegalArgumentException")(str(exc)) from exc

    def _to_python(self, value: Any) -> Any:
        if isinstance(value, self._jpype.JString):
            return str(value)
        if isinstance(value, self._jpype.JArray(self._jpype.JByte)):
            return bytes(value)
        return value

    def _to_java(self, value: Any) -> Any:
        if isinstance(value, bytes):
            return self._bytes(value)
        if isinstance(value, bool):
            return self._jpype.JClass("java.lang.Boolean")(value)
        if isinstance(value, int):
            return self._jpype.JClass("java.lang.Integer")(value)
        return value

    def _bytes(self, value: bytes) -> Any:
        return self._jpype.JArray(self._jpype.JByte)(np.frombuffer(value, np.int8))

    def _strings(self, values: list[str]) -> Any:
        return self._jpype.JArray(self._jpype.JString)(values)


def started(jpype: Any) -> Host:
    """What the doubles ask for, in place on a running JVM, and Python as Chaquopy starts it."""
    made = Host(jpype)
    proxy = jpype.JProxy("dev.edgefl.host.Host", inst=made)
    jpype.JClass("dev.edgefl.host.Host$Here").set(proxy)
    python = jpype.JClass("com.chaquo.python.Python")
    if not python.isStarted():
        context = jpype.JClass("dev.edgefl.test.TestContext")("/tmp")
        python.start(jpype.JClass("com.chaquo.python.android.AndroidPlatform")(context))
    return made


def sources(folder: Path) -> list[str]:
    """Java files below a folder."""
    return [str(path) for path in sorted(folder.rglob("*.java"))]
