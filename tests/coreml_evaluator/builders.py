# SPDX-License-Identifier: Apache-2.0
"""Saves small MIL programs with coremltools, for the evaluator's own tests."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.coreml_evaluator.blobs import Array


def coremltools() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools as ct
    return ct


def save_program(
    folder: Path,
    inputs: Mapping[str, Array],
    build: Callable[..., Any],
    *,
    target: str = "iOS17",
    half: bool = False,
) -> Path:
    """Build a program over inputs of the arrays' types by `build(mb, **inputs)`, convert and save it."""
    ct = coremltools()
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program

    opset = getattr(ct.target, target)
    program = Program()
    specs = {n: mb.placeholder(shape=a.shape, dtype=_mil(a.dtype)) for n, a in inputs.items()}
    with Function(specs, opset_version=opset) as function:
        made = build(mb, **function.inputs)
        function.set_outputs(list(made) if isinstance(made, (list, tuple)) else [made])
    program.add_function("main", function)
    path = folder / "model.mlpackage"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ct.convert(
            program,
            minimum_deployment_target=opset,
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY if not half else None,
            skip_model_load=True,
        )
        model.save(str(path))
    return path


def _mil(dtype: np.dtype[Any]) -> Any:
    from coremltools.converters.mil.mil import types

    return {"float32": types.fp32, "float16": types.fp16, "int32": types.int32}[str(dtype)]
