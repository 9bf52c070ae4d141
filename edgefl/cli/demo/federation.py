# SPDX-License-Identifier: Apache-2.0
"""The live federation: one server process, sixteen device processes, watched round by round."""

from __future__ import annotations

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
from edgefl.runtime import Trainer
from edgefl.server_stub.store import Store
from edgefl.tensorfile import read_tensors
from edgefl.wire import RoundInfo

_POLL_S = 0.05
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
    """A context manager: processes run inside it. The store is read as the server's operator would."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._path = setting.folder / "initial.edgefl"
        setting.bundle.save(self._path)
        count = len(setting.split.devices)
        self.server = Server(setting.folder, self._path, setting.recipe, count, setting.seed)
        self._devices: list[Process] = []
        self._trainer = Trainer(setting.bundle)

    def __enter__(self) -> Federation:
        self.server.start()
        for i, (name, (x, y)) in enumerate(self._setting.split.devices.items()):
            data = self._setting.folder / f"{name}.npz"
            np.savez(data, x=x, y=y)
            backend = ENGINES[i % len(ENGINES)]
            process = device(
                self._setting.folder, self._setting.device_python, name, backend, data, self.server.url
            )
            process.start()
            self._devices.append(process)
        self._store = Store(f"sqlite:///{self.server.database}")
        return self

    def __exit__(self, *exc: object) -> None:
        for process in (*self._devices, self.server.process):
            process.stop()
        self._store.close()

    def rows(self) -> Iterator[Row]:
        """Each round as it closes."""
        done = 0
        crash_at = self._setting.crash_at
        while done < self._setting.recipe.rounds:
            infos = self._store.round_infos()
            closed = [info for info in infos if info.state == "closed"]
            for info in closed[done:]:
                yield self._row(info)
            done = len(closed)
            if crash_at is not None and _in_the_middle(infos, crash_at):
                self._crash()
                crash_at = None
            self._check()
            time.sleep(_POLL_S)
        if crash_at is not None:
            raise DemoFailure(f"round {crash_at} went by before the server could be killed in its middle")

    def final(self) -> Bundle:
        """The bundle with the newest version of the parameters."""
        version = self._store.newest_version()
        return self._setting.bundle.with_parameters(read_tensors(version.parameters), version.number)

    def accepted(self) -> int:
        """Updates accepted in all rounds."""
        return sum(info.updates for info in self._store.round_infos())

    # -- inside

    def _crash(self) -> None:
        self.server.crash()
        self.server.start()

    def _check(self) -> None:
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

    def _accuracy(self, version: int | None) -> float:
        stored = None if version is None else self._store.parameters(version)
        if stored is None:
            raise DemoFailure(f"the server closed a round on version {version} but does not have it")
        self._trainer.rebase(read_tensors(stored))
        return self._trainer.evaluate(*self._setting.split.test).accuracy or 0.0


def _in_the_middle(infos: list[RoundInfo], number: int) -> bool:
    """Some, but not all, of a round's updates are in."""
    return any(
        info.round == number and info.state == "open" and 0 < info.updates < info.goal for info in infos
    )
