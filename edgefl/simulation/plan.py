# SPDX-License-Identifier: Apache-2.0
"""What is simulated, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from edgefl.bundle import Bundle
from edgefl.options import (
    AttackOptions,
    FederationOptions,
    FitOptions,
    HoldoutOptions,
    PersonalOptions,
    TimeOptions,
)
from edgefl.runtime.personal import Tried
from edgefl.server_stub.settings import Settings
from edgefl.wire import EvaluationInfo, Training

_LONG_S = 1e9


@dataclass(frozen=True, kw_only=True)
class Plan(FederationOptions, AttackOptions, TimeOptions, HoldoutOptions, PersonalOptions):
    """What to simulate: the options of a federation, who takes part in it, who lies, who is slow, and what
    devices make of the model for themselves.

    Attributes:
        training: how devices train; its seed counts up with the rounds, as on the server.
        cohort: devices drawn per round, all where None; none is drawn again before all have been.
        seed: of the draw of devices, and of those that lie.
    """

    training: Training = field(default_factory=Training)
    cohort: int | None = None
    seed: int = 0

    def settings(self, bundle: Bundle, devices: int) -> Settings:
        """Those of the server that runs these rounds for so many devices; OptionError where there is none."""
        shared = {f.name: getattr(self, f.name) for f in fields(FederationOptions)}
        goal = self.cohort or devices
        given = {"goal": goal, "surplus": 0.0, **shared}
        if self.training.fit.algorithm != "fedavg":
            given["population"] = self.population or devices
        if self.privacy != "none" and self.privacy_devices is None:
            given["privacy_devices"] = devices
        if self.staleness:
            # Time passes, but no deadline does.
            given["surplus"] = max(0, (self.at_work or goal) - goal) / goal
            given["deadline_s"] = _LONG_S / (2 + self.staleness)
        return Settings(bundle.to_bytes(), "", training=self.training, **given)

    def own(self) -> FitOptions:
        """How devices train models of their own after the rounds."""
        return replace(self.training.fit, epochs=self.personalize, steps=0)


@dataclass(frozen=True)
class RoundRow:
    """One simulated round. Bytes are those at a server's socket, HTTP included, for devices that took part.

    Attributes:
        round: its number, from 1.
        devices: how many sent an update.
        declined: how many were drawn and could not train.
        loss: mean training loss, weighted by examples; None where no device told it.
        frame_bytes: of all updates alone, without HTTP.
        bytes_up: of all requests.
        bytes_down: of all answers; the bundle itself counts in the round a device comes for the first time.
        test_loss: on the test examples, None without any.
        accuracy: on the test examples, None without any or where the loss has no accuracy.
        held_out_loss: of the round's version as devices found it, None where none measured it.
        held_out_accuracy: likewise.
    """

    round: int
    devices: int
    declined: int
    loss: float | None
    frame_bytes: int
    bytes_up: int
    bytes_down: int
    test_loss: float | None = None
    accuracy: float | None = None
    held_out_loss: float | None = None
    held_out_accuracy: float | None = None

    def times_smaller(self, dense_bytes: int) -> float:
        """How often what was sent up fits into dense float32 updates of the same devices, without HTTP."""
        return dense_bytes * self.devices / self.bytes_up


@dataclass(frozen=True)
class PersonalRow:
    """What a device chose of the federation's model, one of its own, and mixtures; see `runtime.personal`.

    Attributes:
        kind: `global`, `personal` or `mixed`.
        share: part of its own model in what it chose.
        steps: of training its own.
        tried: every mixture on examples that were held out of these steps.
        later: the same on examples that came later, where there are any.
    """

    kind: str
    share: float
    steps: int
    tried: tuple[Tried, ...]
    later: tuple[Tried, ...] = ()

    @property
    def chosen(self) -> Tried:
        """What it chose, as it was found on the examples held out."""
        return next(one for one in self.tried if one.share == self.share)


@dataclass(frozen=True)
class DeviceRow:
    """One device after the last round: the final version on its own examples.

    Attributes:
        device: its name.
        examples: how many it has.
        rounds: how many it took part in.
        loss: mean over its examples, with its own personal parameters and buffers.
        accuracy: in `[0, 1]`, None where the loss has none.
        personal: what it chose for itself; None where that was not asked for, or could not be.
    """

    device: str
    examples: int
    rounds: int
    loss: float
    accuracy: float | None
    personal: PersonalRow | None = None


@dataclass(frozen=True)
class Simulated:
    """What came of a simulation.

    Attributes:
        bundle: the final version. What never leaves devices, personal parameters and updated buffers, is as
            it was before.
        rounds: one row per round.
        devices: one row per device, where asked for.
        engine: what ran the steps.
        dense_bytes: of one update in float32.
        evaluations: versions that devices measured on examples they hold out, oldest first.
        epsilon: what the versions tell of any one device at most, None where rounds are not private.
    """

    bundle: Bundle
    rounds: tuple[RoundRow, ...]
    devices: tuple[DeviceRow, ...]
    engine: str
    dense_bytes: int
    evaluations: tuple[EvaluationInfo, ...] = ()
    epsilon: float | None = None

    def times_smaller(self) -> float:
        """Of all rounds together, see `RoundRow.times_smaller`; 1 where nothing was sent."""
        updates, up = sum(row.devices for row in self.rounds), sum(row.bytes_up for row in self.rounds)
        return self.dense_bytes * updates / up if up else 1.0
