# SPDX-License-Identifier: Apache-2.0
"""A signature is what the engine says of the file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from keras import layers

import edgefl
from edgefl import Bundle
from edgefl.bundle.signature import signature

FIXTURES = Path(__file__).parents[1] / "fixtures"


def rich() -> Bundle:
    """A frozen part, dropout, statistics that are updated, and two outputs with losses."""
    x = keras.Input((6,), name="x")
    frozen = layers.Dense(8, activation="relu", name="frozen")(x)
    hidden = layers.Dropout(0.2)(layers.BatchNormalization(name="norm")(layers.Dense(5, name="mid")(frozen)))
    outputs = {"kind": layers.Dense(3, name="kind")(hidden), "size": layers.Dense(1, name="size")(hidden)}
    model = keras.Model(x, outputs)
    return edgefl.convert(
        model,
        loss={"kind": "softmax_cross_entropy", "size": "mean_squared_error"},
        trainable=["mid*", "norm*", "kind*", "size*"],
        batch_norm="batch",
        dropout=True,
        batch_size=4,
        targets=("onnx",),
    )


def told(bundle: Bundle) -> dict[str, set[tuple[Any, ...]]]:
    return {
        a.path: {(p.direction, p.own, p.dtype, p.shape) for p in signature(bundle.manifest, a)}
        for a in bundle.manifest.artifacts
        if a.target == "onnx"
    }


def found(data: bytes) -> set[tuple[Any, ...]]:
    graph = onnx.load_model_from_string(data).graph
    ends = [("in", value) for value in graph.input] + [("out", value) for value in graph.output]
    return {
        (
            direction,
            value.name,
            str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
            tuple(d.dim_value for d in value.type.tensor_type.shape.dim),
        )
        for direction, value in ends
    }


@pytest.mark.parametrize("name", ["mlp", "head", "detour", "rich"])
def test_the_onnx_files_take_and_give_what_is_said(name: str) -> None:
    bundle = rich() if name == "rich" else Bundle.open(FIXTURES / f"{name}.edgefl")

    said = told(bundle)

    assert len(said) >= 2
    for artifact in bundle.manifest.artifacts:
        if artifact.target == "onnx":
            assert said[artifact.path] == found(bundle.artifact("onnx", artifact.kind)), artifact.path


@pytest.mark.parametrize("kind", ["step", "infer", "features"])
def test_the_tflite_files_take_and_give_what_is_said(kind: str) -> None:
    from ai_edge_litert.interpreter import Interpreter

    bundle = Bundle.open(FIXTURES / "head.edgefl")
    artifact = bundle.manifest.find("tflite", kind)
    assert artifact is not None
    runner = Interpreter(model_content=bundle.artifact("tflite", kind)).get_signature_runner()

    ports = signature(bundle.manifest, artifact)

    for direction, details in (("in", runner.get_input_details()), ("out", runner.get_output_details())):
        given = {n: (np.dtype(d["dtype"]).name, tuple(d["shape"])) for n, d in details.items()}
        assert given == {p.own: (p.dtype, p.shape) for p in ports if p.direction == direction}
