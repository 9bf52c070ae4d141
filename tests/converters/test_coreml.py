# SPDX-License-Identifier: Apache-2.0
"""The Core ML target as a whole: borders, names, reproducible bytes, precision and refusals."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from edgefl.bundle.archive import unpack
from edgefl.converters.autodiff import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.step import make_graphs
from edgefl.converters.targets.coreml import precision, to_coreml
from edgefl.errors import ConversionError, UnsupportedOperator
from edgefl.graph import Graph, Node, TensorType, run
from tests.converters import small_models
from tests.converters.coreml_oracle import difference, execute

pytest.importorskip("coremltools")

F, I64, B = np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.bool_)


def training_step(name: str = "mlp") -> tuple[Graph, dict[str, Any]]:
    """A small model's step and inputs for it."""
    forward = getattr(small_models, name)().forward
    roles = {n: "shared" if n in forward.trainable else "buffer" for n in forward.parameters}
    step = make_graphs(forward, roles, "softmax_cross_entropy").step
    random = np.random.default_rng(0)
    feeds: dict[str, Any] = {}
    for tensor, type in step.inputs.items():
        if tensor in forward.parameters:
            feeds[tensor] = forward.parameters[tensor]
        elif type.dtype == F:
            feeds[tensor] = random.normal(size=type.shape).astype(np.float32)
        else:
            feeds[tensor] = random.integers(0, 4, type.shape).astype(type.dtype)
    feeds["weight"] = np.ones_like(feeds["weight"])
    feeds["weight"][-1] = 0.0
    return step, feeds


@pytest.mark.parametrize("name", ["mlp", "cnn_1d", "cnn_2d"])
def test_a_step_gives_the_reference_loss_and_gradients(name: str) -> None:
    step, feeds = training_step(name)

    found = execute(to_coreml(step, "step"), step, feeds)

    assert max(difference(found, run(step, feeds)).values()) < 1e-5


def test_names_are_safe_and_distinct() -> None:
    builder = GraphBuilder()
    names = ("a/b:0", "a.b:0", "a_b_0", "0", "ä", "mul_0", "fp16")
    for name in names:
        builder.output(f"grad/{name}", builder.add("Neg", builder.input(name, TensorType(F, (2,)))))
    feeds = {name: np.full(2, i, np.float32) for i, name in enumerate(names)}
    graph = builder.build()

    model = to_coreml(graph, "step")

    own = [*model.inputs.values(), *model.outputs.values()]
    assert len(set(own)) == 2 * len(names)
    assert all(name.isascii() and name.isidentifier() for name in own)
    found = execute(model, graph, feeds)
    assert {n: v.tolist() for n, v in found.items()} == {f"grad/{n}": [-i, -i] for i, n in enumerate(names)}


def test_outputs_may_be_inputs_constants_or_one_another() -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType(F, (2, 3)))
    builder.input("unused", TensorType(F, (4,)))
    doubled = builder.add("Add", x, x)
    ones = builder.constant(np.ones(2, np.float32))
    for name, tensor in (("x_again", x), ("b", doubled), ("c", doubled), ("d", ones)):
        builder.output(name, tensor)
    graph = builder.build()
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "unused": np.zeros(4, np.float32)}

    found = execute(to_coreml(graph, "infer"), graph, feeds)

    for name, value in run(graph, feeds).items():
        np.testing.assert_array_equal(found[name], value)


def test_what_core_ml_cannot_take_crosses_the_border_as_something_it_can() -> None:
    builder = GraphBuilder()
    scalar = builder.input("scalar", TensorType(F, ()))
    long = builder.input("long", TensorType(I64, (3,)))
    truth = builder.input("truth", TensorType(B, (2,)))
    deep = builder.input("deep", TensorType(F, (1, 2, 1, 2, 3, 2)))
    builder.output("loss", builder.add("Neg", scalar))
    builder.output("next", builder.add("Add", long, builder.constant(np.int64(1))))
    builder.output("false", builder.add("Not", truth))
    builder.output("turned", builder.add("Transpose", deep, perm=(5, 3, 1, 0, 2, 4)))
    graph = builder.build()
    feeds = {
        "scalar": np.float32(3),
        "long": np.array([4, -1, 2]),
        "truth": np.array([True, False]),
        "deep": np.arange(24, dtype=np.float32).reshape(1, 2, 1, 2, 3, 2),
    }

    found = execute(to_coreml(graph, "infer"), graph, feeds)

    for name, value in run(graph, feeds).items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_tensors_of_many_axes_are_computed_on_five() -> None:
    builder = GraphBuilder()
    shape = (2, 3, 2, 2, 3, 2)
    x = Expr(builder, builder.input("x", TensorType(F, shape)))
    other = Expr(builder, builder.input("other", TensorType(F, (2, 1, 2, 1, 3, 1))))
    builder.output("product", (x * other).name)
    builder.output("sum", (x * other).sum([1, 3, 5]).name)
    builder.output("cut", x.slice(1, 1, 3).slice(4, 0, 2).name)
    builder.output("joined", x.apply("Concat", x, axis=3).name)
    builder.output("turned", x.transpose(5, 0, 4, 1, 3, 2).name)
    builder.output("soft", x.apply("Softmax", axis=2).name)
    graph = builder.build()
    random = np.random.default_rng(0)
    feeds = {n: random.normal(size=t.shape).astype(np.float32) for n, t in graph.inputs.items()}

    found = execute(to_coreml(graph, "infer"), graph, feeds)

    for name, value in run(graph, feeds).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def test_equal_graphs_give_equal_bytes_in_any_process() -> None:
    step, _ = training_step()
    script = (
        "import hashlib; from tests.converters.test_coreml import training_step;"
        "from edgefl.converters.targets.coreml import to_coreml;"
        "print(hashlib.sha256(to_coreml(training_step()[0], 'step').data).hexdigest())"
    )

    other = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
    )

    assert other.stdout.split() == [hashlib.sha256(to_coreml(step, "step").data).hexdigest()]


