# SPDX-License-Identifier: Apache-2.0
"""The engines of this workstation, each in a process of its own that is kept from one conversion to the next.

tflite-runtime cannot follow TensorFlow into a process, and a file may take its engine down. What runs there
is the runtime's own trial; it is asked by messages, as converters and runtime do not know one another.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROVER = "edgefl.runtime.delegates.prover"
_LIMIT_S = 600.0


@dataclass(frozen=True)
class Engine:
    """An engine that runs files of a bundle.

    Attributes:
        package: the module that is the engine.
        target: whose artifacts it runs.
        shares: it runs files that are written for another engine.
    """

    package: str
    target: str
    shares: bool = False


ENGINES = (
    Engine("onnxruntime", "onnx"),
    Engine("openvino", "onnx", shares=True),
    Engine("ai_edge_litert", "tflite"),
    Engine("tflite_runtime", "tflite"),
    Engine("onnxruntime", "ort-training"),
)


@dataclass(frozen=True)
class Finding:
    """What one engine made of one file on one batch.

    Attributes:
        batch: what it is called.
        engine: its package and version.
        delegate: `cpu` for the engine's own code.
        target, kind: the file's.
        state: `right`, `wrong`, `refused` or `crashed`.
        reason: in words, "" where it is right.
        error: the worst difference over what is allowed.
        shares: the file is written for another engine.
    """

    batch: str
    engine: str
    delegate: str
    target: str
    kind: str
    state: str
    reason: str = ""
    error: float = 0.0
    shares: bool = False

    @property
    def blocks(self) -> bool:
        """Nobody should get the file: an engine it is written for does not compute it."""
        return self.state in ("wrong", "crashed") and not self.shares

    @property
    def where(self) -> str:
        """The engine in words."""
        return self.engine if self.delegate == "cpu" else f"{self.engine} with {self.delegate}"

    def __str__(self) -> str:
        verbs = {"wrong": "is computed wrongly by", "crashed": "takes down", "refused": "is refused by"}
        verb = verbs.get(self.state, "is right on")
        return f"on {self.batch}, {self.target}/{self.kind} {verb} {self.where}: {self.reason}"


def installed() -> list[Engine]:
    """Those that are here, found without loading any."""
    return [engine for engine in ENGINES if _is_here(engine)]


def tried(engine: Engine, batches: Mapping[str, Path], kinds: Sequence[str]) -> list[Finding]:
    """What an engine makes of files, on its own code and on each delegate its package has.

    Args:
        batches: bundles that differ in their golden batches only, by what these are called.
        kinds: of artifacts.
    """
    worker = _worker(engine.package)
    return [
        finding
        for kind in kinds
        for delegate in ("cpu", *worker.delegates(engine.target))
        for finding in _findings(engine, worker, batches, kind, delegate)
    ]


def _findings(
    engine: Engine, worker: _Worker, batches: Mapping[str, Path], kind: str, delegate: str
) -> list[Finding]:
    paths = [str(path) for path in batches.values()]
    answer = worker.ask({"bundles": paths, "target": engine.target, "kind": kind, "delegate": delegate})
    if answer is None and len(paths) > 1:
        alone = ({batch: path} for batch, path in batches.items())
        return [found for one in alone for found in _findings(engine, worker, one, kind, delegate)]
    lost = {"state": "crashed", "reason": "its process was lost", "error": 0.0}
    rows = answer["verdicts"] if answer else [lost] * len(batches)
    version = worker.version or engine.package
    return [
        Finding(
            batch, version, delegate, engine.target, kind, r["state"], r["reason"], r["error"], engine.shares
        )
        for batch, r in zip(batches, rows, strict=True)
    ]


class _Worker:
    """One process, started when first asked and again where it was lost.

    Attributes:
        version: of the engine, once it has answered.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._delegates: dict[str, list[str]] = {}
        self.version = ""

    def delegates(self, target: str) -> list[str]:
        """Delegates that are part of the engine's package."""
        if target not in self._delegates:
            answer = self.ask({"target": target, "kind": "delegates", "delegate": "cpu"}) or {}
            self._delegates[target] = answer.get("delegates", [])
        return self._delegates[target]

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer, None where the process ends or takes too long instead."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            watch = threading.Timer(_LIMIT_S, process.kill)
            watch.start()
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:
                line = ""
            finally:
                watch.cancel()
            if not line:
                self.end()
                return None
            answer: dict[str, Any] = json.loads(line)
            self.version = answer.get("version") or self.version
            return answer

    def end(self) -> None:
        """End the process; the next request starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is not None:
            self.end()
        if self._process is None:
            # The child finds edgefl where this process did, installed or not.
            path = os.pathsep.join(part for part in sys.path if part)
            self._process = subprocess.Popen(
                [sys.executable, "-m", _PROVER, self._package],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
            )
        return self._process


_WORKERS: dict[str, _Worker] = {}


def _worker(package: str) -> _Worker:
    if package not in _WORKERS:
        _WORKERS[package] = _Worker(package)
        if len(_WORKERS) == 1:
            atexit.register(_end)
    return _WORKERS[package]


def _end() -> None:
    for worker in _WORKERS.values():
        worker.end()


def _is_here(engine: Engine) -> bool:
    try:
        return importlib.util.find_spec(engine.package) is not None
    except (ImportError, ValueError):
        return False
