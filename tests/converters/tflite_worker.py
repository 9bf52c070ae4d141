# SPDX-License-Identifier: Apache-2.0
"""Runs TFLite files in a process of its own: one JSON request per line in, one JSON answer per line out.

`python tflite_worker.py ai_edge_litert | tflite_runtime`. A request names a file, a signature, an .npz of
feeds by the signature's names, and where to write the .npz of outputs.
"""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np


def main(package: str) -> None:
    interpreter = importlib.import_module(f"{package}.interpreter").Interpreter
    for line in sys.stdin:
        request = json.loads(line)
        try:
            with np.load(request["feeds"]) as feeds:
                runner = interpreter(request["model"], num_threads=1).get_signature_runner(
                    request["signature"]
                )
                results = runner(**{name: feeds[name] for name in feeds.files})
            np.savez(request["results"], **results)
            answer = {"error": ""}
        except (ValueError, RuntimeError) as exc:
            answer = {"error": str(exc)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
