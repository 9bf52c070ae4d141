# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.delta import encode
from edgefl.errors import Refused
from edgefl.runtime.remote import Remote
from edgefl.runtime.transport import HttpTransport
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.memory import MemoryStore
from edgefl.server_stub.settings import Settings
from edgefl.wire import CheckIn, Rounds, Status

MODEL = Path(__file__).parent.parent / "fixtures" / "mlp.edgefl"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
START = """
import json, sys
options = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(options.pop("blocked", ())))
from edgefl.server_stub.serve import run_server
from edgefl.server_stub.settings import Settings
from edgefl.server_stub.sockets import Limits
from edgefl.wire import Training
training = Training.of(**options.pop("training", {}))
process = {name: options.pop(name) for name in ("port_file", "certificate", "key") if name in options}
process.update(options.pop("process", {}))
process["limits"] = Limits(**options.pop("limits", {}))
run_server(Settings(training=training, **options), **process)
"""


@dataclass
class Server:
    """A server process that can be killed and started again on the same database."""

    folder: Path
    options: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    transports: list[HttpTransport] = field(default_factory=list)

    def start(self) -> Server:
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        options = {"database": str(self.folder / "rounds.db"), "port_file": str(port_file), **self.options}
        options.setdefault("admin_file", str(self.folder / "rounds.db.admin"))
        with open(self.folder / "log.txt", "ab") as log:
            command = [sys.executable, "-c", START, json.dumps({"bundle": str(MODEL), **options})]
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 60
        while not port_file.exists():
            assert self.process.poll() is None, (self.folder / "log.txt").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        self.port = int(port_file.read_text())
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def stop(self) -> None:
        for transport in self.transports:
            transport.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def transport(self) -> HttpTransport:
        self.transports.append(HttpTransport(self.url))
        return self.transports[-1]

    def remote(self) -> Remote:
        return Remote(self.transport())

    def status(self) -> Status:
        return Status.from_bytes(self.transport().request("GET", "/v1/status", limit=1 << 20).body)

    def rounds(self) -> Rounds:
        return Rounds.from_bytes(self.transport().request("GET", "/v1/rounds", limit=1 << 20).body)

    def wait_for_version(self, version: int) -> None:
        deadline = time.monotonic() + 30
        while self.status().version < version:
            assert time.monotonic() < deadline, f"version {version} did not come"
            time.sleep(0.02)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """A function that makes an empty database of a PostgreSQL server, and gives its URL."""
    # Not in pytest's own folder: whichever run begins next closes that to other users, and PostgreSQL is one.
    folder = tempfile.mkdtemp(prefix="edgefl-postgres-")
    with warnings.catch_warnings():
        # On import it looks for a folder of the user's session, which machines for tests do not have.
        warnings.simplefilter("ignore")
        import pgserver
    server = pgserver.get_server(folder, cleanup_mode="delete")
    numbers = itertools.count(1)

    def make() -> str:
        name = f"test_{next(numbers)}"
        server.psql(f"CREATE DATABASE {name};")
        return str(server.get_uri(name))

    yield make
    server.cleanup()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a server process keeps its rounds: what `--database` takes."""
    if request.param == "sqlite":
        return str(tmp_path / "rounds.db")
    return str(request.getfixturevalue("postgres")())


@pytest.fixture
def serve(tmp_path: Path, database: str) -> Iterator[Any]:
    """A function that starts a server process with given settings."""
    servers: list[Server] = []

    def start(**options: Any) -> Server:
        defaults = {"goal": 2, "rounds": 2, "long_poll_s": 0.2, "retry_after_s": 0.05, "downlink": 0.0}
        training = {"density": 0.2, **options.pop("training", {})}
        options = {**defaults, "database": database, **options, "training": training}
        servers.append(Server(tmp_path, options))
        return servers[-1].start()

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def tls() -> Path:
    """A folder with a certificate for this machine, signed by itself, and its key."""
    return Path(__file__).parent / "tls"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server process for tests that change nothing in it."""
    server = Server(tmp_path_factory.mktemp("server"), {"goal": 2})
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return Bundle.open(MODEL)


@pytest.fixture(scope="session")
def make_frame(bundle: Bundle) -> Any:
    """A function that gives a frame for the model: random values from a seed, against a version."""

    def make(seed: int, version: int = 0, **options: Any) -> bytes:
        schema = bundle.schema()
        vector = np.random.default_rng(seed).normal(size=schema.size).astype(np.float32)
        settings = {"schema_id": schema.id, "base_version": version, "density": 0.2, **options}
        return encode(vector, **settings).frame

    return make


@pytest.fixture(scope="session")
def hello(bundle: Bundle) -> Any:
    """A function that gives a device's check-in message."""
    return lambda device, examples=10: CheckIn(device, bundle.schema().id.hex(), "test", examples)


@pytest.fixture
def played(serve, bundle, make_frame):
    """A server with a round that is over and one that is open; what devices say of themselves is hostile."""
    server = serve(goal=2, rounds=3, surplus=1.0, norm_bound=3.0)
    remote, schema = server.remote(), bundle.schema().id.hex()
    tasks = [remote.check_in(CheckIn(f"watch-{i}", schema, HOSTILE, 10 + i)).task for i in range(4)]
    with pytest.raises(Refused):
        remote.upload(1, tasks[2].assignment, b"EFLU nothing")
    remote.decline(1, tasks[3].assignment, HOSTILE)
    for i in range(2):
        remote.upload(1, tasks[i].assignment, make_frame(i, meta={"loss": 1.5}))
    server.wait_for_version(1)
    remote.check_in(CheckIn("watch-0", schema, HOSTILE, 10))
    return server


def restarting(
    request: pytest.FixtureRequest,
    folder: Path,
    clock: Callable[[], float],
    given: dict[str, Any],
    **more: Any,
) -> Iterator[Any]:
    """What a fixture yields from: a function that makes a coordinator anew, on the storage `request` names.

    Args:
        given: settings, where the function is not told otherwise.
        more: what else the coordinator takes.
    """
    database = request.getfixturevalue("postgres")() if request.param == "postgres" else folder / "x.db"
    kept, opened = MemoryStore() if request.param == "memory" else None, list[Coordinator]()

    def start(**options: Any) -> tuple[Coordinator, Callable[[], float]]:
        for old in opened:
            old.close()
        settings = Settings(bundle=MODEL, database=database, **{**given, **options})
        opened.append(Coordinator(settings, store=kept, clock=clock, **more))
        return opened[-1], clock

    yield start
    if opened:
        opened[-1].close()
