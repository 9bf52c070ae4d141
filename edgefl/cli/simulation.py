# SPDX-License-Identifier: Apache-2.0
"""A federation in one process: the device's training and codec and the server's aggregation, without HTTP."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.delta import Encoded, Limits, Residual, SparseDelta, decode
from edgefl.errors import DataError
from edgefl.options import DOWNLINK
from edgefl.runtime import Trainer
from edgefl.runtime.update import encode_update
from edgefl.server_stub.aggregate import averaging
from edgefl.server_stub.downlink import CHAIN, Link, shortest, since_first
from edgefl.server_stub.values import Version
from edgefl.server_stub.versions import Line
from edgefl.tensorfile import read_tensors, write_tensors
from edgefl.wire import Training

Array = npt.NDArray[Any]
Coder = Callable[..., tuple[Encoded, Residual | None]]
"""Codes a device's update; called as `encode_update` is."""


@dataclass(frozen=True)
class Plan:
    """What to simulate.

    Attributes:
        rounds: how many.
        training: how devices train; its seed counts up with the rounds, as on the server.
        cohort: devices drawn per round, all where None; none is drawn again before all have been.
        server_lr, server_momentum: the server's step along the mean update.
        seed: of the draw of devices.
        downlink: how closely versions are published, see the server's settings.
    """

    rounds: int
    training: Training
    cohort: int | None = None
    server_lr: float = 1.0
    server_momentum: float = 0.0
    seed: int = 0
    downlink: float = DOWNLINK


@dataclass(frozen=True)
class RoundRow:
    """One simulated round.

    Attributes:
        round: its number, from 1.
        devices: how many took part.
        loss: their mean training loss, weighted by examples.
        bytes_up: of all frames; frames are all that is counted here, there is no HTTP.
        bytes_down: of what brought the devices from the version each had to this round's.
        accuracy: on the test examples, None without any or where the loss has no accuracy.
    """

    round: int
    devices: int
    loss: float
    bytes_up: int
    bytes_down: int
    accuracy: float | None


def simulate(
    bundle: Bundle,
    devices: Mapping[str, Examples],
    plan: Plan,
    *,
    test: Examples | None = None,
    backend: str = "auto",
    code: Coder = encode_update,
    on_round: Callable[[RoundRow, Bundle], None] | None = None,
) -> tuple[Bundle, list[RoundRow]]:
    """Run the rounds; the same arguments give the same model.

    Args:
        devices: examples by device name.
        code: what codes the updates; as devices do by default.
        on_round: called after each round with its row and the new model.

    Raises:
        DataError: there are no devices, or fewer than the cohort.
    """
    cohort = plan.cohort or len(devices)
    if not devices or cohort > len(devices):
        raise DataError(f"a cohort of {cohort} cannot be drawn from {len(devices)} devices")
    trainer = Trainer(bundle, backend=backend)
    server, residuals = _Server(bundle, plan), dict[str, Residual]()
    draw, rows = _turns(sorted(devices), cohort, np.random.default_rng(plan.seed)), []
    for number in range(1, plan.rounds + 1):
        names = next(draw)
        training = plan.training.in_round(number)
        done = [
            _device(trainer, bundle, name, devices[name], training, residuals, cohort, code) for name in names
        ]
        down = server.sent_to(names)
        bundle = server.next_version(done)
        rows.append(_row(number, done, down, _accuracy(trainer, bundle, test)))
        if on_round:
            on_round(rows[-1], bundle)
    return bundle, rows


def _turns(names: Sequence[str], cohort: int, rng: np.random.Generator) -> Iterator[list[str]]:
    """Cohorts in which every device has its turn before any has its next."""
    queue: list[str] = []
    while True:
        if len(queue) < cohort:
            rest = [name for name in names if name not in queue]
            queue += [rest[i] for i in rng.permutation(len(rest))]
        yield sorted(queue[:cohort])
        queue = queue[cohort:]


@dataclass(frozen=True)
class _Done:
    update: SparseDelta
    examples: int
    loss: float
    size: int


def _device(
    trainer: Trainer,
    bundle: Bundle,
    name: str,
    examples: Examples,
    training: Training,
    residuals: dict[str, Residual],
    cohort: int,
    code: Coder,
) -> _Done:
    """One device's round; what its frame left out stays in `residuals`."""
    trainer.rebase(bundle.parameters())
    report = trainer.fit(
        examples.x,
        examples.y,
        training.fit,
        sample_weight=examples.weight,
    )
    schema, version = bundle.schema(), bundle.manifest.model_version
    coded, residual = code(
        schema.flatten(trainer.delta()),
        training.coding,
        seed=training.fit.seed,
        schema=schema,
        base_version=version,
        device=name,
        cohort=cohort,
        residual=residuals.get(name),
    )
    if residual is not None:
        residuals[name] = residual
    limits = Limits(
        schema_id=schema.id,
        size=schema.size,
        max_nonzeros=schema.size,
        versions=frozenset({version}),
        max_bytes=len(coded.frame),
    )
    loss = float(np.mean(report.losses))
    return _Done(decode(coded.frame, limits), len(examples), loss, len(coded.frame))


class _Server:
    """The versions of the model, and which of them every device has."""

    def __init__(self, bundle: Bundle, plan: Plan) -> None:
        self._bundle, schema, values = bundle, bundle.schema(), bundle.parameters()
        shared = {p.name: values[p.name] for p in schema.parameters}
        optimizer = averaging(plan.server_lr, plan.server_momentum)
        first, state = bundle.manifest.model_version, write_tensors(optimizer.init(schema.size))
        self._line = Line(schema, first, schema.flatten(shared), optimizer, plan.downlink)
        self._version = Version(first, write_tensors(shared), state)
        self._links, self._held = deque[Link](maxlen=CHAIN), dict[str, int]()

    def next_version(self, done: Sequence[_Done]) -> Bundle:
        self._version = self._line.next_version(self._version, ((d.update, d.examples) for d in done))
        if self._version.publication is not None:
            self._links.append(self._version.publication.link)
        values = read_tensors(self._version.parameters)
        return self._bundle.with_parameters(values, self._version.number)

    def sent_to(self, names: Sequence[str]) -> int:
        """Bytes that bring devices to the newest version; the first one they have from the bundle."""
        newest, total, known = self._version.number, 0, dict[int, int]()
        for name in names:
            held = self._held.get(name, self._line.first)
            if held not in known:
                known[held] = 0 if held == newest else len(self._moves(held))
            total += known[held]
            self._held[name] = newest
        return total

    def _moves(self, held: int) -> bytes:
        if self._version.publication is None:
            return self._version.parameters
        links = [link for link in self._links if link.version > held]
        found = shortest(links, held, self._version.number, self._line.schema, self._since_first)
        return self._version.parameters if found is None else found

    def _since_first(self) -> bytes:
        return since_first(self._line.standing(self._version)[0], self._line.schema, self._line.first)


def _row(number: int, done: list[_Done], down: int, accuracy: float | None) -> RoundRow:
    examples = sum(d.examples for d in done)
    loss = sum(d.loss * d.examples for d in done) / examples
    return RoundRow(number, len(done), loss, sum(d.size for d in done), down, accuracy)


def _accuracy(trainer: Trainer, bundle: Bundle, test: Examples | None) -> float | None:
    if test is None:
        return None
    trainer.rebase(bundle.parameters())
    return trainer.evaluate(test.x, test.y).accuracy
