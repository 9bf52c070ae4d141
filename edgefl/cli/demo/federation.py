# SPDX-License-Identifier: Apache-2.0
"""The live federation: one server process, sixteen device processes, watched round by round."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgefl.bundle import Bundle
from edgefl.cli.demo.live import Row
from edgefl.cli.demo.processes import DemoFailure, Process, Server, device
from edgefl.cli.demo.recipe import Recipe
from edgefl.cli.demo.watch import Split
from edgefl.cli.demo.yardsticks import Array, mean
from edgefl.identity.messages import NewToken
from edgefl.runtime import Trainer, pull
from edgefl.runtime.administration import Administration
from edgefl.server_stub.store import Store
from edgefl.tensorfile import read_tensors
from edgefl.wire import RoundInfo

_POLL_S = 0.05
_CRASH_POLL_S = 0.002
ENGINES = ("onnx", "tflite")


@dataclass(frozen=True)
class Setting:
    """What a live federation needs.

    Attributes:
        folder: for the database, logs and the devices' files.
        device_python: the interpreter that runs the devices.
        crash_at: round in whose middle the server process is killed and started again, None for no crash.
    """

    folder: Path
    bundle: Bundle
    split: Split
    recipe: Recipe
    seed: int
    device_python: str
    crash_at: int | None = None


class Federation:
    """A context manager: processes run inside it. The store is read as the server's operator would.

    Attributes:
        initial: file of the bundle that the rounds begin with.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self.initial = setting.folder / "initial.edgefl"
        setting.bundle.save(self.initial)
        self.server = Server(setting.folder, self.initial, setting.recipe, setting.seed)
        self._devices: list[Process] = []
        self._trainer = Trainer(setting.bundle)
        self._server_lock = threading.Lock()
        self._crash_thread: threading.Thread | None = None
        self._crashed = False

    def __enter__(self) -> Federation:
        self.server.start()
        with self.server.administered() as transport:
            wanted = NewToken(uses=len(self._setting.split.devices), days=1.0)
            token = Administration(transport).make_token(wanted).token
        for i, (name, (x, y)) in enumerate(self._setting.split.devices.items()):
            data = self._setting.folder / f"{name}.npz"
            np.savez(data, x=x, y=y)
            backend = ENGINES[i % len(ENGINES)]
            process = device(
                self._setting.folder, self._setting.device_python, name, backend, data, self.server.url, token
            )
            process.start()
            self._devices.append(process)
        self._store = Store(f"sqlite:///{self.server.database}")
        if self._setting.crash_at is not None:
            self._crash_thread = threading.Thread(
                target=self._crash_in, args=(self._setting.crash_at,), daemon=True
            )
            self._crash_thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for process in (*self._devices, self.server.process):
            process.stop()
        self._store.close()

    def rows(self) -> Iterator[Row]:
        """Each round as it closes."""
        done = 0
        while done < self._setting.recipe.rounds:
            info = self._state_of(done + 1)
            if info is not None and info.state == "closed":
                yield self._row(info)
                done += 1
                continue
            self._check()
            time.sleep(_POLL_S)
        if self._crash_thread is not None:
            self._crash_thread.join()
            if not self._crashed:
                raise DemoFailure("the round went by before the server could be killed in its middle")

    def final(self) -> Bundle:
        """What `edgefl pull` fetches, with the mean of the last versions' parameters."""
        with self.server.administered() as transport:
            newest = pull(transport)
            number = newest.manifest.model_version
            before = range(number - self._setting.recipe.averaged + 1, number)
            models = [newest, *(pull(transport, version) for version in before)]
        return newest.with_parameters(mean([model.parameters() for model in models]), number)

    def accepted(self) -> int:
        """Updates accepted in all rounds."""
        return sum(info.updates for info in self._store.round_infos())

    # -- inside

    def _crash_in(self, number: int) -> None:
        """In a thread, since rounds are short: in the middle of one kill the server, then start it again."""
        while (found := self._state_of(number)) is None or (found.state == "open" and found.updates == 0):
            time.sleep(_CRASH_POLL_S)
        with self._server_lock:
            self.server.crash()
            after = self._state_of(number)
            self._crashed = after is not None and after.state == "open" and 0 < after.updates < after.goal
            self.server.start()

    def _state_of(self, number: int) -> RoundInfo | None:
        return next(iter(self._store.round_infos(number)), None)

    def _check(self) -> None:
        with self._server_lock:
            for process in (*self._devices, self.server.process):
                process.check()

    def _row(self, info: RoundInfo) -> Row:
        return Row(
            round=info.round,
            devices=info.updates,
            loss=float("nan") if info.loss is None else info.loss,
            accuracy=self._accuracy(info.version),
            bytes_up=info.bytes_up,
            bytes_down=info.bytes_down,
            bytes_dense=4 * self._setting.bundle.schema().size * info.updates,
        )

    def _parameters(self, version: int | None) -> dict[str, Array]:
        stored = None if version is None else self._store.parameters(version)
        if stored is None:
            raise DemoFailure(f"the server closed a round on version {version} but does not have it")
        return read_tensors(stored)

    def _accuracy(self, version: int | None) -> float:
        self._trainer.rebase(self._parameters(version))
        x, y = self._setting.split.test
        return float((self._trainer.predict(x).argmax(axis=1) == y).mean())
