# SPDX-License-Identifier: Apache-2.0
"""One file on one engine, with and without what the engine optimizes; needs NumPy and the engine alone.

Arguments: ENGINE FILE FEEDS FOLDER. FEEDS is an `.npz` of the file's inputs by their own names; for each mode
FOLDER gets `<mode>.npz` with the outputs. Prints one JSON object: the engine's version, and per mode a reason
where there are no outputs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Outputs = dict[str, Any]
Run = Callable[[bytes, Outputs], Outputs]


def on_onnxruntime(level: str) -> Run:
    def run(data: bytes, feeds: Outputs) -> Outputs:
        import onnxruntime as engine

        options = engine.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(engine.GraphOptimizationLevel, level)
        session = engine.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))

    return run


def on_openvino(**more: str) -> Run:
    def run(data: bytes, feeds: Outputs) -> Outputs:
        import openvino

        core = openvino.Core()
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, **more}
        model = core.read_model(data, b"")
        names: list[str] = []
        for port in model.outputs:  # those that are one tensor may share all their names
            names.append(min(port.get_names() - set(names)))
        made = core.compile_model(model, "CPU", options)(feeds)
        return {name: made[index] for index, name in enumerate(names)}

    return run


def on_tflite(module: str, resolver: str, **more: bool) -> Run:
    def run(data: bytes, feeds: Outputs) -> Outputs:
        engine = import_module(f"{module}.interpreter")
        interpreter = engine.Interpreter(
            model_content=data,
            num_threads=1,
            experimental_op_resolver_type=getattr(engine.OpResolverType, resolver),
            **{f"experimental_{name}": value for name, value in more.items()},
        )
        runner = interpreter.get_signature_runner(next(iter(interpreter.get_signature_list())))
        return {name: np.array(value) for name, value in runner(**feeds).items()}

    return run


def _of_tflite(module: str) -> dict[str, Run]:
    own = "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    return {
        "on": on_tflite(module, "AUTO"),
        "own kernels": on_tflite(module, own),
        "no memory shared": on_tflite(module, own, preserve_all_tensors=True),
    }


MODES: dict[str, dict[str, Run]] = {
    "onnxruntime": {"on": on_onnxruntime("ORT_ENABLE_ALL"), "off": on_onnxruntime("ORT_DISABLE_ALL")},
    "openvino": {"on": on_openvino(), "no snippets": on_openvino(SNIPPETS_MODE="DISABLE")},
    "ai-edge-litert": _of_tflite("ai_edge_litert"),
    "tflite-runtime": _of_tflite("tflite_runtime"),
}
"""Distribution to ways of running: `on` is the default; OpenVINO has no switch for all that it does."""


def main(engine: str, file: str, feeds: str, folder: str) -> int:
    """Run every mode; what one refuses is its reason."""
    data, arrays = Path(file).read_bytes(), dict(np.load(feeds))
    reasons = {}
    for mode, run in MODES[engine].items():
        try:
            np.savez(Path(folder) / f"{mode}.npz", **run(data, arrays))
        except Exception as exc:  # engines' exceptions share no base class
            reasons[mode] = " ".join(str(exc).split())[:300]
    print(json.dumps({"version": version(engine), "reasons": reasons}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
