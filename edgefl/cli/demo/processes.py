# SPDX-License-Identifier: Apache-2.0
"""The demo's server and devices as processes of their own, started by the commands a user would type."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgefl.cli.demo.recipe import Recipe
from edgefl.errors import EdgeflError
from edgefl.runtime.administration import AdminTransport
from edgefl.runtime.transport import HttpTransport

_START_S = 60.0
_STOP_S = 10.0


class DemoFailure(EdgeflError):
    """A process of the demo ended when it should not have; the message has the end of its log."""


@dataclass
class Process:
    """A child process with its log in a file."""

    name: str
    command: Sequence[str]
    log: Path
    child: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        # One thread per engine: sixteen devices share this machine, a real watch would have it to itself.
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with self.log.open("ab") as out:
            self.child = subprocess.Popen(
                self.command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, **threads},
            )  # fmt: skip

    def check(self) -> None:
        """Raise DemoFailure if the process has failed."""
        if self.child.poll() not in (None, 0):
            tail = self.log.read_text(errors="replace")[-2000:]
            raise DemoFailure(f"{self.name} ended with status {self.child.returncode}; its log ends:\n{tail}")

    def stop(self) -> None:
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


class Server:
    """`edgefl serve` on a free port of this machine, which can crash and come back."""

    def __init__(self, folder: Path, bundle: Path, recipe: Recipe, seed: int) -> None:
        self.database = folder / "server.db"
        self._port_file = folder / "port"
        self._folder, self._bundle, self._recipe = folder, bundle, recipe
        self._seed = seed
        self.port = 0

    def start(self) -> None:
        """Start, or start again on the same port and database."""
        self._port_file.unlink(missing_ok=True)
        self.process = Process("the server", self._command(), self._folder / "server.log")
        self.process.start()
        until = time.monotonic() + _START_S
        while not self._port_file.exists():
            self.process.check()
            if time.monotonic() > until:
                raise DemoFailure(f"the server did not start within {_START_S:.0f} s")
            time.sleep(0.02)
        self.port = int(self._port_file.read_text())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def administered(self) -> Iterator[AdminTransport]:
        """Requests with the admin token, which the server has left beside its database."""
        token = Path(f"{self.database}.admin").read_text().strip()
        with HttpTransport(self.url) as transport:
            yield AdminTransport(transport, token)

    def crash(self) -> None:
        """Kill the process without warning, as a power cut would."""
        self.process.child.send_signal(signal.SIGKILL)
        self.process.child.wait()

    def _command(self) -> list[str]:
        r = self._recipe
        options = {
            "db": self.database, "port": self.port, "port-file": self._port_file,
            "rounds": r.rounds, "goal": r.cohort, "minimum": r.cohort, "surplus": 0,
            "epochs": r.training.fit.epochs, "lr": r.training.fit.lr, "momentum": r.training.fit.momentum,
            "steps": r.training.fit.steps,
            "mode": r.training.coding.mode, "density": r.training.coding.density, "seed": self._seed,
            "server-lr": r.server_lr, "server-momentum": r.server_momentum,
        }  # fmt: skip
        words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
        return [sys.executable, "-m", "edgefl", "serve", str(self._bundle), "--enrolled", *words]


def device(folder: Path, python: str, name: str, backend: str, data: Path, url: str, token: str) -> Process:
    """`edgefl device` for one watch, which enrols with a token first."""
    command = [
        python, "-m", "edgefl", "device", "--server", url, "--data", str(data), "--id", name,
        "--backend", backend, "--workdir", str(folder / name), "--token", token, "--json",
    ]  # fmt: skip
    return Process(name, command, folder / f"{name}.log")
