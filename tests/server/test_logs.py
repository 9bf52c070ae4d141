# SPDX-License-Identifier: Apache-2.0
"""The log of `edgefl serve --log-format json`: an object a line, and each event with its fields."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefl.errors import Refused
from edgefl.runtime.remote import Remote
from edgefl.runtime.transport import HttpTransport
from tests.server.conftest import MODEL


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[tuple[Remote, Path]]:
    """A server as the command line starts it, and its log."""
    port, log = tmp_path / "port", tmp_path / "log.jsonl"
    database = str(tmp_path / "rounds.db")
    options = ["--db", database, "--port", "0", "--port-file", str(port), "--rounds", "1", "--goal", "1"]
    command = [sys.executable, "-m", "edgefl", "serve", str(MODEL), *options, "--log-format", "json"]
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 60
        while not port.exists():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        with HttpTransport(f"http://127.0.0.1:{port.read_text().strip()}") as transport:
            yield Remote(transport), log
    finally:
        process.kill()
        process.wait()


def test_events_have_fields(logged, make_frame, hello):
    remote, log = logged
    task = remote.check_in(hello("watch-1")).task
    with pytest.raises(Refused):
        remote.upload(1, task.assignment, b"EFLU nothing")
    remote.upload(1, task.assignment, make_frame(1, density=0.01))
    deadline = time.monotonic() + 60
    while not remote.status().finished:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    found = {line["event"]: line for line in lines if "event" in line}

    assert found["serving"]["model"] == "mlp" and found["rounds-resumed"]["rounds"] == 1
    refused = found["update-refused"]
    assert (refused["round"], refused["device"], refused["reason"]) == (1, "watch-1", "malformed-frame")
    closed = found["round-closed"]
    assert (closed["round"], closed["version"], closed["updates"]) == (1, 1, 1) and closed["seconds"] > 0
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
