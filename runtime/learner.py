# SPDX-License-Identifier: Apache-2.0
"""From the server's parameters to an update: the seam between the client and training."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np

from edgefl.bundle import Bundle
from edgefl.data import Examples, check_examples, check_weight
from edgefl.errors import DataError, NotFinite
from edgefl.options import FitOptions
from edgefl.parameters import Arrays, Vector
from edgefl.runtime.algorithms import Drift, correction
from edgefl.runtime.backends import Backend
from edgefl.runtime.checkpoint import EVERY_S, Checkpoint
from edgefl.runtime.delegates import Placement
from edgefl.runtime.feature_cache import FeatureCache
from edgefl.runtime.holdout import Divided
from edgefl.runtime.limits import Stopwatch
from edgefl.runtime.metrics import Metrics
from edgefl.runtime.pause import Interrupted
from edgefl.runtime.personal import Personal, personalize
from edgefl.runtime.rows import Rows
from edgefl.runtime.store.source import Fixed, Source
from edgefl.runtime.trainer import FitReport, Trainer

log = logging.getLogger("edgefl.client")


@dataclass(frozen=True)
class Learned:
    """What training gave.

    Attributes:
        delta: new minus base of the shared parameters, float32 of shape `(schema.size,)`, finite.
        loss: mean of the steps' losses.
        placements: which graph ran where.
        steps: how many there were.
        own: personal parameters and updated buffers as they are now; they never leave the device.
    """

    delta: Vector
    loss: float
    placements: tuple[Placement, ...] = ()
    steps: int = 1
    own: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Stint:
    """What a device brings to one round's training beside the server's parameters and options.

    Attributes:
        own: `Learned.own` of the last round that came to an end; None before the first.
        drift: `Work.drift` of the last update that was accepted; None before the first.
        control: the server's control variate, where the algorithm has one.
        should_stop: asked before each step; true ends training with `Interrupted`.
        seconds: most that steps may take; what they gave by then is the result.
        resume: where an earlier stint for the same task stopped.
        keep: given a checkpoint every `keep_every_s` seconds of training.
    """

    own: Arrays | None = None
    drift: Drift | None = None
    control: Vector | None = None
    should_stop: Callable[[], bool] | None = None
    seconds: float | None = None
    resume: Checkpoint | None = None
    keep: Callable[[Checkpoint], None] | None = None
    keep_every_s: float = EVERY_S


ALONE = Stint()
"""Training with nothing beside, to the end."""


class Learner(Protocol):
    """Trains on the examples of one device.

    Attributes:
        engine: what runs the step, for the server's record.
        examples: how many there are.
    """

    engine: str

    @property
    def examples(self) -> int: ...

    def learn(self, parameters: Arrays, options: FitOptions, stint: Stint) -> Learned:
        """Train from shared parameters.

        Raises:
            DataError, BackendError: that is impossible.
            Interrupted: the stint said to stop before the end.
            NotResumable: what the stint would have resumed was another training.
        """
        ...


class TrainerLearner:
    """A `Trainer` over a device's examples, which keeps nothing from one round to the next but the features.

    Learners may share a trainer: each puts its own personal parameters, buffers and features in place.
    """

    def __init__(
        self,
        bundle: Bundle,
        examples: Examples | Source,
        *,
        backend: str | Backend = "auto",
        delegate: str = "auto",
        threads: int = 1,
        features: FeatureCache | None = None,
        trainer: Trainer | None = None,
        holdout: float = 0.0,
    ) -> None:
        """Check the examples and choose the engine.

        Args:
            examples: those of every round, or what gives each round its own.
            features: keeps features of the frozen part over rounds and restarts.
            trainer: of the same bundle, in place of one with the engine asked for.
            holdout: part of the examples that is held out of training, to measure versions on.

        Raises:
            DataError: the examples do not fit the model, or so few stay as they are that all are held out.
            BackendError: no engine can run it.
        """
        if isinstance(examples, Examples):
            check_examples(examples.x, examples.y, bundle.manifest)
            check_weight(examples.weight, len(examples))
            examples = Fixed(examples)
        if holdout:
            examples = _divided(examples, bundle, holdout)
        self._trainer = trainer or Trainer(bundle, backend, delegate, threads)
        self._source, self._schema, self._features = examples, bundle.schema(), features
        self.engine = f"{self._trainer.backend.name} {self._trainer.backend.version}"[:64]
        self._told: set[Placement] = set()

    @property
    def examples(self) -> int:
        """How many there are now."""
        return len(self._source)

    @property
    def held_out(self) -> int:
        """How many more are held out of training."""
        return self._source.held_out if isinstance(self._source, Divided) else 0

    def learn(self, parameters: Arrays, options: FitOptions, stint: Stint = ALONE) -> Learned:
        """See `Learner`. Raises NotFinite where training diverges."""
        if not self.examples:
            raise Interrupted  # all of them were forgotten since the device asked for work
        data = self._source.stream() or self._source.take(options.seed)
        x, y, weight = (data, None, None) if isinstance(data, Rows) else (data.x, data.y, data.weight)
        self._stand_in(parameters, stint.own)
        keep, worked = stint.keep, (stint.resume.seconds if stint.resume else 0.0)
        watch = Stopwatch(partial(self._should_stop, stint), stint.seconds, worked)
        report = self._trainer.fit(
            x,
            y,
            options,
            sample_weight=weight,
            correction=correction(options, self._schema, stint.drift, stint.control),
            should_stop=watch,
            resume=stint.resume,
            keep=keep and (lambda made: keep(replace(made, seconds=watch.worked))),
            keep_every_s=stint.keep_every_s,
        )
        self._tell(report)
        if self._source.forgotten_since():
            raise Interrupted  # what was learnt so far is not kept
        if watch.interrupted:
            raise Interrupted(report.checkpoint and replace(report.checkpoint, seconds=watch.worked))
        delta = self._schema.flatten(self._trainer.delta())
        loss = math.fsum(report.losses) / max(1, len(report.losses))
        if not np.isfinite(delta).all() or not math.isfinite(loss):
            raise NotFinite(f"training gave an update that is not finite, with loss {loss}")
        return Learned(delta, loss, report.placements, report.steps, self._trainer.own_parameters())

    def evaluate(self, parameters: Arrays, own: Arrays | None = None) -> Metrics:
        """How good shared parameters are on this device's examples, beside what it keeps to itself."""
        self._stand_in(parameters, own)
        data = self._source.take(0)
        return self._trainer.evaluate(data.x, data.y, data.weight)

    def measure(self, parameters: Arrays, most: int, stint: Stint = ALONE) -> Metrics:
        """See `edgefl.runtime.evaluating.Measurer`."""
        if not isinstance(self._source, Divided) or not self._source.held_out:
            raise DataError("no examples are held out")
        data = self._source.take_held_out().first(most)
        self._stand_in(parameters, stint.own)

        def go_on() -> None:
            if self._should_stop(stint):
                raise Interrupted

        return self._trainer.evaluate(data.x, data.y, data.weight, before_batch=go_on)

    def personalize(self, parameters: Arrays, options: FitOptions, own: Arrays | None = None) -> Personal:
        """A model of this device's own from shared parameters, see `edgefl.runtime.personal`."""
        self._stand_in(parameters, own)
        return personalize(self._trainer, self._source.take(options.seed), options)

    def _should_stop(self, stint: Stint) -> bool:
        return self._source.forgotten_since() or bool(stint.should_stop and stint.should_stop())

    def _stand_in(self, parameters: Arrays, own: Arrays | None) -> None:
        self._trainer.stand_in(own, self._features)
        self._trainer.rebase(parameters)

    def _tell(self, report: FitReport) -> None:
        """Say where graphs run, once and when it changes."""
        for placement in set(report.placements) - self._told:
            log.info("%s", placement)
        self._told.update(report.placements)
        log.debug("features of %d of %d examples were on disk", report.features_cached, report.examples)


def _divided(source: Source, bundle: Bundle, holdout: float) -> Divided:
    made = Divided(source, bundle.manifest, holdout)
    if isinstance(source, Fixed) and not len(made):
        raise DataError(f"all of {len(source)} examples are held out; more are needed, or a smaller holdout")
    return made
