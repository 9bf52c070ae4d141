# SPDX-License-Identifier: Apache-2.0
"""How far a converted model is from its framework: one step's gradients, and twenty steps of SGD.

Twenty steps of plain SGD start from the same values and see the same batch. Each moves `LENGTH` at first:
longer steps leave the region in which networks with kinks amplify rounding less than a hundredfold.

Some networks leave the bounds all the same: where a unit lies within rounding of a kink, float32 may take the
other side. Two things tell that from a mistake: in float64 the step has the framework's gradient at every
point of the framework's path (`along.py`), and the framework in float32 leaves that path too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.converters import convert
from edgefl.runtime import Trainer
from tests.models.along import along
from tests.models.double import Batch, DoubleStep
from tests.models.norms import DOUBLE, FLOOR, FLOOR_DOUBLE, GRADIENT, TRAJECTORY, gradient_errors, norm
from tests.models.reference import Reference, Values, reference
from tests.models.zoo import Entry

STEPS, BATCH, LENGTH = 20, 4, 0.01
NAN = float("nan")


@dataclass(frozen=True)
class Outcome:
    """What was measured.

    Attributes:
        seconds: of processor time the conversion took.
        parameters: numbers trained.
        gradient: largest error of a parameter's gradient, float32 on onnxruntime.
        worst: that parameter.
        double: the same in float64 on the NumPy interpreter.
        loss: relative error of the first loss.
        losses: largest relative error of the losses of twenty steps.
        moved: error of the change twenty steps make, all parameters together.
        own_gradient, own_moved: `gradient` and `moved` of the framework itself in float32, where any of the
            above was out of bounds; NaN elsewhere.
        along: likewise, the largest error of a gradient at the points of the framework's path, in float64.
        idle: parameters frozen because the loss does not depend on them.
    """

    seconds: float
    parameters: int
    gradient: float
    worst: str
    double: float
    loss: float
    losses: float
    moved: float
    own_gradient: float
    own_moved: float
    along: float
    idle: tuple[str, ...]

    @property
    def within(self) -> bool:
        """Whether one step and twenty are the framework's."""
        return self.gradient < GRADIENT and self.double < DOUBLE and self.moved < TRAJECTORY

    @property
    def right(self) -> bool:
        """Whether they are, or would be but for rounding."""
        return self.within or self.along < GRADIENT


def measure(entry: Entry, *, backend: str = "onnx") -> Outcome:
    """Convert an entry and compare it."""
    model = entry.build()
    started = time.process_time()
    bundle = converted(entry, model)
    seconds = time.process_time() - started
    return compare(entry, model, bundle, seconds, backend=backend)


def converted(entry: Entry, model: Any, targets: tuple[str, ...] = ("onnx",)) -> Bundle:
    return convert(
        model, entry.example_inputs(), loss=entry.loss, batch_size=BATCH, targets=targets, name=entry.name
    )


def compare(entry: Entry, model: Any, bundle: Bundle, seconds: float, *, backend: str) -> Outcome:
    truth = reference(entry, model)
    batch = Batch(entry.data(BATCH), entry.labels(BATCH), bundle)
    trainer = Trainer(bundle, backend=backend)
    start = trainer.parameters()
    idle = tuple(sorted(truth.trainable - set(start)))
    values = {n: v for n, v in bundle.parameters().items() if n in truth.trainable}
    loss, wanted = truth.differentiate(values, batch.data, batch.y)
    got_loss, got = trainer.loss_and_gradients(batch.x, batch.y)
    errors = gradient_errors({**{n: np.zeros_like(values[n]) for n in idle}, **got}, wanted, FLOOR)
    worst = max(errors, key=lambda name: errors[name])
    lr = LENGTH / max(norm(wanted), 1e-12)
    report = trainer.fit(batch.x, batch.y, epochs=STEPS, lr=lr)
    way = Way(start, lr, *_descend(lambda now: truth.differentiate(now, batch.data, batch.y), start, lr))
    step = DoubleStep(bundle, batch)
    exact = step(start)[1]
    scale = max(map(abs, way.losses))
    outcome = Outcome(
        seconds=seconds,
        parameters=sum(v.size for v in start.values()),
        gradient=errors[worst],
        worst=worst,
        double=max(gradient_errors(exact, {n: wanted[n] for n in exact}, FLOOR_DOUBLE).values()),
        loss=abs(got_loss - loss) / abs(loss),
        losses=max(abs(a - b) / scale for a, b in zip(report.losses, way.losses, strict=True)),
        moved=way.missed(trainer.parameters()),
        own_gradient=NAN,
        own_moved=NAN,
        along=NAN,
        idle=idle,
    )
    if outcome.within:
        return outcome
    points = along(truth, step, batch, start, lr, STEPS)
    beside = _own(reference(entry, model, "float32"), batch, values, wanted, way)
    return replace(outcome, **beside, along=max(best for _, best in points))


def _own(single: Reference, batch: Batch, values: Values, wanted: Values, way: Way) -> dict[str, float]:
    """How far the framework in float32 is from itself in float64."""
    _, got = single.differentiate(values, batch.data, batch.y)
    end = _descend(lambda now: single.differentiate(now, batch.data, batch.y), way.start, way.lr, np.float32)
    return {
        "own_gradient": max(gradient_errors(got, wanted, FLOOR).values()),
        "own_moved": way.missed(end[1]),
    }


@dataclass(frozen=True)
class Way:
    """The framework's twenty steps in float64: where they began, their length, their losses, their end."""

    start: Values
    lr: float
    losses: list[float]
    end: Values

    def missed(self, got: Values) -> float:
        """How far off another end is, relative to the way to this one."""
        whole = norm({n: v - self.start[n] for n, v in self.end.items()})
        return norm({n: got[n] - v for n, v in self.end.items()}) / whole


def _descend(
    differentiate: Callable[[Values], tuple[float, Values]],
    start: Values,
    lr: float,
    dtype: type[np.floating[Any]] = np.float64,
) -> tuple[list[float], Values]:
    """The losses of plain SGD in `dtype`, and where it ends."""
    values: Values = {n: v.astype(dtype) for n, v in start.items()}
    losses = []
    for _ in range(STEPS):
        loss, found = differentiate(values)
        losses.append(loss)
        values = {n: v - dtype(lr) * found[n].astype(dtype) for n, v in values.items()}
    return losses, values
