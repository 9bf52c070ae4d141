# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.coreml`: what each promised model is for Core ML, in bytes, operators and errors.

    python -m benchmarks.coreml [--only NAME ...] [--table]

Every model of tests/models/zoo.py, all of it trained, becomes ML Programs for iOS 16, batches of two. The
files are executed by tests/coreml_evaluator, from disk, and compared with the NumPy reference; errors are
relative distances, of all gradients or outputs as one vector. Operators are counted in the files: those that
give float16 are what the Neural Engine is documented to take. Results are kept after each model in
benchmarks/results/coreml.json; docs/coreml.md shows them. `--table` rewrites the table without measuring.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import edgefl
from benchmarks.tables import between, markdown
from edgefl.bundle import Bundle
from edgefl.converters.graft import bind
from edgefl.converters.targets.coreml import (
    CoreMLModel,
    compressed_models,
    precision,
    to_coreml,
    to_updatable,
)
from edgefl.converters.targets.coreml.golden import golden_inputs
from edgefl.converters.targets.single import single
from edgefl.errors import ConversionError
from edgefl.graph import Graph, read_onnx, run
from tests.converters.coreml_oracle import execute

RESULTS = Path(__file__).parent / "results" / "coreml.json"
PAGE = Path(__file__).parent.parent / "docs" / "coreml.md"
BATCH, CALIBRATION = 2, 16

Row = dict[str, Any]
Values = Mapping[str, Any]


def row(entry: Any) -> Row:
    """One model's figures."""
    bundle = edgefl.convert(
        entry.build(),
        entry.example_inputs(),
        loss=entry.loss,
        batch_size=BATCH,
        targets=("onnx",),
        name=entry.name,
    )
    trained = sum(p.size for p in bundle.manifest.parameters if p.role in ("shared", "personal"))
    files = {"step": step(bundle), "step-float16": half(bundle), **deployed(bundle, entry)}
    return {"framework": entry.framework, "trained": trained, "files": files, "updatable": updatable(bundle)}


def step(bundle: Bundle) -> Row:
    graph = read_onnx(bundle.artifact("onnx", "step"))
    return figures(to_coreml(graph, "step"), graph, golden_inputs(bundle, graph))


def half(bundle: Bundle) -> Row:
    """The float16 step with the loss scale that the export chooses, compared with the float32 reference."""
    graph = read_onnx(bundle.artifact("onnx", "step"))
    feeds = golden_inputs(bundle, graph)
    scale = precision.choose_scale(graph, feeds)
    return figures(to_coreml(graph, "step-float16", half=True, scale=scale), graph, feeds)


def deployed(bundle: Bundle, entry: Any) -> dict[str, Row]:
    """`infer`, and `infer-int8`, which holds the weights."""
    graph = read_onnx(bundle.artifact("onnx", "infer"))
    found = {"infer": figures(to_coreml(graph, "infer"), graph, golden_inputs(bundle, graph))}
    calibration = entry.example_inputs(CALIBRATION)
    inside = single(bind(graph, {n: v for n, v in bundle.parameters().items() if n in graph.inputs}))
    feeds = {n: bundle.golden()[n][: type.shape[0]] for n, type in inside.inputs.items()}
    small = compressed_models(bundle, calibration)["infer-int8"]
    return {**found, "infer-int8": figures(small, inside, feeds)}


def figures(model: CoreMLModel, graph: Graph, feeds: Values) -> Row:
    """Bytes, operators and the error of a file against the reference."""
    found, expected = execute(model, graph, feeds), run(graph, feeds)
    return {
        "bytes": len(model.data),
        "operators": _counted(model.operators),
        "float16": _counted(model.half_operators),
        "error": float(f"{_distance(found, expected):.1e}"),
    }


def _counted(operators: Mapping[str, int]) -> int:
    """All but those that only unpack constants."""
    return sum(count for name, count in operators.items() if not name.startswith("constexpr_"))


def _distance(found: Values, expected: Values) -> float:
    """Of all gradients together, or of all outputs where there are none."""
    gradients = [name for name in expected if name.startswith("grad/")]
    names = gradients or list(expected)
    made, true = (
        np.concatenate([np.ravel(v[n]).astype(np.float64) for n in names]) for v in (found, expected)
    )
    return float(np.linalg.norm(made - true) / max(float(np.linalg.norm(true)), 1e-30))


def updatable(bundle: Bundle) -> Row:
    """Bytes of the updatable model, or the first layer in its way."""
    try:
        return {"bytes": len(to_updatable(bundle).data)}
    except ConversionError as exc:
        return {"left_out": str(exc)}


def table(rows: Mapping[str, Row]) -> str:
    """The results as Markdown: sizes and errors, then what is in the way of updatable models."""
    head = ["model", "trained", "step kB", "float16 kB", "infer kB", "int8 kB", "operators"]
    head += [
        "float16: step",
        "float16: int8",
        "gradient error",
        "in float16",
        "int8 output error",
        "updatable",
    ]
    lines = [_line(name, r) for name, r in rows.items()]
    reasons = [
        (name, _cell(r["updatable"]["left_out"])) for name, r in rows.items() if "left_out" in r["updatable"]
    ]
    return (
        markdown(head, lines)
        + "\n\n"
        + markdown(["model", "first in the way of an updatable model"], reasons, 2)
    )


def _line(name: str, r: Row) -> list[str]:
    files = r["files"]
    step, half, infer, small = (files[kind] for kind in ("step", "step-float16", "infer", "infer-int8"))
    sizes = [f"{f['bytes'] / 1e3:,.0f}" for f in (step, half, infer, small)]
    shares = [f"{f['float16']} of {f['operators']}" for f in (half, small)]
    errors = [f"{f['error']:.0e}" if f["error"] else "0" for f in (step, half, small)]
    whole = r["updatable"].get("bytes")
    last = "-" if whole is None else f"{whole / 1e3:,.0f} kB"
    return [name, f"{r['trained']:,}", *sizes, str(step["operators"]), *shares, *errors, last]


def _cell(message: str) -> str:
    return message.replace("|", "\\|").replace("\n", " ")


def main(arguments: list[str] | None = None) -> int:
    from tests.models.zoo import ENTRIES

    parser = argparse.ArgumentParser(prog="python -m benchmarks.coreml", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="names of models")
    parser.add_argument("--table", action="store_true", help="measure nothing, rewrite the table of the docs")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")  # the frameworks' own
    known = {entry.name: entry for entry in ENTRIES}
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in [] if options.table else options.only or known:
        rows[name] = row(known[name])
        print(name, json.dumps(rows[name]), flush=True)
        rows = {n: rows[n] for n in known if n in rows}
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    PAGE.write_text(between(PAGE.read_text(), "coreml", table(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
