# SPDX-License-Identifier: Apache-2.0
"""One delegate on one graph: loaded, compared with the CPU on the golden batch, timed.

Runs in the process that calls it, which a bad delegate can take down; `isolated` gives it one of its own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.errors import BackendError, BackendFailure, BackendUnavailable
from edgefl.runtime.backends.base import Backend, Program
from edgefl.runtime.delegates.choice import Choice, Placement, State, Verdict
from edgefl.runtime.delegates.compare import tolerance_for, worst
from edgefl.runtime.kinds import features_kinds

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

_MOST_ERROR = 1e30
_BUDGET_S = 0.25
_MOST_RUNS = 20


def try_choice(
    bundle: Bundle, kind: str, choice: Choice, threads: int, stage: Stage = lambda name: None
) -> Verdict:
    """What comes of running an artifact as chosen.

    Args:
        stage: told what comes next, so that a watcher knows where a process was lost.

    Raises:
        BackendUnavailable: the golden batch does not fit the graph.
        BackendError: the engine's own CPU code cannot run the graph, so there is nothing to compare with.
    """
    stage("reference")
    cpu = open_choice(Choice(choice.engine), threads)
    feeds = golden_feeds(bundle, kind, cpu)
    reference = cpu.load(bundle, kind)
    expected = _copies(reference(feeds))
    cpu_ms = _time(reference, feeds)
    verdict = Verdict(choice.name, kind, "right", "", cpu_ms=cpu_ms)
    try:
        stage("load")
        engine = open_choice(choice, threads)
        program = engine.load(bundle, kind)
        stage("run")
        first = _copies(program(feeds))
        ms = _time(program, feeds)
        last = _copies(program(feeds))
    except BackendError as exc:
        return replace(verdict, state="refused", reason=str(exc))
    tolerance = tolerance_for(kind, choice.dtype)
    error, output = max(worst(expected, first, tolerance), worst(expected, last, tolerance))
    place = engine.placed(bundle, kind, feeds, program)
    verdict = replace(
        verdict,
        error=error,
        ms=ms,
        operators=place.operators,
        taken=place.taken,
        partitions=place.partitions,
    )
    return _judged(verdict, output)


def golden_feeds(bundle: Bundle, kind: str, backend: Backend) -> dict[str, Array]:
    """What a graph takes, from the golden batch and the bundle's parameters.

    Raises:
        BackendUnavailable: the golden batch lacks something the graph takes.
        BackendError: features, which the step takes, cannot be made.
    """
    golden = bundle.golden()
    names = [spec.name for spec in bundle.manifest.inputs]
    missing = [name for name in names if name not in golden]
    if missing:
        raise BackendUnavailable(f"the golden batch of {bundle.manifest.name!r} has no {missing}")
    inputs = {name: golden.pop(name) for name in names}
    if kind.startswith("features"):
        return inputs
    if kind == "infer-int8":
        return _deployed(bundle, kind, inputs, backend)
    values = _values(bundle)
    if kind.startswith("infer"):
        return {**inputs, **values}
    made = {**inputs, **_features(bundle, inputs, backend)}
    if lacking := [spec.name for spec in bundle.manifest.step_inputs if spec.name not in made]:
        raise BackendUnavailable(f"bundle {bundle.manifest.name!r} has no features graph to make {lacking}")
    return {**{spec.name: made[spec.name] for spec in bundle.manifest.step_inputs}, **golden, **values}


def open_choice(choice: Choice, threads: int) -> Engine:
    """The engine, told to run graphs as chosen; raises BackendUnavailable where it is not installed."""
    if choice.engine == "onnx":
        from edgefl.runtime.backends.onnx import OnnxBackend

        return OnnxBackend(threads, choice)
    from edgefl.runtime.backends.tflite import TfliteBackend

    return TfliteBackend(threads, choice)


def _values(bundle: Bundle) -> dict[str, Array]:
    manifest = bundle.manifest
    wanted = {*(p.name for p in manifest.trained), *manifest.updated}
    return {name: value for name, value in bundle.parameters().items() if name in wanted}


def _deployed(bundle: Bundle, kind: str, inputs: dict[str, Array], backend: Backend) -> dict[str, Array]:
    """One example, or the batch where the model could not be made for one; its parameters are inside."""
    one = {name: value[:1] for name, value in inputs.items()}
    try:
        backend.load(bundle, kind)(one)
    except BackendFailure:
        return inputs
    return one


def _features(bundle: Bundle, inputs: Mapping[str, Array], backend: Backend) -> dict[str, Array]:
    *preferred, last = features_kinds(bundle.manifest, backend.target) or ("",)
    for kind in preferred:
        with contextlib.suppress(BackendFailure):
            return _copies(backend.load(bundle, kind)(inputs))
    return _copies(backend.load(bundle, last)(inputs)) if last else {}


def _copies(made: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.array(value) for name, value in made.items()}


def _time(program: Program, feeds: Mapping[str, Array]) -> float:
    """Milliseconds of the fastest run within a small budget: the one least disturbed by others."""
    program(feeds)
    times: list[float] = []
    while not times or (sum(times) < _BUDGET_S and len(times) < _MOST_RUNS):
        begin = time.perf_counter()
        program(feeds)
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


def _judged(verdict: Verdict, output: str) -> Verdict:
    pace = f"{verdict.ms:.3g} ms, the CPU {verdict.cpu_ms:.3g} ms"
    if verdict.taken == 0:
        return replace(verdict, state="idle", reason=f"takes none of the {verdict.operators} operators")
    if not verdict.error <= 1:
        reason = f"{output!r} is {verdict.error:.3g} x the allowed difference away from the CPU's"
        return replace(verdict, state="wrong", reason=reason, error=min(verdict.error, _MOST_ERROR))
    state: State = "right" if verdict.ms <= MARGIN * verdict.cpu_ms else "slower"
    return replace(verdict, state=state, reason=pace)
