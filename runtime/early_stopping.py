# SPDX-License-Identifier: Apache-2.0
"""Training that ends where it no longer helps: the loss on examples left out of it is measured after every
pass, and the best pass is what counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.errors import NotResumable

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Measure = Callable[[Arrays, Arrays], float]
"""(trained parameters, buffers) -> mean loss on the examples left out."""


@dataclass(frozen=True)
class Best:
    """The best pass so far.

    Attributes:
        loss: on the examples left out.
        waited: passes since.
    """

    loss: float
    parameters: Arrays
    buffers: Arrays
    waited: int = 0

    def arrays(self) -> dict[str, Array]:
        """All of it, by names that `of_arrays` knows."""
        return {
            **{f"parameter/{name}": value for name, value in self.parameters.items()},
            **{f"buffer/{name}": value for name, value in self.buffers.items()},
            "loss": np.array(self.loss, np.float64),
            "waited": np.array(self.waited, np.int64),
        }

    @staticmethod
    def of_arrays(arrays: Arrays) -> Best:
        """The same from what `arrays` gave; KeyError or ValueError where it gave something else."""
        kept: dict[str, dict[str, Array]] = {"parameter": {}, "buffer": {}}
        for key, value in arrays.items():
            kind, slash, name = key.partition("/")
            if slash:
                kept[kind][name] = value
        return Best(float(arrays["loss"]), kept["parameter"], kept["buffer"], int(arrays["waited"]))


class Stopping:
    """Asked after every pass whether another one is to follow."""

    def __init__(self, patience: int, measure: Measure, resumed: Arrays | None = None) -> None:
        """
        Args:
            patience: passes without a smaller loss after which training ends.
            resumed: `kept` of an earlier stint.

        Raises:
            NotResumable: that is nothing `kept` gives.
        """
        self._patience, self._measure = patience, measure
        try:
            self.best = Best.of_arrays(resumed) if resumed else None
        except (KeyError, ValueError) as exc:
            raise NotResumable(f"the checkpoint's best pass cannot be read: {exc!r}") from exc

    def after_pass(self, parameters: Arrays, buffers: Arrays) -> bool:
        """Whether training is to end here."""
        loss = self._measure(parameters, buffers)
        best = self.best
        if best is None or loss < best.loss:
            # A loss that is no number is worse than any.
            self.best = Best(loss if math.isfinite(loss) else math.inf, parameters, buffers)
        else:
            self.best = Best(best.loss, best.parameters, best.buffers, best.waited + 1)
        return self.best.waited >= self._patience

    def kept(self) -> dict[str, Array]:
        """What a checkpoint has of it; empty before the first pass has ended."""
        return {} if self.best is None else self.best.arrays()
