# SPDX-License-Identifier: Apache-2.0
"""ONNX files against onnxruntime, and telling models apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from edgefl.converters.sources import Forward, load_forward
from edgefl.errors import SourceError, UnsupportedOperator
from tests.converters.source_oracle import close, outputs, random_data

FACTORY = """
import torch

def model():
    return torch.nn.Sequential(torch.nn.Linear(3, 2))

def with_example():
    return model(), torch.zeros(1, 3)

def broken():
    return 1 / 0
"""


def network(opset: int = 18, batch: str = "N") -> Any:
    """Convolution, BatchNorm and a product, as an exporter writes them."""
    rng = np.random.default_rng(0)
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}], producer_name: "tests", producer_version: "1">
        m (float[{batch},2,6,6] image) => (float[{batch},3] scores)
        <float[1] half = {{0.5}}>
        {{
            c = Conv<pads: ints = [1,1,1,1]>(image, kernel, bias)
            b = BatchNormalization(c, scale, offset, mean, variance)
            r = Relu(b)
            p = GlobalAveragePool(r)
            f = Flatten(p)
            g = Gemm<transB: int = 1>(f, w, v)
            scores = Mul(g, half)
        }}"""
    )
    shapes = {"kernel": (4, 2, 3, 3), "bias": (4,), "w": (3, 4), "v": (3,)}
    shapes |= dict.fromkeys(("scale", "offset", "mean", "variance"), (4,))
    for name, shape in shapes.items():
        value = rng.uniform(0.1, 0.6, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model


def check(model: Any, forward: Forward) -> None:
    engine = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    data = random_data(forward)
    expected = engine.run(None, {i.name: v for i, v in zip(engine.get_inputs(), data.values(), strict=True)})
    _, made = outputs(forward, data)
    for got, want in zip(made, expected, strict=True):
        close(got, want)


def test_initializers_become_parameters_and_the_batch_is_fixed() -> None:
    model = network()

    forward = load_forward(model.SerializeToString(), batch_size=5)

    assert forward.graph.inputs["x"].shape == (5, 2, 6, 6)
    assert list(forward.parameters) == ["kernel", "bias", "w", "v", "scale", "offset", "mean", "variance"]
    assert forward.buffers == {"mean", "variance"}
    assert forward.trainable == set(forward.parameters) - forward.buffers
    assert forward.provenance["framework"] == "tests 1"
    check(model, forward)


@pytest.mark.parametrize("opset", [13, 17, 20])
def test_other_opsets_are_converted(opset: int) -> None:
    model = network(opset)

    check(model, load_forward(model, batch_size=2))


def test_an_onnx_file(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "model.onnx")

    forward = load_forward(tmp_path / "model.onnx", batch_size=2)

    assert forward.provenance["model"] == "model.onnx"


def test_open_axes_take_the_sizes_of_the_example() -> None:
    source = '<ir_version: 8, opset_import: ["" : 18]> m (float[N,T,2] a, float[N,2] b) => (float[N,T,2] y)'
    model = parser.parse_model(source + "<int64[1] one = {1}> { c = Unsqueeze(b, one) y = Add(a, c) }")

    forward = load_forward(model, (np.zeros((1, 7, 2)), np.zeros((1, 2))), batch_size=3)

    assert forward.graph.inputs["a"].shape == (3, 7, 2)
    assert forward.inputs == ("a", "b")
    check(model, forward)


def test_an_open_axis_without_an_example_is_named() -> None:
    source = '<ir_version: 8, opset_import: ["" : 18]> m (float[N,T] a) => (float[N,T] y) { y = Relu(a) }'

    with pytest.raises(SourceError, match=r"'a' leaves axis 1 \('T'\) open"):
        load_forward(parser.parse_model(source), batch_size=3)


def test_another_fixed_batch_is_refused() -> None:
    with pytest.raises(SourceError, match="1 fixed on axis 0 but batch_size says 4"):
        load_forward(network(batch="1"), batch_size=4)


def test_control_flow_is_refused_by_name() -> None:
    source = """<ir_version: 8, opset_import: ["" : 18]> m (float[N] a, bool c) => (float[N] y)
    {
        y = If(c)<
            then_branch = t () => (float[N] p) { p = Relu(a) },
            else_branch = e () => (float[N] q) { q = Neg(a) }
        >
    }"""

    with pytest.raises(UnsupportedOperator, match="node If 'y': control flow"):
        load_forward(parser.parse_model(source), batch_size=1)


def test_operators_of_other_domains_are_refused_by_name() -> None:
    source = """<ir_version: 8, opset_import: ["" : 18, "acme" : 1]> m (float[N] a) => (float[N] y)
    { y = acme.Magic(a) }"""

    with pytest.raises(UnsupportedOperator, match="node Magic 'y' of the domain 'acme'"):
        load_forward(parser.parse_model(source), batch_size=1)


def test_functions_are_inlined() -> None:
    source = """<ir_version: 8, opset_import: ["" : 18, "own" : 1]> 
    m (float[N,2] a) => (float[N,2] y) { y = own.Twice(a) }
    <domain: "own", opset_import: ["" : 18]> Twice (a) => (b) { b = Add(a, a) }"""
    model = parser.parse_model(source)

    check(model, load_forward(model, batch_size=2))


def test_a_factory(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(FACTORY)

    plain = load_forward(f"{tmp_path}/models.py:model", np.zeros((1, 3)), batch_size=2)
    complete = load_forward(f"{tmp_path}/models.py:with_example", batch_size=2)

    assert list(plain.parameters) == list(complete.parameters) == ["0.weight", "0.bias"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("models.py:broken", "models.py:broken failed: ZeroDivisionError"),
        ("models.py:absent", "models.py has no function 'absent'"),
        ("missing.keras", "there is no file"),
        ("models.py", "is no model file edgefl reads"),
        ("broken.onnx", r"broken\.onnx is no ONNX file"),
        ("broken.pt2", r"broken\.pt2 is no program"),
    ],
)
def test_paths_that_lead_nowhere_say_so(tmp_path: Path, model: str, message: str) -> None:
    (tmp_path / "models.py").write_text(FACTORY)
    for name in ("broken.onnx", "broken.pt2"):
        (tmp_path / name).write_bytes(b"nothing")

    with pytest.raises(SourceError, match=message):
        load_forward(f"{tmp_path}/{model}", batch_size=2)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(SourceError, match="a dict is no model edgefl can read; give a Keras model"):
        load_forward({"w": 1}, np.zeros(1), batch_size=2)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_the_batch_has_at_least_one_example(batch_size: int) -> None:
    with pytest.raises(SourceError, match="must be at least 1"):
        load_forward(network(), batch_size=batch_size)
