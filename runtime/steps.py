# SPDX-License-Identifier: Apache-2.0
"""One step after another, each checked before its update is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.errors import NotFinite
from edgefl.options import FitOptions
from edgefl.runtime.batches import Passes
from edgefl.runtime.checkpoint import Checkpoint, check_state
from edgefl.runtime.optimizer import Optimizer, State, adam, clip_by_norm, proximal, sgd

if TYPE_CHECKING:
    from edgefl.runtime.backends.base import Program

Array = npt.NDArray[Any]

SEEDS = 1 << 24
"""The seed of a step is below this; -1 computes as at inference."""


@dataclass
class Mode:
    """What a step takes beside examples and parameters.

    Attributes:
        buffers: those the step gives anew, such as statistics of BatchNorm.
        seeds: draws the `seed` of each step; None where the step takes none.
    """

    buffers: dict[str, Array]
    seeds: np.random.Generator | None = None

    def feeds(self) -> dict[str, Array]:
        """The next step's."""
        if self.seeds is None:
            return self.buffers
        return {**self.buffers, "seed": self.seeds.integers(0, SEEDS, 1).astype(np.int32)}

    def take(self, made: Mapping[str, Array]) -> None:
        """Keep the buffers a step gave."""
        self.buffers = {name: made[f"buffer/{name}"].copy() for name in self.buffers}


@dataclass(frozen=True)
class Begin:
    """Where a `fit` begins.

    Attributes:
        bundle: what is trained.
        parameters: the trained ones, shared and personal, as they are.
        load: gives the bundle's step graph, loaded; not asked by engines that train by graphs of their own.
        base: what `mu` pulls towards.
        correction: a direction added to the gradients of some or all parameters.
        mode: what a step takes beside.
        planned: steps there will be, for schedules; 0 where that is not known.
        resume: training that is gone on with, from the parameters and buffers it had; None where it is new.
    """

    bundle: Bundle
    parameters: dict[str, Array]
    load: Callable[[], Program]
    base: Mapping[str, Array] = field(default_factory=dict)
    correction: Mapping[str, Array] = field(default_factory=dict)
    mode: Mode = field(default_factory=lambda: Mode({}))
    resume: Checkpoint | None = None
    planned: int = 0


class Steps(Protocol):
    """Training under way.

    Attributes:
        parameters: as they are now.
        losses: of every step, before its update.
        mode: holds the buffers as they are now.
        state: of the update rule; None where the engine does not give it, so that nothing goes on from here.
    """

    @property
    def parameters(self) -> dict[str, Array]: ...

    @property
    def state(self) -> State | None: ...

    losses: list[float]
    mode: Mode

    def step(self, feeds: Mapping[str, Array]) -> float:
        """Loss before the update; raises NotFinite and updates nothing where the loss is not finite."""
        ...


class GraphSteps:
    """Parameters, buffers and optimizer state on their way through one `fit` by a step graph."""

    def __init__(
        self,
        program: Program,
        rule: Callable[[int], Optimizer],
        clip_norm: float | None,
        begin: Begin,
    ) -> None:
        """
        Args:
            rule: the update rule after so many steps; all of them keep the same state.
        """
        self.parameters, self.losses, self.mode = begin.parameters, list[float](), begin.mode
        self._program, self._rule, self._clip_norm = program, rule, clip_norm
        self.state = rule(0).init(begin.parameters)
        if begin.resume is not None:
            check_state(begin.resume, self.state)
            self.state, self.losses = begin.resume.state, list(begin.resume.losses)

    def step(self, feeds: Mapping[str, Array]) -> float:
        """Loss before the update; raises NotFinite and updates nothing where loss or gradients are not."""
        made = self._program({**feeds, **self.parameters, **self.mode.feeds()})
        loss, gradients = checked(made, self.parameters, len(self.losses) + 1)
        if self._clip_norm is not None:
            gradients = clip_by_norm(gradients, self._clip_norm)
        rule = self._rule(len(self.losses))
        self.parameters, self.state = rule.apply(self.parameters, gradients, self.state)
        self.mode.take(made)
        self.losses.append(loss)
        return loss


def by_graph(options: FitOptions, begin: Begin) -> GraphSteps:
    """Training by the bundle's step graph, with the update rule of `edgefl.runtime.optimizer`."""
    assert options.lr is not None
    lr, v = options.lr, proximal(options.pull, begin.base, begin.correction)
    # Weight decay pulls too, but towards zero, so v has no part in it.
    pull = options.pull + options.weight_decay

    def rule(done: int) -> Optimizer:
        rate = lr * share(options.schedule, done, begin.planned)
        return (
            adam(rate, mu=pull, v=v) if options.optimizer == "adam" else sgd(rate, options.momentum, pull, v)
        )

    return GraphSteps(begin.load(), rule, options.clip_norm, begin)


def share(schedule: str, done: int, planned: int) -> float:
    """The part of the learning rate that the next step takes, after some of those planned; never 0."""
    if schedule == "constant" or not planned:
        return 1.0
    left = 1 - min(done, planned - 1) / planned
    return left if schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)


def passes(
    batches: Passes, epochs: int, generator: np.random.Generator, skip: int = 0
) -> Iterator[dict[str, Array]]:
    """Batches of several passes over the examples, each in a new order, without the first `skip`."""
    for _ in range(epochs):
        order = generator.permutation(batches.examples)
        if skip >= len(batches):
            skip -= len(batches)
            continue
        for feeds, _count in batches(order, skip):
            yield feeds
        skip = 0


def checked(
    made: Mapping[str, Array], names: Mapping[str, object], step: int
) -> tuple[float, dict[str, Array]]:
    """Loss and gradients of a step; NotFinite names the step and the loss."""
    loss = float(made["loss"])
    if not math.isfinite(loss):
        raise NotFinite(f"loss is {loss} at step {step}: a smaller lr or clip_norm may help")
    gradients = {name: made[f"grad/{name}"] for name in names}
    if (name := _not_finite(gradients)) is not None:
        raise NotFinite(f"gradient of {name!r} holds NaN or infinity at step {step}, with loss {loss}")
    return loss, gradients


def check_finite(parameters: Mapping[str, Array], step: int | None = None) -> None:
    """Raise NotFinite naming the first parameter that holds NaN or infinity."""
    if (name := _not_finite(parameters)) is not None:
        when = "" if step is None else f" after step {step}"
        raise NotFinite(f"parameter {name!r} holds NaN or infinity{when}")


def _not_finite(values: Mapping[str, Array]) -> str | None:
    """The first that holds NaN or infinity."""
    # A sum is several times cheaper than looking at each element, and only wrong where it overflows.
    with np.errstate(all="ignore"):
        for name, value in values.items():
            if not (math.isfinite(float(value.sum())) or np.isfinite(value).all()):
                return name
    return None
