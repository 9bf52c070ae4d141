# SPDX-License-Identifier: Apache-2.0
"""Training between two steps, as values that another process can go on from, to the same bits.

Where in the examples training is needs no words: the order of every pass and the seed of every step follow
from the options and the number of steps made.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.errors import NotResumable
from edgefl.options import FitOptions
from edgefl.runtime.optimizer import State
from edgefl.strictjson import canonical

Array = npt.NDArray[Any]

EVERY_S = 60.0
"""Seconds of training that a crash may cost."""


@dataclass(frozen=True)
class Checkpoint:
    """All that decides the steps to come, beside the options and the examples.

    Attributes:
        subject: digest of options, examples, and what training began from; see `subject_of`.
        parameters: the trained ones.
        buffers: those that steps give anew.
        state: of the update rule.
        losses: of the steps made so far, so that there are as many of both.
        seconds: that these steps took, where whoever trains keeps count.
        best: of the best pass so far, see `edgefl.runtime.early_stopping`; empty where that is not asked for.
    """

    subject: str
    parameters: Mapping[str, Array]
    buffers: Mapping[str, Array]
    state: State
    losses: tuple[float, ...]
    seconds: float = 0.0
    best: Mapping[str, Array] = field(default_factory=dict)

    def arrays(self) -> dict[str, Array]:
        """All of it but the subject and the seconds, by names that `of_arrays` knows."""
        return {
            **{f"parameter/{name}": value for name, value in self.parameters.items()},
            **{f"buffer/{name}": value for name, value in self.buffers.items()},
            **{f"best/{name}": value for name, value in self.best.items()},
            **{f"{use}:{name}": value for use, held in self.state.items() for name, value in held.items()},
            "losses": np.array(self.losses, np.float64),
        }

    @staticmethod
    def of_arrays(subject: str, arrays: Mapping[str, Array], seconds: float = 0.0) -> Checkpoint:
        """The same from what `arrays` gave; raises KeyError or ValueError where it gave something else."""
        parts: dict[str, dict[str, Array]] = {"parameter": {}, "buffer": {}, "best": {}}
        state: State = {}
        for key, value in arrays.items():
            kind, slash, name = key.partition("/")
            if slash and kind in parts:
                parts[kind][name] = value
            elif key != "losses":
                use, _, name = key.partition(":")
                state.setdefault(use, {})[name] = value
        losses = tuple(arrays["losses"].tolist())
        return Checkpoint(subject, parts["parameter"], parts["buffer"], state, losses, seconds, parts["best"])


class Keeper:
    """Hands out checkpoints every so many seconds while training runs."""

    def __init__(self, keep: Callable[[Checkpoint], None] | None, every_s: float) -> None:
        self._keep, self._every_s = keep, every_s
        self._last = time.monotonic()

    def after_step(self, make: Callable[[], Checkpoint | None]) -> None:
        """A step was made; `make` gives its checkpoint, or None where the engine cannot."""
        if self._keep is None or time.monotonic() - self._last < self._every_s:
            return
        made = make()
        if made is not None:
            self._keep(made)
        self._last = time.monotonic()


def subject_of(options: FitOptions, *groups: Mapping[str, Array]) -> str:
    """A digest of all that training follows from; other examples or options are another training."""
    digest = hashlib.blake2b(canonical(options.to_json()), digest_size=16)
    for group in groups:
        for name in sorted(group):
            value = np.ascontiguousarray(group[name])
            digest.update(canonical([name, list(value.shape), value.dtype.str]))
            digest.update(value.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def check_state(resume: Checkpoint, fresh: State) -> None:
    """Refuse an update rule's state that is of another rule than `fresh`, which it begins with."""
    if _forms(resume.state) != _forms(fresh):
        raise NotResumable(
            f"the checkpoint holds {sorted(resume.state) or 'nothing'} of the optimizer, "
            f"which has {sorted(fresh) or 'nothing'}"
        )


def _forms(state: State) -> dict[str, dict[str, tuple[int, ...]]]:
    return {use: {name: value.shape for name, value in held.items()} for use, held in state.items()}
