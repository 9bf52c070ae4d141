# SPDX-License-Identifier: Apache-2.0
"""Every model of the zoo as ML Programs: loss, gradients, outputs, int8 too, against the NumPy reference."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import edgefl
from edgefl.bundle import Bundle
from edgefl.converters.graft import bind
from edgefl.converters.targets.coreml import compressed_models, precision, to_coreml
from edgefl.converters.targets.coreml.golden import golden_inputs
from edgefl.converters.targets.single import single
from edgefl.graph import Graph, read_onnx, run
from tests.converters.coreml_oracle import difference, execute
from tests.models.zoo import ENTRIES, Entry

pytest.importorskip("coremltools")

TOLERANCE = 1e-4
HALF = 0.05
"""Of all gradients together, in float16. Deep networks of ReLU6 amplify any rounding, in float32 too."""

SMALL = 0.1
"""Of an output, with int8 weights and float16."""

FAST = ("lenet", "bert", "lstm-lm-keras")


def marked(entry: Entry) -> object:
    return pytest.param(entry, id=entry.name, marks=() if entry.name in FAST else pytest.mark.slow)


def converted(entry: Entry) -> Bundle:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the frameworks' own
        model = entry.build()
        return edgefl.convert(
            model, entry.example_inputs(), loss=entry.loss, batch_size=2, targets=("onnx",), name=entry.name
        )


@pytest.mark.parametrize("entry", [marked(entry) for entry in ENTRIES])
def test_every_model_computes_the_same_as_an_ml_program(entry: Entry) -> None:
    bundle = converted(entry)

    for kind in ("step", "infer"):
        graph = read_onnx(bundle.artifact("onnx", kind))
        feeds = golden_inputs(bundle, graph)

        found = execute(to_coreml(graph, kind), graph, feeds)

        worst = difference(found, run(graph, feeds))
        assert all(value < TOLERANCE for value in worst.values()), worst
        if kind == "step":
            check_half(graph, feeds)


@pytest.mark.parametrize("entry", [marked(entry) for entry in ENTRIES])
def test_every_model_can_be_compressed(entry: Entry) -> None:
    bundle = converted(entry)
    whole = read_onnx(bundle.artifact("onnx", "infer"))
    graph = single(bind(whole, {n: v for n, v in bundle.parameters().items() if n in whole.inputs}))
    feeds = {n: bundle.golden()[n][: type.shape[0]] for n, type in graph.inputs.items()}

    made = compressed_models(bundle, entry.example_inputs(16))["infer-int8"]
    found, expected = execute(made, graph, feeds), run(graph, feeds)

    for name, value in expected.items():
        assert np.linalg.norm(found[name] - value) < SMALL * np.linalg.norm(value), name


def check_half(step: Graph, feeds: dict[str, np.ndarray]) -> None:
    """The float16 step errs little, or little more than rounding what goes into the float32 one does."""
    model = to_coreml(step, "step", half=True, scale=precision.choose_scale(step, feeds))
    rounded = {
        n: v.astype(np.float16).astype(v.dtype) if v.dtype == np.float32 else v for n, v in feeds.items()
    }

    found, expected = execute(model, step, feeds), run(step, feeds)

    inherent = whole_error(run(step, rounded), expected)
    assert whole_error(found, expected) < HALF + 4 * inherent
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=HALF)


def whole_error(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Relative distance of all gradients, as one vector."""
    names = [name for name in expected if name.startswith("grad/")]
    made, true = (np.concatenate([values[n].reshape(-1) for n in names]) for values in (found, expected))
    return float(np.linalg.norm(made - true) / np.linalg.norm(true))
