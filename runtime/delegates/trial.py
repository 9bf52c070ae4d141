# SPDX-License-Identifier: Apache-2.0
"""One engine or delegate on one graph: loaded, compared with the bundle's proof, timed.

Runs in the process that calls it, which a bad delegate can take down; `isolated` gives it one of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.errors import BackendError, BackendFailure
from edgefl.runtime.backends.base import Backend, Program
from edgefl.runtime.delegates.choice import Choice, Placement, State, Verdict
from edgefl.runtime.delegates.truth import MOST_ERROR, Truth, copies
from edgefl.sketch import Difference

Array = npt.NDArray[Any]
Stage = Callable[[str], None]


class Engine(Backend, Protocol):
    """A backend that runs graphs as a `Choice` says and tells where their operators went."""

    def check(self) -> None:
        """Raise BackendError where what was chosen does not load."""
        ...

    def placed(self, bundle: Bundle, kind: str, feeds: Mapping[str, Array], program: Program) -> Placement:
        """Which operators of a loaded graph run where."""
        ...


MARGIN = 0.95
"""A delegate is faster where it takes at most this part of the CPU's time."""

_BUDGET_S = 0.25
_MOST_RUNS = 20


def try_choice(
    bundle: Bundle, kind: str, choice: Choice, threads: int, stage: Stage = lambda name: None
) -> Verdict:
    """What comes of running an artifact as chosen: right or wrong by the bundle's proof, fast or slow beside
    the engine's own CPU code.

    Args:
        stage: told what comes next, so that a watcher knows where a process was lost.

    Raises:
        BackendUnavailable: the engine is not installed, or the bundle does not say what is right.
    """
    truth = Truth.of(bundle, choice.engine, kind)
    stage("reference")
    verdict = Verdict(choice.name, kind, "right", "", cpu_ms=_own_ms(bundle, truth, choice.engine, threads))
    try:
        stage("load")
        engine = open_choice(choice, threads)
        program = engine.load(bundle, kind)
        stage("run")
        feeds, first = truth.run(program)
        ms = _time(program, feeds)
        last = copies(program(feeds))
    except BackendError as exc:
        return replace(verdict, state="refused", reason=str(exc))
    found = max((truth.difference(made, choice.dtype) for made in (first, last)), key=lambda d: d.excess)
    place = engine.placed(bundle, kind, feeds, program)
    verdict = replace(
        verdict,
        error=min(found.excess, MOST_ERROR),
        ms=ms,
        operators=place.operators,
        taken=place.taken,
        partitions=place.partitions,
    )
    return _judged(verdict, found)


def open_choice(choice: Choice, threads: int) -> Engine:
    """The engine, told to run graphs as chosen; raises BackendUnavailable where it is not installed."""
    if choice.engine == "onnx":
        from edgefl.runtime.backends.onnx import OnnxBackend

        return OnnxBackend(threads, choice)
    from edgefl.runtime.backends.tflite import TfliteBackend

    return TfliteBackend(threads, choice)


def _own_ms(bundle: Bundle, truth: Truth, name: str, threads: int) -> float:
    """Milliseconds of the engine's own code; 0 where it does not run the graph or gets it wrong."""
    cpu = open_choice(Choice(name), threads)
    try:
        program = cpu.load(bundle, truth.kind)
        feeds, made = truth.run(program)
        return _time(program, feeds) if truth.difference(made).excess <= 1 else 0.0
    except BackendFailure:
        return 0.0


def _time(program: Program, feeds: Mapping[str, Array]) -> float:
    """Milliseconds of the fastest run within a small budget: the one least disturbed by others."""
    program(feeds)
    times: list[float] = []
    while not times or (sum(times) < _BUDGET_S and len(times) < _MOST_RUNS):
        begin = time.perf_counter()
        program(feeds)
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


def _judged(verdict: Verdict, found: Difference) -> Verdict:
    if verdict.taken == 0:
        return replace(verdict, state="idle", reason=f"takes none of the {verdict.operators} operators")
    if not found.excess <= 1:
        return replace(verdict, state="wrong", reason=str(found))
    if not verdict.cpu_ms:
        return replace(verdict, reason=f"{verdict.ms:.3g} ms, and the CPU's kernels are no choice")
    state: State = "right" if verdict.ms <= MARGIN * verdict.cpu_ms else "slower"
    return replace(verdict, state=state, reason=f"{verdict.ms:.3g} ms, the CPU {verdict.cpu_ms:.3g} ms")