def test_a_package_holds_nothing_about_the_machine_that_made_it() -> None:
    step, _ = training_step()

    files = unpack(to_coreml(step, "step").data)

    assert sorted(files) == [
        "step.mlpackage/Data/com.apple.CoreML/model.mlmodel",
        "step.mlpackage/Manifest.json",
    ]
    spec = bytes(files["step.mlpackage/Data/com.apple.CoreML/model.mlmodel"])
    assert b"coremltools" not in spec


def test_conversion_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    step, _ = training_step()

    to_coreml(step, "step")

    assert capfd.readouterr() == ("", "")


def test_a_newer_system_may_be_asked_for() -> None:
    step, feeds = training_step()

    model = to_coreml(step, "step", target="iOS18")

    assert model.target == "iOS18"
    assert max(difference(execute(model, step, feeds), run(step, feeds)).values()) < 1e-5


def test_an_unknown_system_is_refused() -> None:
    with pytest.raises(ConversionError, match="iOS16, iOS17, iOS18"):
        to_coreml(training_step()[0], "step", target="iOS9")


def test_an_operator_without_counterpart_is_refused_by_name() -> None:
    types = {"x": TensorType(F, (3,)), "y": TensorType(F, (3,))}
    node = Node("Mish", ("x",), ("y",), {}, "middle/act")
    graph = Graph({"x": types["x"]}, {"y": types["y"]}, (node,), types=types)

    with pytest.raises(UnsupportedOperator, match=r"Mish 'middle/act'"):
        to_coreml(graph, "infer")


# -- float16


def test_the_loss_scale_multiplies_gradients_only() -> None:
    step, feeds = training_step("cnn_2d")
    expected = run(step, feeds)

    found = run(precision.scaled(step, 1024.0), feeds)

    assert found.pop("loss") == expected.pop("loss")
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], 1024 * value, rtol=1e-5, atol=1e-5)


def test_the_chosen_scale_leaves_room_in_float16() -> None:
    step, feeds = training_step("cnn_2d")
    scale = precision.choose_scale(step, feeds)
    scaled = precision.scaled(step, scale)

    largest = max(float(np.abs(v).max()) for n, v in run(scaled, feeds).items() if n != "loss")

    assert np.log2(scale).is_integer()
    assert largest < np.finfo(np.float16).max / 16


@pytest.mark.parametrize("name", ["mlp", "cnn_2d"])
def test_float16_steps_give_gradients_in_float32_close_to_the_reference(name: str) -> None:
    step, feeds = training_step(name)
    model = to_coreml(step, "step", half=True, scale=precision.choose_scale(step, feeds))

    found, expected = execute(model, step, feeds), run(step, feeds)

    assert sum(model.half_operators.values()) > sum(model.operators.values()) / 3
    assert all(value.dtype == np.float32 for value in found.values())
    assert max(difference(found, expected).values()) < 2e-2
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=5e-3)


def test_small_gradients_survive_float16_by_the_loss_scale_only() -> None:
    step, feeds = training_step()
    feeds["c.weight"] = feeds["c.weight"] * np.float32(1e-6)
    expected = run(step, feeds)["grad/a.weight"]

    def lost(scale: float) -> float:
        model = to_coreml(step, "step", half=True, scale=scale)
        found = execute(model, step, feeds)["grad/a.weight"]
        return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))

    assert lost(1.0) > 0.3
    assert lost(precision.choose_scale(step, feeds)) < 0.1


def test_only_weighted_means_can_be_scaled() -> None:
    builder = GraphBuilder()
    builder.output("loss", builder.add("Neg", builder.input("weight", TensorType(F, (2,)))))

    with pytest.raises(ConversionError, match="weighted mean"):
        precision.scaled(builder.build(), 2.0)
