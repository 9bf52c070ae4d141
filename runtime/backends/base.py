# SPDX-License-Identifier: Apache-2.0
"""What an engine is to the rest of the runtime: something that loads a graph and runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Artifact, Bundle
from edgefl.bundle.missing import why_missing
from edgefl.errors import BackendUnavailable
from edgefl.options import FitOptions

Array = npt.NDArray[Any]


class Program(Protocol):
    """A loaded graph."""

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by contract name, for inputs by contract name of exactly the graph's shapes and dtypes.

        The arrays may be reused by the next call. Raises BackendFailure where the engine refuses.
        """
        ...


class Backend(Protocol):
    """An engine.

    Attributes:
        name: one of `edgefl.runtime.backends.BACKENDS` or `BY_NAME`.
        target: whose artifacts it runs.
        version: the package that does the work, and its version.
    """

    name: str
    target: str
    version: str

    def load(self, bundle: Bundle, kind: str) -> Program:
        """Make one artifact ready to run.

        Raises:
            BackendUnavailable: the bundle has no such artifact for the engine's target.
            BackendFailure: the engine refuses the artifact.
        """
        ...


class ProvingBackend(Backend, Protocol):
    """An engine that gives the results a bundle was made with before it runs a graph."""

    def prove(self, bundle: Bundle, kind: str) -> None:
        """Try a graph, or ask the verdict kept from before.

        Raises:
            BackendFailure: the engine computes the graph wrongly; `load` raises it too.
            BackendUnavailable: the bundle lacks the artifact, or does not say what is right.
        """
        ...


@dataclass(frozen=True)
class Recipe:
    """How a fit trains, for engines whose update rule is their own (see `own_steps`).

    Attributes:
        options: with the learning rate decided.
        corrected: whether a direction is added to each gradient.
    """

    options: FitOptions
    corrected: bool = False


def own_steps(
    backend: Backend, bundle: Bundle, recipe: Recipe, parameters: Mapping[str, Array]
) -> Any | None:
    """The engine's own training in place of `edgefl.runtime.steps.Steps`; None for engines without one."""
    make = getattr(backend, "steps", None)
    return None if make is None else make(bundle, recipe, parameters)


@dataclass(frozen=True)
class Names:
    """Translation between contract names and an artifact's own."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    @staticmethod
    def of(artifact: Artifact) -> Names:
        return Names(dict(artifact.inputs), {own: name for name, own in artifact.outputs.items()})

    def to_own(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        own = self.inputs
        return {own.get(name, name): value for name, value in feeds.items()} if own else feeds

    def to_contract(self, own: str) -> str:
        return self.outputs.get(own, own)


def artifact_of(bundle: Bundle, target: str, kind: str) -> Artifact:
    """The manifest's row for an artifact; raises BackendUnavailable where there is none."""
    found = bundle.manifest.find(target, kind)
    if found is None:
        raise BackendUnavailable(why_missing(bundle.manifest, target, kind))
    return found


def as_array(value: Any) -> Array:
    """Engines give scalars as NumPy scalars or arrays; the runtime sees arrays."""
    return value if isinstance(value, np.ndarray) else np.asarray(value)
