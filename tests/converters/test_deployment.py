# SPDX-License-Identifier: Apache-2.0
"""Files for an app, of a small network that has learned scikit-learn's digits, on the engines apps ship."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import edgefl
from edgefl import Bundle, Trainer
from edgefl.converters import ExportedFile, deployment
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.deployment import Export
from edgefl.converters.targets import TFLiteModel, engines, tflite_process, to_onnx
from edgefl.converters.targets.flatbuffer import operators
from edgefl.converters.targets.half import half_onnx, round_to_half
from edgefl.converters.targets.int8 import LARGE_ERROR, export_int8
from edgefl.converters.targets.int8_border import METADATA, Rounding, int8_border_onnx
from edgefl.converters.targets.quantize import int8_tflite
from edgefl.errors import CalibrationError, ConversionError, DataShape, OptionError
from edgefl.graph import TensorType, read_onnx, run
from tests.converters.coreml_oracle import run_package

pytest.importorskip("tensorflow")
onnxruntime = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")
datasets = pytest.importorskip("sklearn.datasets")

ALL = ("float32", "float16", "int8", "weights8")
BOTH = ("onnx", "tflite")
HALF, EIGHTH = 2.0**-11, 1 / 254
"""Largest relative error of a weight in float16, and of one in int8 relative to the largest of its row."""


@dataclass(frozen=True)
class Digits:
    bundle: Bundle
    x: Any
    y: Any


def convert(model: Any, example: Any, **options: Any) -> Bundle:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        return edgefl.convert(model, example, **{"targets": ("onnx",), **options})


@pytest.fixture(scope="module")
def digits() -> Digits:
    data = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))[:400]
    x, y = (data.images[order] / 16).astype(np.float32)[:, None], data.target[order].astype(np.int32)
    nn = torch.nn
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2)
        net = nn.Sequential(*first, nn.Flatten(), nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, 10))
    bundle = convert(net, x[:1], batch_size=16, name="digits")
    trainer = Trainer(bundle, backend="onnx")
    trainer.fit(x, y, epochs=6, lr=3e-3, optimizer="adam")
    return Digits(bundle.with_parameters(trainer.parameters(), 1), x, y)


@pytest.fixture(scope="module")
def exported(digits: Digits) -> Export:
    return edgefl.export(digits.bundle, digits.x[:200], digits.y[:200], forms=ALL, targets=BOTH)


@pytest.fixture(scope="module")
def integer(digits: Digits) -> Export:
    return edgefl.export(digits.bundle, digits.x[:200], digits.y[:200], targets=BOTH, io="int8")


def by_form(made: Export) -> dict[tuple[str, str], ExportedFile]:
    return {(file.form, file.target): file for file in made.files}


def test_every_form_keeps_the_accuracy_and_says_how_far_it_is(digits: Digits, exported: Export) -> None:
    before = Trainer(digits.bundle, backend="numpy").evaluate(digits.x[:200], digits.y[:200]).accuracy
    # Three products: errors of weights add up at most.
    bounds = {"float32": 1e-5, "float16": 3 * HALF, "weights8": 3 * 8 * EIGHTH, "int8": LARGE_ERROR}

    assert exported.examples == 200 and exported.accuracy == before > 0.9
    assert set(by_form(exported)) == {(form, target) for form in ALL for target in BOTH}
    for file in exported.files:
        assert file.error < bounds[file.form], file.name
        assert file.accuracy >= before - 0.02 and file.agreement >= 0.97
        assert file.notes == () and file.batch == 1 and file.io == "float32"


def test_tflite_files_were_tried_on_every_interpreter(exported: Export) -> None:
    file = by_form(exported)["float16", "tflite"]

    packages = ("ai-edge-litert", "tflite-runtime")
    assert all(any(name.startswith(package) for name in file.engines) for package in packages)
    assert sum("built-in kernels" in name for name in file.engines) == 2


def test_smaller_forms_are_smaller(exported: Export) -> None:
    size = {key: len(file.data) for key, file in by_form(exported).items()}

    for target in BOTH:
        assert size["float16", target] < 0.7 * size["float32", target]
        assert max(size["int8", target], size["weights8", target]) < size["float16", target]


def test_only_builtin_operators(exported: Export, integer: Export) -> None:
    import onnx

    for file in (*exported.files, *integer.files):
        if file.target == "tflite":
            assert operators(file.data)  # raises for Flex and custom ones
        else:
            assert {node.domain for node in onnx.load_from_string(file.data).graph.node} == {""}


def test_float_files_give_what_the_bundle_predicts(
    digits: Digits, exported: Export, litert: Any, tflite_runtime: Any
) -> None:
    files, row = by_form(exported), digits.x[7:8]
    expected = Trainer(digits.bundle, backend="numpy").predict(row)
    model = TFLiteModel(files["float32", "tflite"].data, {"x": "x"}, {"output": "output"}, signature="infer")

    session = onnxruntime.InferenceSession(files["float32", "onnx"].data, providers=["CPUExecutionProvider"])
    found = [session.run(None, {"x": row})[0]]
    found += [engine(model, {"x": row})["output"] for engine in (litert, tflite_runtime)]

    for value in found:
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_weights_are_stored_in_half(exported: Export) -> None:
    import onnx

    model = onnx.load_from_string(by_form(exported)["float16", "onnx"].data)
    halves = [value for value in model.graph.initializer if value.data_type == onnx.TensorProto.FLOAT16]

    assert len(halves) == 2  # of the large products
    assert operators(by_form(exported)["float16", "tflite"].data)["DEQUANTIZE"] == 2


def test_many_short_rows_do_not_get_a_scale_each() -> None:
    x = np.random.default_rng(0).normal(size=(16, 512)).astype(np.float32)
    bundle = convert(torch.nn.Linear(512, 4), x[:1])

    made = by_form(edgefl.export(bundle, x, forms=("float32", "weights8"), targets=BOTH))

    for target in BOTH:
        assert len(made["weights8", target].data) < 0.5 * len(made["float32", target].data)


# -- int8 inputs and outputs


def firmware(file: ExportedFile, x: Any, engine: Any) -> Any:
    """Outputs as whoever has only the report and the file would compute them."""
    (given,) = (t for t in file.tensors if t.direction == "in")
    (made,) = (t for t in file.tensors if t.direction == "out")
    assert given.rounding and made.rounding and given.dtype == made.dtype == "int8"
    rows = np.clip(np.round(x / given.rounding.scale) + given.rounding.zero_point, -128, 127).astype(np.int8)
    found = np.concatenate([engine(given.own, made.own, row[None]) for row in rows])
    assert found.dtype == np.int8
    return (found.astype(np.float64) - made.rounding.zero_point) * made.rounding.scale


def test_int8_io_from_the_report_alone(
    digits: Digits, integer: Export, litert: Any, tflite_runtime: Any
) -> None:
    files = by_form(integer)
    session = onnxruntime.InferenceSession(files["int8", "onnx"].data, providers=["CPUExecutionProvider"])
    model = TFLiteModel(files["int8", "tflite"].data, {"x": "x"}, {"output": "output"}, signature="infer")
    expected = Trainer(digits.bundle, backend="numpy").predict(digits.x[:64])

    found = [
        firmware(files["int8", "onnx"], digits.x[:64], lambda i, o, q: session.run([o], {i: q})[0]),
        firmware(files["int8", "tflite"], digits.x[:64], lambda i, o, q: litert(model, {i: q})[o]),
        firmware(files["int8", "tflite"], digits.x[:64], lambda i, o, q: tflite_runtime(model, {i: q})[o]),
    ]

    for value in found:
        assert np.sqrt(np.square(value - expected).mean()) / expected.std() < LARGE_ERROR
        assert (value.argmax(1) == expected.argmax(1)).mean() >= 0.95
    assert all(file.io == "int8" and file.name.startswith("digits-int8-io.") for file in integer.files)


def test_nothing_is_left_to_round_at_the_border(integer: Export) -> None:
    import onnx

    files = by_form(integer)
    model = onnx.load_from_string(files["int8", "onnx"].data)
    kept = json.loads(next(entry.value for entry in model.metadata_props if entry.key == METADATA))
    counts = operators(files["int8", "tflite"].data)

    assert "QUANTIZE" not in counts and "DEQUANTIZE" not in counts
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.INT8
    assert kept == {t.name: vars(t.rounding) for t in files["int8", "onnx"].tensors}


def test_a_border_the_quantizer_left_in_float(litert: Any) -> None:
    random = np.random.default_rng(0)
    b = GraphBuilder()
    x = b.input("x", TensorType(np.dtype(np.float32), (1, 6)))
    weight = b.constant((0.3 * random.normal(size=(6, 4))).astype(np.float32))
    b.output("output", b.add("Exp", b.add("MatMul", b.add("Exp", x), weight)))
    graph = b.build("infer")
    rows = random.uniform(-1, 1, (64, 1, 6)).astype(np.float32)
    expected = np.stack([run(graph, {"x": row})["output"] for row in rows])
    ranges = {"x": (float(rows.min()), float(rows.max())), "output": (0.0, float(expected.max()))}

    data, roundings = int8_border_onnx(to_onnx(graph), ranges)
    lite = int8_tflite(graph, [{"x": row} for row in rows], border=ranges)

    assert roundings == {name: Rounding.of(*seen) for name, seen in ranges.items()}
    assert lite.operators["EXP"] == 2 and lite.operators["DEQUANTIZE"] >= 1
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    given = [{"x": roundings["x"].round(row)} for row in rows]
    for found in ([session.run(None, q)[0] for q in given], [litert(lite, q)["output"] for q in given]):
        assert found[0].dtype == np.int8
        difference = roundings["output"].widen(np.stack(found)) - expected
        assert np.sqrt(np.square(difference).mean()) / expected.std() < LARGE_ERROR


def test_ids_stay_ids(litert: Any) -> None:
    stack = torch.nn.Embedding(32, 16), torch.nn.Flatten(), torch.nn.Linear(64, 4)
    ids = np.random.default_rng(0).integers(0, 32, (32, 4)).astype(np.int32)

    made = edgefl.export(convert(torch.nn.Sequential(*stack), ids[:1]), ids, targets=BOTH, io="int8")

    for file in made.files:
        given, out = file.tensors
        assert (given.dtype, given.rounding, out.dtype) == ("int32", None, "int8")
        assert file.error < LARGE_ERROR


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 6), (-3, 0), (2, 5), (0, 0), (-1e-30, 1e30)])
def test_a_rounding_covers_its_range_and_holds_zero(low: float, high: float) -> None:
    rounding = Rounding.of(low, high)
    values = np.linspace(min(low, 0), max(high, 0), 999, dtype=np.float32)

    back = rounding.widen(rounding.round(values))

    assert -128 <= rounding.zero_point <= 127
    assert rounding.widen(np.array(rounding.zero_point, np.int8)) == 0
    np.testing.assert_allclose(back, values, atol=1.01 * rounding.scale)


# -- what is said, and what is refused


def test_a_large_error_is_said() -> None:
    # One example in sixteen is a thousand times the others: eight bits have no step left for these.
    x = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    outliers = x.copy()
    outliers[::16] *= 1000
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bundle = convert(torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Linear(32, 4)), x[:1])

    made = edgefl.export(bundle, x, calibration=outliers, targets=("onnx",))

    (file,) = made.files
    assert file.error > LARGE_ERROR
    assert f"outputs are {file.error:.0%} of their spread away from the float model's" in file.notes[0]


def test_a_large_error_at_conversion_is_said() -> None:
    # Outputs are bounded, but not what leads to them: most of it rounds to nothing.
    x = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    x[::16] *= 3000
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Softsign(), torch.nn.Linear(32, 4))
        bundle = convert(net, x[:1])

    report = export_int8(bundle, x, targets=("onnx",)).report

    assert report.error["onnx"] > LARGE_ERROR
    assert f"on onnx outputs are {report.error['onnx']:.0%} of their spread" in report.notes[0]


def test_an_engine_that_computes_wrongly_stops_the_export(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = deployment.on_onnxruntime

    def off(data: bytes, feeds: Any) -> Any:
        return [
            replace(ran, rows=[{n: v * 1.001 for n, v in row.items()} for row in ran.rows])
            for ran in honest(data, feeds)
        ]

    monkeypatch.setattr(deployment, "on_onnxruntime", off)

    with pytest.raises(ConversionError, match=r"float16 for onnx: onnxruntime .* 'output' 0.001 away"):
        edgefl.export(digits.bundle, digits.x[:16], forms=("float16",), targets=("onnx",))


def test_interpreters_that_die_do_not_take_the_export_with_them(
    digits: Digits, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    script = tmp_path / "dies.py"
    script.write_text("import os, sys; print('no memory', file=sys.stderr); sys.stderr.flush(); os._exit(3)")
    monkeypatch.setattr(tflite_process, "__file__", str(script))

    with pytest.raises(ConversionError, match=r"no engine here runs float32 for tflite.*status 3: no memory"):
        edgefl.export(digits.bundle, digits.x[:16], forms=("float32",), targets=("tflite",))


def test_one_interpreter_that_does_not_run_a_file_is_a_note(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = engines._run

    def refused(folder: Any, package: str) -> str:
        return honest(folder, package) if package == "ai_edge_litert" else "Didn't find op for builtin opcode"

    monkeypatch.setattr(engines, "_run", refused)

    (file,) = edgefl.export(digits.bundle, digits.x[:16], forms=("float32",), targets=("tflite",)).files

    assert all(name.startswith("ai-edge-litert") for name in file.engines)
    assert len(file.notes) == 2 and "does not run it: Didn't find op" in file.notes[0]


def test_without_labels_or_examples(digits: Digits) -> None:
    bare = edgefl.export(digits.bundle, forms=("float32",), targets=("onnx",))
    unlabelled = edgefl.export(digits.bundle, digits.x[:20], targets=("onnx",))

    assert bare.examples == 16 and bare.accuracy is None and bare.files[0].accuracy is None
    assert unlabelled.examples == 20 and unlabelled.files[0].accuracy is None


def test_weights_of_examples_count(digits: Digits) -> None:
    right = Trainer(digits.bundle, backend="numpy").predict(digits.x[:40]).argmax(1) == digits.y[:40]
    weight = np.where(right, 1, 3).astype(np.float32)

    made = edgefl.export(
        digits.bundle, digits.x[:40], digits.y[:40], weight=weight, forms=("float32",), targets=("onnx",)
    )

    assert made.files[0].accuracy == pytest.approx(weight[right].sum() / weight.sum())


def test_several_outputs() -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.kind, self.size = (torch.nn.Linear(*n) for n in ((6, 64), (64, 3), (64, 1)))

        def forward(self, x: Any) -> Any:
            h = torch.relu(self.stem(x))
            return {"kind": self.kind(h), "size": self.size(h)}

    x = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    labels = {"kind": np.arange(32) % 3, "size": x[:, :1]}
    losses = {"kind": "softmax_cross_entropy", "size": "mean_squared_error"}

    made = edgefl.export(convert(Two(), x[:1], loss=losses), x, labels, targets=BOTH, io="int8")

    for file in made.files:
        outputs = [t for t in file.tensors if t.direction == "out"]
        assert [t.name for t in outputs] == ["output/kind", "output/size"]
        assert all(t.rounding for t in outputs) and file.error < LARGE_ERROR
        assert file.accuracy is not None


@pytest.mark.parametrize("trainable", ["lora:rank=2", "last:1"])
def test_weights_in_few_bits_already(trainable: str) -> None:
    x = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
    stack = torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 4)
    bundle = convert(torch.nn.Sequential(*stack), x[:1], trainable=trainable, frozen_bits=4)

    made = edgefl.export(bundle, x, forms=("float32", "weights8"), targets=("onnx",))

    expected = Trainer(bundle, backend="numpy").predict(x[:1])
    for file in made.files:
        found = run(read_onnx(file.data), {"x": x[:1]})["output"]
        np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
        assert not file.notes


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"forms": ("int4",)}, OptionError, "form int4: there are float32, float16, int8, weights8"),
        ({"forms": ()}, OptionError, "form none"),
        ({"targets": ("toaster",)}, OptionError, "target toaster: there are onnx, tflite, coreml"),
        ({"io": "int4"}, OptionError, "io int4: there are float32, int8"),
        ({"io": "int8", "forms": ("float32",)}, OptionError, "io int8 is for int8 files"),
        ({"targets": ("coreml",)}, ConversionError, "Core ML has no int8 form: weights8"),
    ],
)
def test_what_does_not_go_together(
    digits: Digits, options: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        edgefl.export(digits.bundle, digits.x[:16], **options)


def test_examples_that_do_not_do(digits: Digits) -> None:
    with pytest.raises(OptionError, match="int8 files need examples"):
        edgefl.export(digits.bundle)
    with pytest.raises(CalibrationError, match="15 calibration examples"):
        edgefl.export(digits.bundle, digits.x[:15])
    with pytest.raises(DataShape, match="x has 16 examples, y has 15"):
        edgefl.export(digits.bundle, digits.x[:16], digits.y[:15], forms=("float32",))


def test_values_beyond_half_stay_in_float32() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType(np.dtype(np.float32), (1, 64)))
    big, small = np.full((64, 64), 1e6, np.float32), np.full((64, 64), 1 / 3, np.float32)
    b.output("output", b.add("MatMul", b.add("MatMul", x, b.constant(big)), b.constant(small)))
    rounded = round_to_half(b.build())

    stored = half_onnx(rounded)

    dtypes = sorted(value.dtype.name for value in stored.constants.values())
    assert dtypes == ["float16", "float32"]
    row = {"x": np.ones((1, 64), np.float32)}
    np.testing.assert_array_equal(run(stored, row)["output"], run(rounded, row)["output"])


@pytest.mark.parametrize("form", ["float32", "float16", "weights8"])
def test_core_ml_files_compute_the_model(digits: Digits, form: str) -> None:
    pytest.importorskip("coremltools")
    bounds = {"float32": 1e-5, "float16": 16 * HALF, "weights8": 3 * 8 * EIGHTH}
    row = digits.x[:1]
    expected = Trainer(digits.bundle, backend="numpy").predict(row)

    (file,) = edgefl.export(digits.bundle, forms=(form,), targets=("coreml",)).files

    given, made = file.tensors
    found = run_package(file.data, {given.own: row})[made.own]
    assert np.linalg.norm(found - expected) < bounds[form] * np.linalg.norm(expected)
    assert file.engines == {} and file.error is None and file.name == f"digits-{form}.mlpackage.zip"
