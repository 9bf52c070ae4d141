# SPDX-License-Identifier: Apache-2.0
"""What an engine is to the rest of the runtime: something that loads a graph and runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Artifact, Bundle
from edgefl.bundle.missing import why_missing
from edgefl.errors import BackendUnavailable
from edgefl.options import FitOptions
from edgefl.runtime.delegates.choice import Placement
from edgefl.runtime.steps import Begin, Steps, by_graph

if TYPE_CHECKING:
    from edgefl.runtime.backends.fastest import Speed

Array = npt.NDArray[Any]


class Program(Protocol):
    """A loaded graph."""

    @property
    def placement(self) -> Placement:
        """Where its operators run, as far as the engine says."""
        ...

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by contract name, for inputs by contract name of exactly the graph's shapes and dtypes.

        The arrays may be reused by the next call. Raises BackendFailure where the engine refuses.
        """
        ...


class Placed:
    """A function as a program.

    Attributes:
        placement: where its operators run.
    """

    def __init__(self, call: Callable[[Mapping[str, Array]], dict[str, Array]], placement: Placement) -> None:
        self._call, self.placement = call, placement

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self._call(feeds)


class Backend(Protocol):
    """An engine; `Engine` has all of this but `load`, as most engines need it.

    Attributes:
        name: one of `edgefl.runtime.backends.BACKENDS` or `BY_NAME`.
        target: whose artifacts it runs.
        version: the package that does the work, and its version.
    """

    name: str
    target: str
    version: str

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers the engine was built with; empty where it has no such thing."""
        ...

    @property
    def speeds(self) -> tuple[Speed, ...]:
        """Of the engines this one was chosen among, the fastest first; empty where there was no choice."""
        ...

    @property
    def own_step(self) -> bool:
        """Whether `start` trains by graphs and an update rule of the engine's own, not by `load`'s step."""
        ...

    def load(self, bundle: Bundle, kind: str) -> Program:
        """Make one artifact ready to run.

        Raises:
            BackendUnavailable: the bundle has no such artifact for the engine's target.
            BackendFailure: the engine refuses the artifact.
        """
        ...

    def start(self, options: FitOptions, begin: Begin) -> Steps:
        """Begin to train.

        Args:
            options: with the learning rate decided.

        Raises:
            OptionError: the engine cannot train so.
            BackendUnavailable, BackendFailure: an artifact is missing or refused.
        """
        ...


class Engine:
    """What engines have in common: none of the extras, and training by the bundle's step graph."""

    providers: tuple[str, ...] = ()
    speeds: tuple[Speed, ...] = ()
    own_step: bool = False

    def start(self, options: FitOptions, begin: Begin) -> Steps:
        """See `Backend.start`."""
        return by_graph(options, begin)


class ProvingBackend(Engine, ABC):
    """An engine that gives the results a bundle was made with before it runs a graph."""

    name: str
    target: str
    version: str

    @abstractmethod
    def load(self, bundle: Bundle, kind: str) -> Program:
        """See `Backend.load`; raises BackendFailure where the engine computes the graph wrongly."""

    @abstractmethod
    def prove(self, bundle: Bundle, kind: str) -> None:
        """Try a graph, or ask the verdict kept from before.

        Raises:
            BackendFailure: the engine computes the graph wrongly; `load` raises it too.
            BackendUnavailable: the bundle lacks the artifact, or does not say what is right.
        """


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
