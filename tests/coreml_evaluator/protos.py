# SPDX-License-Identifier: Apache-2.0
"""The protobuf message classes that coremltools ships, without importing coremltools (and TensorFlow,
torch with it)."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from pathlib import Path
from typing import Any

_ALIAS = "coreml_evaluator_protos"


def messages(module: str) -> Any:
    """One generated module: `Model_pb2`, `MIL_pb2`, `NeuralNetwork_pb2`..."""
    if _ALIAS not in sys.modules:
        package = types.ModuleType(_ALIAS)
        package.__path__ = [str(_folder())]
        sys.modules[_ALIAS] = package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # generated code meets newer protobuf releases
        return importlib.import_module(f"{_ALIAS}.{module}")


def _folder() -> Path:
    spec = importlib.util.find_spec("coremltools")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "the Core ML evaluator reads message classes from coremltools: pip install coremltools"
        )
    return Path(spec.submodule_search_locations[0]) / "proto"
