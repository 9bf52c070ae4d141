# SPDX-License-Identifier: Apache-2.0
"""A process in which one engine is tried on one file after another.

`python -m edgefl.runtime.delegates.prover PACKAGE`, where PACKAGE is the module of the engine. One JSON
request per line comes in, `{"bundles": paths, "target": ..., "kind": ..., "delegate": ...}`, and one answer
goes out: `{"version": of the engine, "verdicts": fields of one per bundle}`. The bundles differ in their
golden batches only. Some engines cannot live in one process, and a file may take its engine down; so the
converter, which tries many files, keeps one such process per engine. It ends where nothing is asked for long.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from dataclasses import asdict
from functools import lru_cache, partial
from typing import IO, Any

from edgefl.bundle import Bundle
from edgefl.errors import EdgeflError
from edgefl.runtime.backends.base import Backend, Placed
from edgefl.runtime.backends.proving import own_step
from edgefl.runtime.delegates.choice import CPU, Choice, Placement, Verdict
from edgefl.runtime.delegates.presence import candidates
from edgefl.runtime.delegates.trial import open_choice
from edgefl.runtime.delegates.truth import try_engine
from edgefl.runtime.delegates.verdicts import OWN_STEP

DELEGATES = "delegates"
"""In place of an artifact's kind: the delegates that are part of the engine's package."""

_IDLE_S = 300.0


def main(package: str) -> int:
    """Answer requests until there are no more."""
    if package == "tflite_runtime":
        # Its name comes second in the runtime's list; an entry of None makes the import of the first fail.
        for name in ("ai_edge_litert", "ai_edge_litert.interpreter"):
            sys.modules[name] = None  # type: ignore[assignment]
    answers = _own_output()
    for line in sys.stdin:
        with _ended_when_idle():
            print(json.dumps(_answer(json.loads(line), package)), file=answers, flush=True)
    return 0


def _own_output() -> IO[str]:
    """Standard output for answers alone: engines print what they like."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


@contextlib.contextmanager
def _ended_when_idle() -> Any:
    for timer in (t for t in threading.enumerate() if isinstance(t, threading.Timer)):
        timer.cancel()
    yield
    timer = threading.Timer(_IDLE_S, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _answer(request: dict[str, Any], package: str) -> dict[str, Any]:
    delegate, kind, version = request["delegate"], request["kind"], ""
    try:
        engine = _engine(package, request["target"], delegate)
        version = engine.version
        if kind == DELEGATES:
            return {"version": version, "delegates": _delegates(engine)}
        verdicts = _verdicts(engine, list(map(_opened, request["bundles"])), kind, delegate)
    except EdgeflError as exc:
        verdicts = [Verdict(delegate, kind, "refused", str(exc))] * len(request.get("bundles", ()))
    return {"version": version, "verdicts": list(map(asdict, verdicts))}


def _engine(package: str, target: str, delegate: str) -> Backend:
    if package == "openvino":
        from edgefl.runtime.backends.openvino import OpenVinoBackend

        return OpenVinoBackend()
    if target == "ort-training":
        from edgefl.runtime.backends.ort_training import OrtTrainingBackend

        return OrtTrainingBackend()
    name = "onnx" if package == "onnxruntime" else "tflite"
    if delegate == CPU:
        return open_choice(Choice(name), 1)
    return open_choice(next(c for c in _built_in(name) if c.name == delegate), 1)


def _delegates(engine: Backend) -> list[str]:
    return [choice.name for choice in _built_in(engine.name)] if engine.name in ("onnx", "tflite") else []


def _built_in(name: str) -> list[Choice]:
    providers = open_choice(Choice(name), 1).providers
    return [choice for choice in candidates(name, providers, "step") if choice.built_in]


def _verdicts(engine: Backend, bundles: list[Bundle], kind: str, delegate: str) -> list[Verdict]:
    """Of a file loaded once, on the golden batch of each bundle."""
    if kind == OWN_STEP:
        return [_own(engine, bundle) for bundle in bundles]
    program = engine.load(bundles[0], kind)
    return [try_engine(bundle, kind, engine.target, program, delegate) for bundle in bundles]


def _own(engine: Backend, bundle: Bundle) -> Verdict:
    program = Placed(partial(own_step, engine, bundle), Placement(OWN_STEP))
    return try_engine(bundle, "step", engine.target, program)


@lru_cache(4)
def _opened(path: str) -> Bundle:
    return Bundle.open(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
