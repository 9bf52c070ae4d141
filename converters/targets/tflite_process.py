# SPDX-License-Identifier: Apache-2.0
"""A TFLite file on one interpreter: a script that imports no edgefl, run in a process of its own.

`python tflite_process.py FOLDER PACKAGE`. The folder holds `model.tflite` and `feeds.npz`, `[batches, ...]`
for each of the signature's inputs, and gets `plain.npz` (built-in kernels) and `auto.npz` (as the interpreter
comes, with XNNPACK) with the outputs in the same form, or `<way>.txt` saying why there is none.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

WAYS = {"plain": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "auto": "AUTO"}


def main(folder: Path, package: str) -> None:
    module = importlib.import_module(f"{package}.interpreter")
    with np.load(folder / "feeds.npz") as file:
        feeds = {name: file[name] for name in file.files}
    for way, resolver in WAYS.items():
        try:
            results = run(module, resolver, folder / "model.tflite", feeds)
        except (ValueError, RuntimeError) as exc:
            (folder / f"{way}.txt").write_text(str(exc))
            continue
        np.savez(folder / f"{way}.npz", **results)


def run(module: Any, resolver: str, model: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    interpreter = module.Interpreter(
        str(model), num_threads=1, experimental_op_resolver_type=getattr(module.OpResolverType, resolver)
    )
    (signature,) = interpreter.get_signature_list()
    runner = interpreter.get_signature_runner(signature)
    rows = [
        {name: np.array(value) for name, value in runner(**dict(zip(feeds, batch, strict=True))).items()}
        for batch in zip(*feeds.values(), strict=True)
    ]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
