# SPDX-License-Identifier: Apache-2.0
"""What a graph must give on its golden batch, and whether a loaded program gives it.

Engines and delegates both ask, so nothing here imports either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.errors import BackendFailure, BackendUnavailable, DataShape
from edgefl.proof import golden_feeds, sketched, stored_sketch
from edgefl.runtime.delegates.choice import CPU, Verdict
from edgefl.sketch import Difference, Sketch, difference, tolerance_for

if TYPE_CHECKING:
    from edgefl.runtime.backends.base import Program

Array = npt.NDArray[Any]
MOST_ERROR = 1e30


@dataclass(frozen=True)
class Truth:
    """What a graph is tried with, and what must come of it.

    Attributes:
        kind: the graph's.
        feeds: by contract name.
        rows: of the outputs that NumPy makes of them.
    """

    kind: str
    feeds: Mapping[str, Array]
    rows: Sketch

    @staticmethod
    def of(bundle: Bundle, target: str, kind: str) -> Truth:
        """From the bundle's proof; where it has none, from its ONNX graph.

        Raises:
            BackendUnavailable: there is neither, so no engine can be proved.
        """
        rows = stored_sketch(bundle, target, kind)
        if rows is None and not kind.endswith("-int8"):
            bundle = sketched(bundle)
            rows = stored_sketch(bundle, target, kind)
        if rows is None:
            raise BackendUnavailable(
                f"bundle {bundle.manifest.name!r} does not say what {kind} must give on its golden batch, so "
                "no engine can be proved right; convert the model again"
            )
        return Truth(kind, golden_feeds(bundle, kind), rows)

    def run(self, program: Program) -> tuple[Mapping[str, Array], dict[str, Array]]:
        """What the program took, and copies of what it made.

        An int8 model for deployment takes one example, or the batch where it could not be made for one.
        """
        if self.kind == "infer-int8":
            one = {name: value[:1] for name, value in self.feeds.items()}
            with contextlib.suppress(BackendFailure, DataShape):
                return one, copies(program(one))
        return self.feeds, copies(program(self.feeds))

    def difference(self, made: Mapping[str, Array], dtype: str = "float32") -> Difference:
        """The worst difference of what an engine of such arithmetic made."""
        return difference(self.rows, made, tolerance_for(self.kind, dtype))


def try_engine(bundle: Bundle, kind: str, target: str, program: Program, name: str = CPU) -> Verdict:
    """Whether a loaded program gives a graph's results, the first time and again.

    Args:
        name: what it runs on, in float32.
    """
    truth = Truth.of(bundle, target, kind)
    found = max((truth.difference(truth.run(program)[1]) for _ in range(2)), key=lambda one: one.excess)
    verdict = Verdict(name, kind, "right", "", error=min(found.excess, MOST_ERROR))
    return verdict if found.excess <= 1 else replace(verdict, state="wrong", reason=str(found))


def copies(made: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.array(value) for name, value in made.items()}
