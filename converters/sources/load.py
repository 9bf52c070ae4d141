# SPDX-License-Identifier: Apache-2.0
"""Telling models apart without importing any framework."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgefl.converters.sources.forward import Forward
from edgefl.errors import EdgeflError, SourceError

_KINDS = "a Keras model, a PyTorch module, ONNX bytes, or a path: .keras, .pt2, .onnx or module.py:factory"


def load_forward(
    model: Any,
    example_inputs: object = None,
    *,
    batch_size: int,
    dropout: bool = False,
    batch_norm: str = "frozen",
) -> Forward:
    """The forward pass of a model with its parameters as inputs, for batches of `batch_size`.

    Args:
        model: a Keras 3 model, a `torch.nn.Module`, an ONNX model (bytes or `onnx.ModelProto`), or the path
            of a `.keras`, `.pt2` or `.onnx` file, or `module.py:factory`, where the factory takes no
            arguments and returns a model or `(model, example_inputs)`.
        example_inputs: an array, a tuple of arrays or a dict of arrays with the batch axis first; only shapes
            and element types matter. None where the model knows them.
        dropout: leave dropout visible in the graph, for `edgefl.converters.training`.
        batch_norm: unless `frozen`, leave the BatchNorm layers visible.

    Raises:
        SourceError: the model cannot be loaded or traced.
        UnsupportedOperator: it has control flow or an operator without ONNX counterpart.
        MissingDependency: the framework's exporter is not installed.
    """
    if batch_size < 1:
        raise SourceError(f"batch_size is {batch_size}; it must be at least 1")
    if isinstance(model, (str, Path)):
        return _from_path(str(model), example_inputs, batch_size, dropout, batch_norm)
    roots = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    if "keras" in roots:
        from edgefl.converters.sources.keras import load_keras

        return load_keras(
            model, example_inputs, batch_size=batch_size, dropout=dropout, show=batch_norm != "frozen"
        )
    if "torch" in roots:
        from edgefl.converters.sources.pytorch import load_pytorch

        return load_pytorch(model, example_inputs, batch_size=batch_size, dropout=dropout)
    if isinstance(model, (bytes, bytearray, memoryview)) or "onnx" in roots:
        from edgefl.converters.sources.onnx_file import load_onnx

        return load_onnx(model, example_inputs, batch_size=batch_size)
    raise SourceError(f"a {type(model).__name__} is no model edgefl can read; give {_KINDS}")


def _from_path(
    model: str, example_inputs: object, batch_size: int, dropout: bool, batch_norm: str
) -> Forward:
    path, _, factory = model.rpartition(":") if ".py:" in model else (model, "", "")
    if not Path(path).exists():
        raise SourceError(f"there is no file {path!r}; give {_KINDS}")
    if factory:
        return _from_factory(Path(path), factory, example_inputs, batch_size, dropout, batch_norm)
    suffix = Path(path).suffix
    if suffix == ".keras":
        from edgefl.converters.sources.keras import load_keras_file

        show = batch_norm != "frozen"
        return load_keras_file(path, example_inputs, batch_size=batch_size, dropout=dropout, show=show)
    if suffix == ".pt2":
        from edgefl.converters.sources.pytorch import load_exported

        return load_exported(path, example_inputs, batch_size=batch_size, dropout=dropout)
    if suffix == ".onnx":
        from edgefl.converters.sources.onnx_file import load_onnx

        return load_onnx(path, example_inputs, batch_size=batch_size, name=Path(path).name)
    raise SourceError(f"{path!r} is no model file edgefl reads; give {_KINDS}")


def _from_factory(
    path: Path, name: str, example_inputs: object, batch_size: int, dropout: bool, batch_norm: str
) -> Forward:
    made = _call(path, name)
    if isinstance(made, tuple) and len(made) == 2:
        made, own = made
        example_inputs = own if example_inputs is None else example_inputs
    if isinstance(made, (str, Path, bytes)):
        raise SourceError(f"{path}:{name} returned a {type(made).__name__}; a factory returns a model")
    return load_forward(made, example_inputs, batch_size=batch_size, dropout=dropout, batch_norm=batch_norm)


def _call(path: Path, name: str) -> Any:
    """What a function in a Python file returns."""
    function = load_attribute(path, name)
    if not callable(function):
        raise SourceError(f"{path}:{name} is a {type(function).__name__}; a factory is a function")
    with _importable(path):
        try:
            return function()
        except EdgeflError:
            raise
        except Exception as exc:
            raise SourceError(f"{path}:{name} failed: {type(exc).__name__}: {exc}") from exc


def load_attribute(path: Path, name: str) -> Any:
    """What a Python file calls `name`; the file is run as a module, its folder importable as for a script.

    Raises:
        SourceError: there is no such file or name, or the file fails.
    """
    if not path.exists():
        raise SourceError(f"there is no file {str(path)!r}")
    spec = importlib.util.spec_from_file_location(f"edgefl_source_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise SourceError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and serialisation look classes up by their module
    with _importable(path):
        try:
            spec.loader.exec_module(module)
        except EdgeflError:
            raise
        except Exception as exc:
            raise SourceError(f"{path} failed: {type(exc).__name__}: {exc}") from exc
    if not hasattr(module, name):
        raise SourceError(f"{path} has no function {name!r}")
    return getattr(module, name)


@contextlib.contextmanager
def _importable(path: Path) -> Iterator[None]:
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
