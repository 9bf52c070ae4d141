# SPDX-License-Identifier: Apache-2.0
"""Runs TFLite files in a process of its own: one JSON request per line in, one JSON answer per line out.

`python tflite_worker.py ai_edge_litert | tflite_runtime`. A request names a file and the engine's kernels (a
member of its OpResolverType). With a signature, an .npz of feeds by the signature's names and where to write
the .npz of outputs, the file is run; without, the answer lists `[operator, input, output]` of one address.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import numpy as np


def main(package: str) -> None:
    engine = importlib.import_module(f"{package}.interpreter")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            kernels = getattr(engine.OpResolverType, request["kernels"])
            interpreter = engine.Interpreter(
                request["model"], num_threads=1, experimental_op_resolver_type=kernels
            )
            answer = _run(interpreter, request) if "signature" in request else _shared(interpreter)
        except (ValueError, RuntimeError) as exc:
            answer = {"error": str(exc)}
        print(json.dumps(answer), flush=True)


def _run(interpreter: Any, request: dict[str, str]) -> dict[str, Any]:
    with np.load(request["feeds"]) as feeds:
        runner = interpreter.get_signature_runner(request["signature"])
        results = runner(**{name: feeds[name] for name in feeds.files})
    np.savez(request["results"], **results)
    return {"error": ""}


def _shared(interpreter: Any) -> dict[str, Any]:
    interpreter.allocate_tensors()
    found = []
    for place, operator in enumerate(interpreter._get_ops_details()):
        for output in map(int, operator["outputs"]):
            own = _address(interpreter, output)
            inputs = [int(t) for t in operator["inputs"] if t >= 0]
            found += [[place, t, output] for t in inputs if own and _address(interpreter, t) == own]
    return {"error": "", "shared": found}


def _address(interpreter: Any, tensor: int) -> int:
    """Where a tensor lies; 0 where it has no memory."""
    try:
        return int(interpreter.tensor(tensor)().__array_interface__["data"][0])
    except ValueError:
        return 0


if __name__ == "__main__":
    main(sys.argv[1])
