# SPDX-License-Identifier: Apache-2.0
"""The federation's model, one of the person's own, or a mixture: chosen on held-out examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt

from edgefl.data import Examples
from edgefl.errors import DataError, OptionError
from edgefl.options import FitOptions
from edgefl.parameters import Arrays
from edgefl.runtime.metrics import Metrics
from edgefl.runtime.sides import divided
from edgefl.runtime.trainer import Trainer

Array = npt.NDArray[Any]

VALIDATION = 0.2
"""Part of the examples that is held out where nothing is said."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Parts of a person's own model in the mixtures that are tried."""


@dataclass(frozen=True)
class Tried:
    """One mixture: the part of the person's own model in it, and how good it is on the held-out examples."""

    share: float
    metrics: Metrics


@dataclass(frozen=True)
class Personal:
    """What `personalize` chose.

    Attributes:
        share: part of the person's own model: 0 is the federation's model as it was, 1 the person's own.
        tried: every mixture, by share.
        steps: of training the person's own model.
        federated, own: all trained parameters and updated buffers of both models.
    """

    share: float
    tried: tuple[Tried, ...]
    steps: int
    federated: Arrays = field(repr=False)
    own: Arrays = field(repr=False)

    @property
    def kind(self) -> str:
        """`global`, `personal` or `mixed`."""
        return {0.0: "global", 1.0: "personal"}.get(self.share, "mixed")

    def mixture(self, share: float) -> Arrays:
        """The model with some part of the person's own in it."""
        return _mixed(self.federated, self.own, share)


def held_out(
    examples: Examples, trainer: Trainer, fraction: float, seed: int = 0
) -> tuple[Examples, Examples]:
    """Examples to train on, and those held out of it.

    See `edgefl.runtime.sides`: an example stays on its side whatever comes to it or goes.

    Args:
        fraction: about how much is held out, over 0 and below 1.
        seed: of the division; another one gives another.

    Raises:
        DataError: the examples do not fit the model, or too few are there to have some on each side.
    """
    if not 0.0 < fraction < 1.0:
        raise OptionError("allowed is a number over 0 and below 1", {"fraction": fraction})
    rest, held = divided(examples, trainer.bundle.manifest, fraction, seed)
    if not len(rest) or not len(held):
        raise DataError(f"of {len(examples)} examples {len(held)} would be held out; more are needed")
    return rest, held


def personalize(
    trainer: Trainer,
    examples: Examples,
    options: FitOptions | None = None,
    *,
    shares: Sequence[float] = SHARES,
) -> Personal:
    """Train a model of the person's own from the trainer's, and leave the best mixture of both loaded.

    The best is right most often on the held-out examples, then has the smallest loss; of equals, the one
    nearest to the federation's.

    Args:
        examples: the person's.
        options: how to train; its `validation` is the part held out, a fifth where that is 0.
        shares: mixtures to try, each from 0 to 1; the federation's model is always one.

    Raises:
        DataError: see `held_out`.
        NotFinite: training diverged; the trainer is as before.
    """
    if not all(0.0 <= share <= 1.0 for share in shares):
        raise OptionError("allowed are numbers from 0 to 1", {"shares": tuple(shares)})
    options = options or FitOptions()
    options = replace(options, validation=options.validation or VALIDATION)
    _, held = held_out(examples, trainer, options.validation)
    begun = trainer.parameters()
    report = trainer.fit(examples.x, examples.y, options, sample_weight=examples.weight)
    own = trainer.parameters()
    tried = []
    for share in sorted({0.0, *map(float, shares)}):
        trainer.load_parameters(_mixed(begun, own, share))
        tried.append(Tried(share, trainer.evaluate(held.x, held.y, held.weight)))
    best = min(tried, key=lambda one: (-(one.metrics.accuracy or 0.0), one.metrics.loss, one.share))
    trainer.load_parameters(_mixed(begun, own, best.share))
    return Personal(best.share, tuple(tried), report.steps, begun, own)


def _mixed(begun: Arrays, own: Arrays, share: float) -> Arrays:
    if share in (0.0, 1.0):
        return own if share else begun
    return {
        name: ((1.0 - share) * value + share * own[name]).astype(value.dtype) for name, value in begun.items()
    }
