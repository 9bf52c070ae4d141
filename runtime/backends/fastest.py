# SPDX-License-Identifier: Apache-2.0
"""Which of the stock engines for ONNX trains a bundle fastest: measured once per device, kept on disk."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy.typing as npt

from edgefl._version import __version__
from edgefl.bundle import Bundle
from edgefl.errors import BackendError
from edgefl.options import FitOptions
from edgefl.runtime.backends.base import Backend, Program, ProvingBackend
from edgefl.runtime.caches import load_json, save_json
from edgefl.runtime.delegates.truth import Truth
from edgefl.runtime.steps import Begin, Steps
from edgefl.strictjson import canonical

Array = npt.NDArray[Any]
Open = Callable[[str], Backend]
"""An engine by name, with its own CPU code, which proves right before it loads a graph."""

RIVALS = {
    "onnx": ("onnxruntime", ("onnxruntime", "onnxruntime-training-cpu", "onnxruntime-gpu")),
    "openvino": ("openvino", ("openvino",)),
}
"""Engines that run the same graphs: the module of each, and the distributions that may bring it."""

_ROUNDS, _BUDGET_S = 5, 0.4
_FOLDER = "engines"


@dataclass(frozen=True)
class Speed:
    """One engine's step on the golden batch.

    Attributes:
        engine: the backend's name.
        ms: of the fastest of a few steps; infinite where it was passed over.
        reason: why it was passed over, or "".
    """

    engine: str
    ms: float
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.engine}: {self.reason or f'{self.ms:.2f} ms'}"


def speeds(bundle: Bundle, threads: int, open_engine: Open) -> tuple[Speed, ...]:
    """The rivals that are installed, the fastest first; empty where there is no choice to make.

    A file of the cache folder answers the next time, until the bundle, an engine or the device changes. An
    engine that does not prove right is passed over.
    """
    versions = {name: version for name in RIVALS if (version := _version(name))}
    if len(versions) < 2 or bundle.manifest.find("onnx", "step") is None:
        return ()
    file = _file(bundle, threads, versions)
    if kept := _recall(file):
        return kept
    measured = tuple(sorted(_measure(bundle, list(versions), open_engine), key=lambda speed: speed.ms))
    save_json([_row(speed) for speed in measured], _FOLDER, file)
    return measured


class Chosen(ProvingBackend):
    """A backend that was the fastest.

    Attributes:
        speeds: what it was measured against, the fastest first.
    """

    def __init__(self, backend: ProvingBackend, measured: tuple[Speed, ...]) -> None:
        self._backend, self.speeds = backend, measured
        self.name, self.target, self.version = backend.name, backend.target, backend.version
        self.providers, self.own_step = backend.providers, backend.own_step

    def load(self, bundle: Bundle, kind: str) -> Program:
        return self._backend.load(bundle, kind)

    def prove(self, bundle: Bundle, kind: str) -> None:
        self._backend.prove(bundle, kind)

    def start(self, options: FitOptions, begin: Begin) -> Steps:
        return self._backend.start(options, begin)


def _measure(bundle: Bundle, names: Sequence[str], open_engine: Open) -> list[Speed]:
    """Steps of all engines in turn, so that what else the device does meets each of them."""
    programs: dict[str, Program] = {}
    out: list[Speed] = []
    for name in names:
        try:
            programs[name] = open_engine(name).load(bundle, "step")
        except BackendError as exc:
            out.append(Speed(name, float("inf"), str(exc)))
    feeds = Truth.of(bundle, "onnx", "step").feeds if programs else {}
    return out + [Speed(name, 1e3 * seconds) for name, seconds in _race(programs, feeds).items()]


def _race(programs: Mapping[str, Program], feeds: Mapping[str, Array]) -> dict[str, float]:
    """The shortest time of each program."""
    best = dict.fromkeys(programs, float("inf"))
    end = time.perf_counter() + _BUDGET_S * len(programs)
    for turn in range(4 * _ROUNDS):
        if turn >= _ROUNDS and time.perf_counter() > end:
            break
        for name, program in programs.items():
            start = time.perf_counter()
            program(feeds)
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def _version(name: str) -> str:
    """The installed version of an engine, found without loading it; "" where there is none."""
    module, distributions = RIVALS[name]
    try:
        if importlib.util.find_spec(module) is None:
            return ""
    except (ImportError, ValueError):
        return ""
    from importlib import metadata  # slow, and only needed where there is a choice

    for distribution in distributions:
        try:
            return f"{distribution} {metadata.version(distribution)}"
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _file(bundle: Bundle, threads: int, versions: Mapping[str, str]) -> str:
    """Everything the measurement depends on, as a file name."""
    found = (bundle.manifest.find("onnx", kind) for kind in ("step", "step-channels-last"))
    subject = {
        "edgefl": __version__,
        "engines": dict(versions),
        "step": [artifact.entry.sha256 for artifact in found if artifact],
        "threads": threads,
        "machine": [platform.node(), platform.machine(), platform.system(), platform.release()],
    }
    return hashlib.blake2b(canonical(subject), digest_size=16).hexdigest() + ".json"


def _recall(file: str) -> tuple[Speed, ...]:
    rows = load_json(_FOLDER, file)
    try:
        return tuple(Speed(str(r["engine"]), float(r["ms"] or "inf"), str(r["reason"])) for r in rows or ())
    except (KeyError, TypeError, ValueError):
        return ()


def _row(speed: Speed) -> dict[str, Any]:
    # JSON has no infinity.
    return {**asdict(speed), "ms": speed.ms if speed.ms < float("inf") else 0}
