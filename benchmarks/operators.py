# SPDX-License-Identifier: Apache-2.0
"""The NumPy kernels against the ONNX project's own test cases for single operators.

    python -m benchmarks.operators [--json]

The cases come with the `onnx` package. One is used when it is a single standard node of an operator that has
a kernel, is valid in opset 18 by the ONNX checker, has element types of edgefl's graphs, and is in inference
mode; every other case is counted under the rule that leaves it out. A case passes when the model, read by
edgefl's own reader, gives outputs of the expected types and shapes within the tolerance of ONNX's own runner.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.errors import EdgeflError
from edgefl.graph import OPSET, Array, read_onnx, run
from edgefl.graph.kernels import KERNELS
from edgefl.graph.onnx_schema import DTYPES

RELATIVE, ABSOLUTE = 1e-3, 1e-7  # onnx.backend.test.runner's


@dataclass(frozen=True)
class Case:
    """One test case of the ONNX project.

    Attributes:
        model: ONNX bytes, marked as opset 18, with static shapes.
        inputs, outputs: values in signature order; the outputs are what is expected.
    """

    name: str
    operator: str
    model: bytes
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


@dataclass
class Score:
    """How one operator did."""

    cases: int = 0
    passed: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def cases(skipped: Counter[str]) -> Iterator[Case]:
    """The cases used; the others are counted in `skipped` by rule."""
    import onnx.backend.test

    root = Path(onnx.backend.test.__file__).parent / "data" / "node"
    for folder in sorted(root.iterdir()):
        model = onnx.load(folder / "model.onnx")
        reason = _out_of_scope(model)
        if reason is None:
            inputs, outputs = _tensors(folder, "input"), _tensors(folder, "output")
            reason = _unusable(model, inputs, outputs)
        if reason is not None:
            skipped[reason] += 1
            continue
        arrays = [tuple(map(onnx.numpy_helper.to_array, tensors)) for tensors in (inputs, outputs)]
        yield Case(folder.name, model.graph.node[0].op_type, model.SerializeToString(), *arrays)


def check(case: Case) -> str:
    """What is wrong with the outputs, empty when nothing is."""
    try:
        graph = read_onnx(case.model)
        results = run(graph, dict(zip(graph.inputs, case.inputs, strict=True)))
    except EdgeflError as exc:
        return str(exc)
    for (name, result), expected in zip(results.items(), case.outputs, strict=True):
        if (result.dtype, result.shape) != (expected.dtype, expected.shape):
            return f"{name}: {result.dtype}{result.shape} instead of {expected.dtype}{expected.shape}"
        if not np.allclose(result, expected, RELATIVE, ABSOLUTE, equal_nan=True):
            return f"{name}: values differ"
    return ""


def measure() -> tuple[dict[str, Score], Counter[str]]:
    """Scores by operator, and how many cases each rule left out."""
    skipped: Counter[str] = Counter()
    scores = {name: Score() for name in sorted(KERNELS)}
    for case in cases(skipped):
        score, problem = scores[case.operator], check(case)
        score.cases += 1
        score.passed += not problem
        if problem:
            score.failures[case.name] = problem
    return scores, skipped


def _out_of_scope(model: Any) -> str | None:
    """The rule by which a model is left out, judged by its graph alone."""
    if len(model.graph.node) != 1 or model.graph.node[0].domain not in ("", "ai.onnx"):
        return "not a single node of the standard domain"
    node = model.graph.node[0]
    if node.op_type not in KERNELS:
        return "operator without a kernel"
    types = [value.type for value in (*model.graph.input, *model.graph.output)]
    if any(type.WhichOneof("value") != "tensor_type" for type in types):
        return "sequences or optional values"
    if any(type.tensor_type.elem_type not in DTYPES for type in types):
        return "element types edgefl's graphs do not hold"
    return None


def _tensors(folder: Path, kind: str) -> list[Any]:
    import onnx

    paths = (folder / "test_data_set_0").glob(f"{kind}_*.pb")
    return [onnx.load_tensor(path) for path in sorted(paths, key=lambda path: int(path.stem.split("_")[1]))]


def _unusable(model: Any, inputs: list[Any], outputs: list[Any]) -> str | None:
    """The rule by which a case is left out, judged by its values. Makes the model's shapes static."""
    node, opset = model.graph.node[0], _opset(model.graph.node[0].op_type)
    if not _valid(model, inputs, outputs, opset):
        return f"not a valid node of opset {OPSET}"
    trains = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
    if trains or (node.op_type == "Dropout" and len(inputs) > 2 and any(inputs[2].raw_data)):
        return "training mode"
    return None


def _opset(operator: str) -> int:
    """18, or the opset that brought the operator where it is younger."""
    import onnx.defs

    history = [s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == operator]
    return max(OPSET, int(min(history)))


def _valid(model: Any, inputs: list[Any], outputs: list[Any], opset: int) -> bool:
    """Whether the ONNX checker takes the model in the opset given, with the values' types declared."""
    import onnx
    from onnx import helper

    for values, tensors in ((model.graph.input, inputs), (model.graph.output, outputs)):
        for value, tensor in zip(values, tensors, strict=True):
            value.CopyFrom(helper.make_tensor_value_info(value.name, tensor.data_type, tensor.dims))
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    model.opset_import[0].version = OPSET
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operators", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args(arguments)
    scores, skipped = measure()
    total = {"cases": sum(s.cases for s in scores.values()), "passed": sum(s.passed for s in scores.values())}
    if options.json:
        table = {name: vars(score) for name, score in scores.items()}
        print(json.dumps({"operators": table, "total": total, "left_out": dict(sorted(skipped.items()))}))
    else:
        _print_table(scores, skipped, total)
    return 0 if total["cases"] == total["passed"] else 1


def _print_table(scores: dict[str, Score], skipped: Counter[str], total: dict[str, int]) -> None:
    print(f"{'operator':28}{'cases':>6}{'passed':>8}")
    for name, score in scores.items():
        print(f"{name:28}{score.cases:6}{score.passed:8}")
    print(f"{'total, ' + str(len(scores)) + ' operators':28}{total['cases']:6}{total['passed']:8}")
    for reason, count in sorted(skipped.items()):
        print(f"left out: {reason}: {count}")
    for score in scores.values():
        for case, problem in score.failures.items():
            print(f"failed: {case}: {problem}")


if __name__ == "__main__":
    sys.exit(main())
