# SPDX-License-Identifier: Apache-2.0
"""Dropout masks: the same bits on every engine, and random in all that is measured."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.converters.autodiff import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.randomness import SEEDS, Masks
from edgefl.converters.targets import to_tflite
from edgefl.graph import Graph, Interpreter, TensorType, write_onnx

SHAPES = [(64, 128), (64, 128), (16, 100), (4, 8, 6, 6), (5, 7, 1, 1), (7,)]
RATE = 0.3
DRAWN = [0, 1, 2, 4095, 4096, 123456, SEEDS - 1]
STEPS = 300


def masks_graph() -> Graph:
    b = GraphBuilder()
    seed = Expr(b, b.input("seed", TensorType(np.dtype(np.int32), (1,))))
    masks = Masks(seed, SHAPES)
    for i, _ in enumerate(SHAPES):
        b.output(f"mask{i}", masks.scale(i, RATE).name)
    return b.build("step")


def seed_of(value: int) -> dict[str, np.ndarray]:
    return {"seed": np.array([value], np.int32)}


@pytest.fixture(scope="module")
def kept() -> list[np.ndarray]:
    """For each mask, what 300 seeds keep, `[steps, elements]`."""
    run = Interpreter(masks_graph())
    made = [run(seed_of(s)) for s in range(STEPS)]
    return [np.array([m[f"mask{i}"].ravel() > 0 for m in made]) for i in range(len(SHAPES))]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "litert", "tflite_runtime"])
def test_every_engine_draws_the_same_bits(engine, request):
    graph = masks_graph()
    reference = Interpreter(graph)
    if engine == "onnxruntime":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(write_onnx(graph), providers=["CPUExecutionProvider"])
        run = lambda feeds: dict(zip(graph.outputs, session.run(None, feeds), strict=True))  # noqa: E731
    elif engine == "openvino":
        openvino = pytest.importorskip("openvino")
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        model = openvino.Core().compile_model(openvino.Core().read_model(write_onnx(graph)), "CPU", options)
        run = lambda feeds: {o.any_name: v for o, v in model(feeds).items()}  # noqa: E731
    else:
        call, lite = request.getfixturevalue(engine), to_tflite(graph, "step")
        run = lambda feeds: call(lite, feeds)  # noqa: E731
    for seed in [*DRAWN, -1]:
        made, expected = run(seed_of(seed)), reference(seed_of(seed))
        for name, value in expected.items():
            np.testing.assert_array_equal(made[name], value, err_msg=f"{name} of seed {seed}")


def test_values_are_zero_or_scaled_and_a_negative_seed_keeps_all():
    run = Interpreter(masks_graph())
    made = run(seed_of(5))
    for i, shape in enumerate(SHAPES):
        assert made[f"mask{i}"].shape == shape
        assert set(np.unique(made[f"mask{i}"])) <= {np.float32(0), np.float32(1 / (1 - RATE))}
        assert (run(seed_of(-1))[f"mask{i}"] == 1).all()


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_rates_at_the_ends(rate, expected):
    b = GraphBuilder()
    seed = Expr(b, b.input("seed", TensorType(np.dtype(np.int32), (1,))))
    b.output("mask", Masks(seed, [(50, 50)]).scale(0, rate).name)
    assert (Interpreter(b.build())(seed_of(3))["mask"] == expected).all()


def standard(kept: np.ndarray) -> np.ndarray:
    return (kept - (1 - RATE)) / np.sqrt(RATE * (1 - RATE))


def within(values: np.ndarray, count: int, sigmas: float = 5) -> None:
    """Means of `count` independent standard draws each: their own mean and spread are as they must be."""
    scale = 1 / np.sqrt(count)
    assert abs(values.mean()) < sigmas * scale / np.sqrt(values.size)
    assert abs(values.std() / scale - 1) < sigmas / np.sqrt(2 * values.size) + 0.02


@pytest.mark.parametrize("mask", [0, 1, 2, 3])
def test_the_rate_over_elements_and_over_steps(kept, mask):
    z = standard(kept[mask])
    within(z.mean(1), z.shape[1])
    within(z.mean(0), STEPS)


def test_steps_and_layers_are_independent(kept):
    one, two = standard(kept[0]), standard(kept[1])
    within((one[1:] * one[:-1]).mean(1), one.shape[1])
    within((one * two).mean(1), one.shape[1])


def test_rows_columns_neighbours_and_squares_are_independent(kept):
    z = standard(kept[0]).reshape(STEPS, 64, 128)
    within(z.mean(2).ravel(), 128)
    within(z.mean(1).ravel(), 64)
    within((z[:, 1:] * z[:, :-1]).mean((1, 2)), 63 * 128)
    within((z[:, :, 1:] * z[:, :, :-1]).mean((1, 2)), 64 * 127)
    square = z[:, 1:, 1:] * z[:, :-1, 1:] * z[:, 1:, :-1] * z[:, :-1, :-1]
    within(square.mean((1, 2)), 63 * 127)
