# SPDX-License-Identifier: Apache-2.0
"""No graph runs unproved: an engine must first give the results the bundle was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from edgefl.bundle import Bundle
from edgefl.errors import BackendFailure
from edgefl.options import FitOptions
from edgefl.runtime.backends.base import Array, Backend, Placed, Program, ProvingBackend
from edgefl.runtime.delegates.choice import Choice, Placement, Verdict
from edgefl.runtime.delegates.truth import try_engine
from edgefl.runtime.delegates.verdicts import OWN_STEP, keep, recall
from edgefl.runtime.steps import Begin, Steps

_RATE = 4096.0
"""Of the step an engine with its own update rule is proved by: rounding of the parameters, which hide the
gradient, is small beside so long a move."""


def proving(backend: Backend) -> ProvingBackend:
    """The engine, which loads a graph only once it has proved right; itself where it sees to that."""
    return backend if isinstance(backend, ProvingBackend) else Proving(backend)


class Proving(ProvingBackend):
    """An engine's own code behind a trial, the outcome of which is kept on disk."""

    def __init__(self, backend: Backend, threads: int = 0) -> None:
        self._backend, self._threads = backend, threads
        self.name, self.target, self.version = backend.name, backend.target, backend.version
        self.providers, self.speeds, self.own_step = backend.providers, backend.speeds, backend.own_step

    def load(self, bundle: Bundle, kind: str) -> Program:
        """See `Backend.load`.

        Raises:
            BackendFailure: the engine computes the graph wrongly; the message names parameter and difference.
        """
        verdict = self._recall(bundle, kind)
        if verdict is not None:
            self._check(bundle, verdict)
        program = self._backend.load(bundle, kind)
        if verdict is None:
            self._check(bundle, self._tried(bundle, kind, program))
        return program

    def prove(self, bundle: Bundle, kind: str) -> None:
        """Raise BackendFailure where the engine computes a graph wrongly; BackendError as for `load`."""
        self._check(bundle, self.verdict(bundle, kind))

    def verdict(self, bundle: Bundle, kind: str) -> Verdict:
        """Whether the engine's own code gives a graph's results; BackendError where it does not run it."""
        known = self._recall(bundle, kind)
        if known is not None:
            return known
        return self._tried(bundle, kind, self._loaded(bundle, kind))

    def start(self, options: FitOptions, begin: Begin) -> Steps:
        """See `Backend.start`; training of the engine's own is proved first."""
        if self.own_step:
            self.prove(begin.bundle, OWN_STEP)
        return self._backend.start(options, begin)

    def _loaded(self, bundle: Bundle, kind: str) -> Program:
        if kind == OWN_STEP:
            return Placed(partial(own_step, self._backend, bundle), Placement(kind))
        return self._backend.load(bundle, kind)

    def _tried(self, bundle: Bundle, kind: str, program: Program) -> Verdict:
        graph = "step" if kind == OWN_STEP else kind
        verdict = replace(try_engine(bundle, graph, self.target, program), graph=kind)
        keep(verdict, bundle, self._choice, self._threads, self._version, self.target)
        return verdict

    def _recall(self, bundle: Bundle, kind: str) -> Verdict | None:
        return recall(bundle, kind, self._choice, self._threads, self._version, self.target)

    def _check(self, bundle: Bundle, verdict: Verdict) -> None:
        if verdict.state == "wrong":
            raise BackendFailure(
                f"{self.version} computes {verdict.graph} of {bundle.manifest.name!r} wrongly: "
                f"{verdict.reason}"
            )

    @property
    def _choice(self) -> Choice:
        return Choice(self.name)

    @property
    def _version(self) -> str:
        # Engines of an application may share a name with ours.
        return f"{self.version} by {type(self._backend).__module__}.{type(self._backend).__qualname__}"


def own_step(backend: Backend, bundle: Bundle, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Loss and gradients of an engine that shows only how far it moved each parameter."""
    parameters = {p.name: feeds[p.name] for p in bundle.manifest.trained}
    begin = Begin(bundle, parameters, lambda: backend.load(bundle, "step"))
    steps = backend.start(FitOptions(lr=_RATE), begin)
    loss = steps.step({name: value for name, value in feeds.items() if name not in parameters})
    moved = steps.parameters
    gradients = {f"grad/{n}": (value - moved[n]) / np.float32(_RATE) for n, value in parameters.items()}
    return {"loss": np.asarray(loss, np.float32), **gradients}
