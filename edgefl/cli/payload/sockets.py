# SPDX-License-Identifier: Apache-2.0
"""What HTTP adds to a frame, measured: a real server process, real devices, bytes counted at the socket."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgefl.bundle import Bundle
from edgefl.cli.demo.processes import DemoFailure, Process
from edgefl.cli.payload.runs import Way
from edgefl.data import Examples
from edgefl.delta import inspect_frame
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.transport import HttpTransport, Response
from edgefl.wire import Rounds

_DEVICES, _ROUNDS = 2, 20
"""So many rounds that what one of them leaves to the next makes no difference."""
_START_S, _PATIENCE_S, _POLL_S = 60.0, 120.0, 0.02
_LIMIT = 1 << 20


@dataclass(frozen=True)
class Overhead:
    """Bytes per device and round beside the numbers of an update.

    Attributes:
        up: requests with headers and the check-in's body, and the frame's metadata.
        down: answers with headers, without the parameters.
    """

    up: float
    down: float


@dataclass
class _Kept:
    """Remembers the frames it sent, and how much of parameters it fetched after the first of them."""

    inner: HttpTransport
    frames: list[bytes] = field(default_factory=list)
    fetched: int = 0

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        limit: int,
    ) -> Response:
        answer = self.inner.request(method, path, body, headers, limit=limit)
        if "/updates/" in path:
            self.frames.append(body)
        if "/parameters/" in path and self.frames:
            self.fetched += len(answer.body)
        return answer


def measure(way: Way, bundle: Bundle, devices: Mapping[str, Examples], folder: Path) -> Overhead:
    """Run a small federation over HTTP and take its bytes apart.

    Args:
        devices: examples of two devices.
        folder: for the database and logs; must not be used before.
    """
    folder.mkdir(parents=True)
    bundle.save(folder / "model.edgefl")
    server = Process("the server", _command(way, folder), folder / "server.log")
    server.start()
    kept: list[tuple[threading.Thread, _Kept]] = []
    try:
        url = f"http://127.0.0.1:{_port(folder / 'port', server)}"
        kept += [_take_part(url, name, examples, folder) for name, examples in devices.items()]
        for thread, _ in kept:
            thread.join(_PATIENCE_S)
        with HttpTransport(url) as asking:
            answer = asking.request("GET", "/v1/rounds", limit=_LIMIT)
    finally:
        server.stop()
        for _, transport in kept:
            transport.inner.close()
    return _overhead(Rounds.from_bytes(answer.body), [transport for _, transport in kept])


def _overhead(rounds: Rounds, kept: list[_Kept]) -> Overhead:
    """Of all rounds but the first, in which devices also fetch the model and everything is new."""
    later = rounds.rounds[1:]
    updates = sum(info.updates for info in later)
    frames = [frame for transport in kept for frame in transport.frames[1:]]
    if not frames:
        raise DemoFailure("no device sent a second update while bytes were counted")
    metadata = sum(_metadata(frame) for frame in frames) / len(frames)
    up = sum(info.bytes_up - info.frame_bytes for info in later) / updates + metadata
    fetched = sum(transport.fetched for transport in kept)
    return Overhead(round(up, 1), round((sum(info.bytes_down for info in later) - fetched) / updates, 1))


def _metadata(frame: bytes) -> int:
    anatomy = inspect_frame(frame)
    return anatomy.size - anatomy.framing - sum(section.coded for section in anatomy.sections)


def _command(way: Way, folder: Path) -> list[str]:
    options = {
        "db": folder / "rounds.db", "port": 0, "port-file": folder / "port", "rounds": _ROUNDS,
        "goal": _DEVICES, "minimum": _DEVICES, "surplus": 0, "steps": 1, "lr": 0.01,
        "mode": way.mode, "density": way.density,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "edgefl", "serve", str(folder / "model.edgefl"), *words]


def _port(file: Path, server: Process) -> int:
    until = time.monotonic() + _START_S
    while not file.exists():
        server.check()
        if time.monotonic() > until:
            raise DemoFailure(f"the server did not start within {_START_S:.0f} s")
        time.sleep(_POLL_S)
    return int(file.read_text())


def _take_part(url: str, name: str, examples: Examples, folder: Path) -> tuple[threading.Thread, _Kept]:
    transport = _Kept(HttpTransport(url))
    client = DeviceClient(transport, examples, folder / name, device=name)
    thread = threading.Thread(target=lambda: list(client.run()), name=name, daemon=True)
    thread.start()
    return thread, transport
