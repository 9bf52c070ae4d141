# SPDX-License-Identifier: Apache-2.0
"""The devices: each has its own learner, residual and held version; all train on one engine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from edgefl.data import Examples
from edgefl.delta import Residual
from edgefl.errors import EdgeflError, Refused
from edgefl.options import FitOptions
from edgefl.parameters import Arrays
from edgefl.runtime import Metrics, Trainer
from edgefl.runtime.algorithms import Drift, needs_control
from edgefl.runtime.cache import download, targets_for
from edgefl.runtime.evaluating import evaluated
from edgefl.runtime.feature_cache import MemoryFeatures, Room
from edgefl.runtime.held import Start
from edgefl.runtime.learner import Stint, TrainerLearner
from edgefl.runtime.personal import Personal
from edgefl.runtime.work import PASSING, Coder, Work, work
from edgefl.simulation.downloads import Downloads
from edgefl.simulation.network import Network
from edgefl.wire import MAX_TEXT, CheckIn, Task

log = logging.getLogger("edgefl.simulation")

FEATURE_BYTES = 1 << 30
"""Memory that features of a frozen part may take, of all devices and the test examples together."""


@dataclass
class _Device:
    """What one device has.

    Attributes:
        hello: its check-in, the same every time.
        held: the version it holds, None before it has the bundle.
        residual: what its updates left out.
        own: its personal parameters and buffers.
        drift: what its algorithm remembers.
        rounds: how many it took part in.
    """

    learner: TrainerLearner
    hello: CheckIn
    held: int | None = None
    residual: Residual | None = None
    own: Arrays | None = None
    drift: Drift | None = None
    rounds: int = 0


@dataclass(frozen=True)
class Begun:
    """A device's work in a round, to be sent.

    Attributes:
        work: None where the device declined.
    """

    task: Task
    work: Work | None


class Fleet:
    """The devices of one federation.

    Attributes:
        engine: what runs their steps.
        failure: the latest reason why one of them declined.
    """

    def __init__(
        self,
        network: Network,
        devices: Mapping[str, Examples],
        backend: str,
        delegate: str,
        code: Coder,
        holdout: float = 0.0,
    ) -> None:
        """Download the bundle, open the engine, check all examples.

        Raises:
            DataError: examples do not fit the model; it is said whose.
            BackendError: no engine can run it.
            ProtocolError: a device has a name that no server takes.

        Args:
            holdout: part of every device's examples that it never trains on.
        """
        targets = targets_for(backend, delegate)
        found, self._model = network.aside(lambda: download(network.remote, targets))
        assert found is not None  # there was no tag to compare with
        self._bundle = found[0]
        self._holdout = holdout
        self._network, self._code, self._schema = network, code, self._bundle.schema()
        self._downloads = Downloads(self._bundle, network)
        self._trainer, self._room = Trainer(self._bundle, backend, delegate), Room(FEATURE_BYTES)
        self._devices = {name: self._device(name, examples) for name, examples in devices.items()}
        self.engine = next(iter(self._devices.values())).learner.engine
        self.failure: EdgeflError | None = None

    def take_part(self, name: str) -> bool:
        """One device's round, from check-in to update; false where the server has no place for it.

        Raises:
            DataError, BackendError: the device can train in no round.
        """
        begun = self.begin(name)
        if begun is not None:
            self.send(name, begun)
        return begun is not None

    def begin(self, name: str) -> Begun | None:
        """A device's check-in and work, None where the server has no place for it; raises as `take_part`."""
        device = self._devices[name]
        task = self.check_in(name)
        return None if task is None else Begun(task, self._work(device, task))

    def check_in(self, name: str) -> Task | None:
        """What the server has for a device to do now."""
        return self._network.remote.check_in(self._devices[name].hello).task

    def send(self, name: str, begun: Begun) -> None:
        """Its update, where there is one."""
        device, task, made = self._devices[name], begun.task, begun.work
        if made is None:
            return
        device.own = made.learned.own
        try:
            self._network.remote.upload(task.round, task.assignment, made.frame)
        except Refused as exc:
            self.failure = exc
            log.warning("round %d: %s of %s", task.round, exc, name)
            return
        device.rounds += 1
        if made.residual is not None:
            device.residual = made.residual
        device.drift = made.drift

    def measure(self, name: str) -> None:
        """A device's answer to how good the newest version is; the server has a seat for it."""
        device = self._devices[name]
        if not device.hello.held_out:
            return
        task = self._network.remote.check_in(device.hello).evaluation
        assert task is not None  # only this process asks for seats
        found, said = evaluated(task, self._fetched(device, task), device.learner, Stint(device.own))
        if said:
            log.warning("version %d: not measured by %s: %s", task.base_version, name, said)
        self._network.remote.evaluated(task.base_version, task.assignment, found)

    def evaluate(self, name: str, parameters: Arrays) -> tuple[int, int, Metrics]:
        """A device's examples, the rounds it took part in, and how good parameters are there."""
        device = self._devices[name]
        return device.learner.examples, device.rounds, device.learner.evaluate(parameters, device.own)

    def personalize(self, name: str, parameters: Arrays, options: FitOptions) -> Personal:
        """A model of a device's own; raises as `edgefl.runtime.personal.personalize`."""
        device = self._devices[name]
        return device.learner.personalize(parameters, options, device.own)

    def learner(self, examples: Examples, holdout: float = 0.0) -> TrainerLearner:
        """A learner beside the devices, such as one for test examples."""
        features = MemoryFeatures(self._room)
        return TrainerLearner(
            self._bundle, examples, features=features, trainer=self._trainer, holdout=holdout
        )

    # -- inside

    def _device(self, name: str, examples: Examples) -> _Device:
        try:
            learner = self.learner(examples, self._holdout)
        except EdgeflError as exc:
            raise type(exc)(f"{name}: {exc}") from exc
        hello = CheckIn(
            name, self._schema.id.hex(), learner.engine, learner.examples, held_out=learner.held_out
        )
        return _Device(learner, hello)

    def _fetched(self, device: _Device, task: Start) -> Arrays:
        """The shared parameters a task starts from."""
        if device.held is None:
            device.held = self._downloads.first
            self._network.count(self._model)
        values, device.held = self._downloads.fetch(device.held, task)
        return values

    def _work(self, device: _Device, task: Task) -> Work | None:
        """The update of a round; None where the device declined it."""
        values = self._fetched(device, task)
        name, control = device.hello.device, None
        if needs_control(task.training.fit):
            control = self._network.remote.control(task.base_version, self._schema)
        try:
            return work(
                task,
                values,
                device.learner,
                schema=self._schema,
                device=name,
                residual=device.residual,
                stint=Stint(device.own, device.drift, control),
                code=self._code,
            )
        except PASSING as exc:
            self.failure = exc
            log.warning("round %d: no update of %s: %s", task.round, name, exc)
            self._network.remote.decline(task.round, task.assignment, str(exc)[:MAX_TEXT])
            return None
