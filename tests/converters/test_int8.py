# SPDX-License-Identifier: Apache-2.0
"""The int8 export, on a small network that has learned scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edgefl.bundle import ArtifactData, Bundle, TensorSpec
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.graft import bind
from edgefl.converters.targets import TFLiteModel, export_int8, to_onnx
from edgefl.converters.targets.absorb import absorb
from edgefl.converters.targets.activations import findings
from edgefl.converters.targets.integers import without_erf
from edgefl.converters.targets.quantize import int8_tflite
from edgefl.converters.targets.single import single
from edgefl.errors import CalibrationError, ConversionError, DataShape
from edgefl.graph import Graph, TensorType, run
from edgefl.parameters import Parameter

pytest.importorskip("tensorflow")
onnxruntime = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")
datasets = pytest.importorskip("sklearn.datasets")

F = np.dtype(np.float32)
BATCH, TRAINING = 16, 1280


@dataclass(frozen=True)
class Digits:
    """A trained network as a bundle, the examples it learned from, and others with their labels."""

    bundle: Bundle
    seen: Any
    unseen: Any
    labels: Any


def images() -> tuple[Any, Any]:
    data = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return (data.images[order] / 16).astype(np.float32)[:, None], data.target[order]


def network() -> Any:
    nn = torch.nn
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10)),
    )


def trained(x: Any, y: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(12):
        for start in range(0, len(x), 64):
            optimizer.zero_grad()
            batch = torch.tensor(x[start : start + 64]), torch.tensor(y[start : start + 64])
            torch.nn.functional.cross_entropy(net(batch[0]), batch[1]).backward()
            optimizer.step()
    return {name: value.detach().numpy() for name, value in net.named_parameters()}


def inference_graph(parameters: dict[str, Any]) -> Graph:
    """The network as conversion leaves it: biases are separate additions, the batch is in the shapes."""
    b = GraphBuilder()
    h = b.input("x", TensorType(F, (BATCH, 1, 8, 8)))
    p = {name: b.input(name, TensorType.of(value)) for name, value in parameters.items()}

    def shape(*sizes: int) -> str:
        return b.constant(np.array(sizes))

    for layer in ("0", "2"):
        h = b.add("Conv", h, p[f"{layer}.weight"], kernel_shape=(3, 3), pads=(1, 1, 1, 1))
        h = b.add("Relu", b.add("Add", h, b.add("Reshape", p[f"{layer}.bias"], shape(1, -1, 1, 1))))
    h = b.add("Reshape", b.add("MaxPool", h, kernel_shape=(2, 2), strides=(2, 2)), shape(BATCH, 256))
    for layer in ("6", "8"):
        h = b.add("MatMul", h, b.add("Transpose", p[f"{layer}.weight"], perm=(1, 0)))
        h = b.add("Add", h, p[f"{layer}.bias"])
        h = b.add("Relu", h) if layer == "6" else h
    b.output("output", h)
    return b.build("infer")


@pytest.fixture(scope="module")
def digits() -> Digits:
    x, y = images()
    values = trained(x[:TRAINING], y[:TRAINING])
    data = TensorSpec("x", (BATCH, 1, 8, 8), "float32")
    bundle = Bundle.create(
        name="digits",
        model_version=0,
        parameters=[Parameter(n, tuple(v.shape), "float32", "shared") for n, v in values.items()],
        inputs=[data],
        step_inputs=[data],
        label=TensorSpec("y", (BATCH,), "int32"),
        output=TensorSpec("output", (BATCH, 10), "float32"),
        loss="softmax_cross_entropy",
        batch_size=BATCH,
        values=values,
        artifacts=[ArtifactData("onnx", "infer", to_onnx(inference_graph(values)))],
        golden={
            "x": x[:BATCH],
            "y": y[:BATCH].astype(np.int32),
            "weight": np.ones(BATCH, np.float32),
        },
    )
    return Digits(bundle, x[:TRAINING], x[TRAINING:], y[TRAINING:])


@pytest.fixture(scope="module")
def exported(digits: Digits) -> Any:
    return export_int8(digits.bundle, digits.seen[:512])


def float_classes(digits: Digits) -> Any:
    graph = single(bind(inference_graph(digits.bundle.parameters()), digits.bundle.parameters()))
    return np.array([run(graph, {"x": row[None]})["output"].argmax() for row in digits.unseen])


def onnx_classes(data: bytes, x: Any) -> Any:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.array([session.run(None, {"x": row[None]})[0].argmax() for row in x])


def tflite_classes(engine: Callable[..., Any], data: bytes, x: Any) -> Any:
    model = TFLiteModel(data, {"x": "x"}, {"output": "output"}, signature="infer")
    return np.array([engine(model, {"x": row[None]})["output"].argmax() for row in x])


def test_int8_keeps_accuracy_on_unseen_examples(digits: Digits, exported: Any, litert: Any) -> None:
    before = float((float_classes(digits) == digits.labels).mean())
    onnx = float((onnx_classes(exported.files["onnx"], digits.unseen) == digits.labels).mean())
    tflite = float((tflite_classes(litert, exported.files["tflite"], digits.unseen) == digits.labels).mean())

    assert before > 0.95
    assert onnx >= before - 0.01
    assert tflite >= before - 0.01


def test_both_targets_agree_with_the_float_model_and_each_other(exported: Any) -> None:
    report = exported.report

    assert report.examples == 512
    assert min(report.agreement.values()) >= 0.99
    assert report.between >= 0.99
    assert max(report.error.values()) < 0.05


def test_tflite_int8_runs_on_tflite_runtime(digits: Digits, exported: Any, tflite_runtime: Any) -> None:
    some = digits.unseen[:50]

    agree = tflite_classes(tflite_runtime, exported.files["tflite"], some) == float_classes(digits)[:50]

    assert agree.mean() >= 0.98


def test_arithmetic_is_integer(exported: Any) -> None:
    import onnx

    from edgefl.converters.targets.flatbuffer import operators

    counts = operators(exported.files["tflite"])
    nodes = onnx.load_from_string(exported.files["onnx"]).graph.node
    quantized = {n.output[0] for n in nodes if n.op_type == "DequantizeLinear"}

    assert counts["QUANTIZE"] == counts["DEQUANTIZE"] == 1
    assert "ADD" not in counts
    for node in nodes:
        if node.op_type in ("Conv", "Gemm"):
            assert quantized.issuperset(node.input)


def test_weights_take_a_quarter(exported: Any) -> None:
    assert max(exported.report.bytes.values()) < exported.report.float_bytes / 2
    assert exported.report.bytes["tflite"] == len(exported.files["tflite"])


def test_export_is_reproducible_and_silent(
    digits: Digits, exported: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    again = export_int8(digits.bundle, digits.seen[:512])

    assert again.files == exported.files
    assert capfd.readouterr() == ("", "")


def test_one_target_alone(digits: Digits) -> None:
    made = export_int8(digits.bundle, digits.seen[:32], targets=("onnx",))

    assert set(made.files) == set(made.report.agreement) == {"onnx"}
    assert made.report.to_json()["examples"] == 32


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x[:15], "15 calibration examples; at least 16"),
        (lambda x: x[:1].repeat(64, 0), "all the same"),
        (lambda x: x[:32] * np.float32(np.nan), "holds nan"),
        (lambda x: x[:32, :, :4], "shape"),
        (lambda x: x[:32, :, :, :, None], "shape|dimensions"),
        (lambda x: x[:32].astype(complex), "complex"),
    ],
    ids=["too few", "constant", "NaN", "wrong shape", "wrong rank", "wrong dtype"],
)
def test_unusable_calibration_is_refused(digits: Digits, change: Callable[[Any], Any], reason: str) -> None:
    with pytest.raises(CalibrationError, match=reason):
        export_int8(digits.bundle, change(digits.seen))


def test_calibration_may_come_from_a_generator(digits: Digits) -> None:
    halves = (digits.seen[start : start + 16] for start in range(0, 64, 16))

    made = export_int8(digits.bundle, halves, targets=("onnx",))

    assert made.report.examples == 64
    assert made.files == export_int8(digits.bundle, digits.seen[:64], targets=("onnx",)).files


@pytest.mark.parametrize(
    ("batches", "reason"),
    [
        ([], "gave no batch"),
        ([np.ones((4, 1, 8, 8)), np.ones((4, 8))], "do not fit together"),
        ([np.ones((4, 1, 8, 8))], "4 calibration examples"),
    ],
)
def test_an_unusable_generator_is_refused(digits: Digits, batches: list[Any], reason: str) -> None:
    with pytest.raises(CalibrationError, match=reason):
        export_int8(digits.bundle, iter(batches))


def probe(weight: Any, bias: Any) -> Graph:
    b = GraphBuilder()
    h = b.add("MatMul", b.input("x", TensorType(F, (1, 4))), b.constant(weight))
    b.output("output", b.add("Relu", b.add("Add", h, b.constant(bias)), name="relu"))
    return absorb(b.build())


def test_divisors_that_would_round_to_zero_stay_in_float(litert: Any, tflite_runtime: Any) -> None:
    random = np.random.default_rng(0)
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (1, 8)))
    size = b.add("ReduceMean", b.add("Mul", x, x), b.constant(np.array([1])))
    h = b.add("Div", x, b.add("Sqrt", b.add("Add", size, b.constant(np.float32(1e-5)))))
    h = b.add("MatMul", h, b.constant(random.normal(size=(8, 6)).astype(np.float32)))
    b.output("output", b.add("Erf", h))
    graph = b.build()
    scales = 10.0 ** random.uniform(-2, 1, size=(64, 1, 1))
    rows = (random.normal(size=(64, 1, 8)) * scales).astype(np.float32)

    model = int8_tflite(graph, [{"x": row} for row in rows])

    assert "DIV" not in model.operators or model.operators["DEQUANTIZE"] > 1
    for engine in (litert, tflite_runtime):
        found = np.array([engine(model, {"x": row})["output"] for row in rows[:16]])
        assert np.isfinite(found).all()


def test_the_milder_error_function_is_close_enough() -> None:
    b = GraphBuilder()
    x = np.linspace(-5, 5, 1001, dtype=np.float32)
    b.output("y", b.add("Erf", b.input("x", TensorType.of(x))))
    graph = b.build()

    mild = without_erf(graph)

    assert "Erf" not in mild.operators()
    np.testing.assert_allclose(run(mild, {"x": x})["y"], run(graph, {"x": x})["y"], atol=4e-4)


def test_dead_channels_are_reported() -> None:
    feeds = [{"x": row[None]} for row in np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)]
    graph = probe(np.eye(4, dtype=np.float32), np.array([0, -100, 0, -100], np.float32))

    assert [note for note in findings(graph, feeds) if "2 of 4 channels never change over 64" in note]


def test_examples_that_do_not_cover_the_rest_are_reported() -> None:
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    x[32:] *= 10
    graph = probe(np.eye(4, dtype=np.float32), np.zeros(4, np.float32))

    assert [note for note in findings(graph, [{"x": row[None]} for row in x]) if "saturate" in note]


def test_ranges_ruled_by_outliers_are_reported() -> None:
    x = np.random.default_rng(0).uniform(0, 1, size=(128, 40)).astype(np.float32)
    x[0, 0] = 1000
    b = GraphBuilder()
    weight = b.constant(np.eye(40, dtype=np.float32))
    b.output("output", b.add("MatMul", b.input("x", TensorType(F, (1, 40))), weight))

    assert [note for note in findings(b.build(), [{"x": row[None]} for row in x]) if "outliers reach" in note]


def test_a_healthy_model_has_no_dead_layers(exported: Any) -> None:
    assert not [note for note in exported.report.notes if "saturate" in note or "outliers" in note]
    assert exported.report.to_json()["notes"] == list(exported.report.notes)


def test_an_unknown_target_is_refused(digits: Digits) -> None:
    with pytest.raises(ConversionError, match=r"coreml.*onnx, tflite"):
        export_int8(digits.bundle, digits.seen[:32], targets=("coreml",))


def test_scales_and_shifts_go_into_the_product_before() -> None:
    random = np.random.default_rng(0)
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (2, 3, 6, 6)))

    def per_channel(n: int) -> str:
        return b.constant(random.uniform(0.5, 2, (n, 1, 1)).astype(np.float32))

    weight = b.constant(random.normal(size=(4, 3, 3, 3)).astype(np.float32))
    h = b.add("Conv", x, weight, kernel_shape=(3, 3))
    h = b.add("Div", b.add("Mul", b.add("Sub", h, per_channel(4)), per_channel(4)), per_channel(4))
    h = b.add("Add", per_channel(4), b.add("Sub", per_channel(4), h))
    h = b.add("Relu", b.add("Mul", h, b.constant(np.float32(0.5))))
    h = b.add("Reshape", h, b.constant(np.array([2, -1])))
    h = b.add("MatMul", h, b.constant(random.normal(size=(64, 5)).astype(np.float32)))
    b.output("output", b.add("Add", h, b.constant(random.normal(size=5).astype(np.float32))))
    graph = b.build()
    feeds = {"x": random.normal(size=(2, 3, 6, 6)).astype(np.float32)}

    less = absorb(graph)

    assert less.operators() == {"Conv": 1, "Gemm": 1, "Relu": 1, "Reshape": 1}
    np.testing.assert_allclose(run(less, feeds)["output"], run(graph, feeds)["output"], rtol=1e-4, atol=1e-4)


def test_a_shift_another_node_needs_too_stays_outside() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (2, 3)))
    h = b.add("MatMul", x, b.constant(np.eye(3, dtype=np.float32)))
    shifted = b.add("Add", h, b.constant(np.ones(3, np.float32)))
    b.output("output", b.add("Mul", h, shifted))

    assert absorb(b.build()).operators() == {"Add": 1, "Gemm": 1, "Mul": 1}


def test_the_batch_becomes_one(digits: Digits) -> None:
    graph = bind(inference_graph(digits.bundle.parameters()), digits.bundle.parameters())

    alone = single(graph)

    assert alone.inputs["x"].shape == (1, 1, 8, 8)
    assert alone.outputs["output"].shape == (1, 10)
    assert "Transpose" not in alone.operators()


def test_the_batch_becomes_one_where_a_layout_change_moved_it() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType(np.dtype(np.float32), (4, 5, 3)))
    moved = b.add("Reshape", x, b.constant(np.array([1, 4, 5, 3])))
    b.output("output", b.add("Relu", b.add("Transpose", moved, perm=(1, 3, 0, 2))))
    graph = b.build("infer")

    alone = single(graph)

    assert alone.outputs["output"].shape == (1, 3, 1, 5)


def test_the_batch_becomes_one_where_a_constant_was_spread_over_it() -> None:
    """As exporters leave position embeddings: added to every example, then told the batch by a Reshape."""
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (4, 5, 6)))
    rows = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    placed = b.add("Add", x, b.constant(np.stack([rows] * 4)))
    b.output("output", b.add("Reshape", placed, b.constant(np.array([4, 5, 2, 3]))))

    assert single(b.build("infer")).outputs["output"].shape == (1, 5, 2, 3)


def test_a_model_that_mixes_examples_keeps_its_batch() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (4, 3)))
    b.output("output", b.add("Sub", x, b.add("ReduceMean", x, b.constant(np.array([0])))))
    graph = b.build()

    assert single(graph) is graph


def test_values_that_do_not_fit_are_refused() -> None:
    b = GraphBuilder()
    b.output("output", b.add("Neg", b.input("x", TensorType(F, (4, 3)))))

    with pytest.raises(DataShape, match="'x'"):
        bind(b.build(), {"x": np.zeros((4, 2), np.float32)})
