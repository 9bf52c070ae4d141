# SPDX-License-Identifier: Apache-2.0
"""Fuzzing as a command: a real server passes a moment of it, and one that fails is found out."""

from __future__ import annotations

import http.server
import random
import threading
from collections import Counter
from types import SimpleNamespace

import pytest

from benchmarks import fuzz


def test_a_moment_of_bodies_and_connections(capsys, monkeypatch):
    monkeypatch.setattr(fuzz, "LOOK_S", 0.2)

    with pytest.raises(SystemExit) as ended:
        fuzz.main(["bodies", "connections", "--seconds", "3", "--seed", "7"])

    told = capsys.readouterr().out
    assert ended.value.code == 0 and "FOUND" not in told
    assert [line.partition(":")[0] for line in told.splitlines() if "requests" in line] == [
        "open",
        "enrolled",
    ] * 2


def test_answers_of_500_are_found():
    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(500)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        target = SimpleNamespace(port=server.server_address[1], answers=Counter(), findings=[])
        assert fuzz.Target.ask(target, "GET", "/healthz") == (500, b"")
        server.shutdown()

    assert target.findings == ["GET /healthz: 500 b'' to b''"] and target.answers == {500: 1}


def test_without_schemathesis_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("SCHEMATHESIS", str(tmp_path / "none"))

    with pytest.raises(SystemExit, match="make fuzz"):
        fuzz.api(SimpleNamespace(), 0.0, random.Random(0))


def test_damage_is_repaired_up_to_where_it_lies():
    from benchmarks.server import model
    from edgefl.delta import Limits, decode

    bundle, dice = model(fuzz.SIZE), random.Random(1)
    made = fuzz.frame(bundle, dice)
    wrong = bytearray(made)
    wrong[0], wrong[-1], wrong[26] = 0, wrong[-1] ^ 1, 7

    assert fuzz.repaired(bytes(wrong)) == made
    assert decode(made, Limits(bundle.schema().id, fuzz.SIZE)).size == fuzz.SIZE
    assert fuzz.mutated(made, random.Random(3)) != made
