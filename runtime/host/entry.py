# SPDX-License-Identifier: Apache-2.0
"""What an app calls. Arguments are text, bytes or objects with methods; results are text or bytes."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.errors import BackendError, Refused
from edgefl.message import Message, nested
from edgefl.options import (
    BUNDLE_BYTES,
    MAX_BYTES,
    HoldoutOptions,
    LimitOptions,
    PublisherKeys,
    ReachOptions,
    WhenOptions,
    keys_in,
)
from edgefl.rules import byte_count, optional, text
from edgefl.runtime.backends import Backend
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.command.look import status_of
from edgefl.runtime.conditions import Guard
from edgefl.runtime.host.device import HostConditions, HostDevice
from edgefl.runtime.host.engine import HostBackend, HostEngine
from edgefl.runtime.host.examples import HostCipher, opened
from edgefl.runtime.identity import joined
from edgefl.runtime.learner import Stint, TrainerLearner
from edgefl.runtime.lock import only_one
from edgefl.runtime.patience import Patience, Stopped
from edgefl.runtime.pause import Interrupted
from edgefl.runtime.reach import reach
from edgefl.runtime.report import RoundReport
from edgefl.runtime.store import Source
from edgefl.runtime.work import Work, work
from edgefl.wire import Count, Task, Training

log = logging.getLogger("edgefl.host")

TOLD = "The app was told to stop."
_SLICE_S = 0.25
_GIVE_UP_S = 60.0
_LOCAL = "0" * 32


@dataclass(frozen=True)
class Settings(Message):
    """What an app may set, as JSON.

    Attributes:
        rounds: most rounds in one call; 0 for as many as there are.
        when: conditions beside those the server sets.
        limits: what a round may cost, whatever the server asks for.
        holdout: part of the examples that is never trained on, to measure versions on.
        reach: how to get to the server.
        bundle_bytes: the longest bundle to accept from the server.
        token: enrols the device where it is not enrolled yet.
        publisher_key: public keys with commas between them, one of which must have signed the bundle.
        training: of a round without a server.
    """

    rounds: Count = 0
    when: Annotated[WhenOptions, nested(WhenOptions)] = field(default_factory=WhenOptions)
    limits: Annotated[LimitOptions, nested(LimitOptions)] = field(default_factory=LimitOptions)
    holdout: Annotated[float, HoldoutOptions.rules()["holdout"]] = 0.0
    reach: Annotated[ReachOptions, nested(ReachOptions)] = field(default_factory=ReachOptions)
    bundle_bytes: Annotated[int, byte_count(MAX_BYTES)] = BUNDLE_BYTES
    token: Annotated[str | None, optional(text(r"[A-Za-z0-9_-]{1,128}"))] = None
    publisher_key: PublisherKeys = None
    training: Annotated[Training, nested(Training)] = field(default_factory=Training)


def take_part(
    server: str,
    workdir: str,
    engine: HostEngine,
    device: HostDevice,
    settings: str,
    cipher: HostCipher | None = None,
) -> str:
    """Take part in a server's rounds until there is no more work or the device must stop.

    Nothing is waited for but the server: where a condition is not met the call ends, and the app's scheduler
    calls again another time. What was begun goes on then.

    Args:
        settings: JSON as `Settings` has it.
        cipher: opens the examples, where they are sealed.

    Returns:
        JSON: `rounds`, one object each as `RoundReport` has them; `paused`, why the device does not go on, or
        empty; `finished`, whether the server has no more rounds; `engine`, what trained.

    Raises:
        ProtocolError: the settings are not as `Settings` has them; the server refuses this device.
        DataError, BackendError: this device cannot train the model.
        BundleSignature, MissingDependency: no trusted publisher has signed it, or that cannot be verified.
        OptionError: another training runs in the folder.
    """
    chosen, folder = Settings.from_bytes(settings.encode()), Path(workdir)
    turn = _Turn(folder, chosen, device, cipher)
    try:
        backend = HostBackend(engine, folder / "engine")
        finished = turn.run(server, backend)
        used = f"{backend.name} {backend.version}"
    except (BackendError, Refused) as exc:
        if isinstance(exc, Refused) and exc.reason != "unknown-target":
            raise
        # The app's engine is missing, wrong or without files here; what comes with edgefl runs anywhere.
        log.warning("%s", exc)
        turn.tell("engine_refused", reason=str(exc))
        finished, used = turn.run(server, "numpy"), "numpy"
    made = {"rounds": turn.rounds, "paused": turn.paused, "finished": finished, "engine": used}
    turn.tell("ended", **made)
    return json.dumps(made, allow_nan=False)


def run_round(
    bundle: str,
    workdir: str,
    engine: HostEngine,
    device: HostDevice,
    settings: str,
    cipher: HostCipher | None = None,
) -> bytes:
    """Train one round on a bundle in a file, without a server.

    Returns:
        The update's frame, as it would travel; empty where the device may not train now or had to stop.

    Raises:
        BundleError, DataError, BackendError, DeltaError: as their names say.
        ProtocolError: the settings are not as `Settings` has them.
    """
    chosen, folder = Settings.from_bytes(settings.encode()), Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    guard = Guard(folder, chosen.when, HostConditions(device))
    with only_one(folder):
        if pause := guard.pause():
            _tell(device, "paused", reason=pause.reason)
            return b""
        try:
            stint = Stint(should_stop=lambda: bool(device.stopped()) or guard.pause() is not None)
            with opened(folder, cipher) as examples:
                backend = HostBackend(engine, folder / "engine")
                made = _work(Bundle.open(bundle), examples, backend, chosen.training, stint)
        except Interrupted:
            pause = guard.pause()
            _tell(device, "paused", reason=pause.reason if pause else TOLD)
            return b""
    _tell(device, "trained", loss=made.learned.loss, frame_bytes=len(made.frame))
    return made.frame


def _work(
    bundle: Bundle, source: Examples | Source, backend: Backend, training: Training, stint: Stint
) -> Work:
    """One round of a federation of one."""
    schema, values = bundle.schema(), bundle.parameters()
    examples = source if isinstance(source, Examples) else source.take(training.fit.seed)
    learner = TrainerLearner(bundle, examples, backend=backend)
    version = bundle.manifest.model_version
    task = Task(_LOCAL, 1, version, schema.id.hex(), training, 1, MAX_BYTES, 0.0)
    shared = {p.name: values[p.name] for p in schema.parameters}
    return work(task, shared, learner, schema=schema, device="", residual=None, stint=stint)


def device_status(workdir: str, device: HostDevice) -> str:
    """What the device does and did and every reason not to train now, as `edgefl device --status --json`.

    Raises:
        OptionError: nothing has run in the folder yet.
    """
    return json.dumps(status_of(Path(workdir), HostConditions(device)))


class _Turn:
    """One call of `take_part`."""

    def __init__(
        self, folder: Path, settings: Settings, device: HostDevice, cipher: HostCipher | None
    ) -> None:
        self._cipher = cipher
        self._folder, self._settings, self._device = folder, settings, device
        self._guard = Guard(folder, settings.when, HostConditions(device))
        self.rounds: list[dict[str, Any]] = []
        self.paused = ""

    def run(self, server: str, backend: str | Backend) -> bool:
        """Whether the server has finished; fills `rounds` and `paused`."""
        way, patience = self._settings.reach, Patience(sleep=self._wait, give_up_s=_GIVE_UP_S)
        with reach(server, way) as transport, opened(self._folder, self._cipher) as examples:
            client = DeviceClient(
                joined(transport, self._folder, server, way, self._settings.token, patience=patience),
                examples,
                self._folder,
                backend=backend,
                patience=patience,
                guard=self._guard,
                limits=self._settings.limits,
                holdout=self._settings.holdout,
                bundle_bytes=self._settings.bundle_bytes,
                publishers=keys_in(self._settings.publisher_key),
            )
            most = self._settings.rounds - len(self.rounds) if self._settings.rounds else None
            for report in client.run(most, until=self._stopped):
                self.rounds.append(_row(report))
                self.tell("round", **self.rounds[-1])
            return client.finished

    def tell(self, event: str, **fields: Any) -> None:
        _tell(self._device, event, **fields)

    def _stopped(self) -> bool:
        if bool(self._device.stopped()):
            self.paused = TOLD
        return bool(self.paused)

    def _wait(self, seconds: float) -> None:
        """Wait for the server in short slices; for anything else the app's scheduler waits better."""
        end = time.monotonic() + seconds
        while True:
            if not self._stopped() and (pause := self._guard.pause()):
                self.paused = pause.reason
            if self.paused:
                self.tell("paused", reason=self.paused)
                raise Stopped
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _SLICE_S))


def _row(report: RoundReport) -> dict[str, Any]:
    row = asdict(report)
    row["placements"] = [str(placement) for placement in report.placements]
    return row


def _tell(device: HostDevice, event: str, **fields: Any) -> None:
    """Tell the app; what goes wrong in its listener is its own affair."""
    try:
        device.notify(json.dumps({"event": event, **fields}))
    except Exception as exc:  # what a foreign language throws has no common base
        log.warning("the app's listener failed at %s: %s", event, exc)
