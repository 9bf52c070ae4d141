# SPDX-License-Identifier: Apache-2.0
"""What a real server tells of the devices in its rounds, and of the updates it refused."""

from __future__ import annotations

import json
import re
import socket

import pytest
from sqlalchemy import create_engine, select

from edgefl.errors import Refused
from edgefl.server_stub import tables
from tests.cli.commands import in_own_process


def refuse(call, *arguments) -> str:
    with pytest.raises(Refused) as failure:
        call(*arguments)
    return failure.value.reason


def counted(server) -> list[dict[str, int]]:
    return [{each.reason: each.count for each in info.refused} for info in server.rounds().rounds]


def test_refused_updates_are_counted_by_round_and_reason_and_logged(serve, make_frame, hello):
    server = serve(goal=1, rounds=2, surplus=2.0)
    remote = server.remote()
    a, b = remote.check_in(hello("a")).task, remote.check_in(hello("b")).task
    bad = make_frame(1)[:-1]
    refuse(remote.upload, 1, a.assignment, bad)
    refuse(remote.upload, 1, a.assignment, bad)
    refuse(remote.upload, 1, b.assignment, make_frame(1, version=5))
    refuse(remote.upload, 1, "f" * 32, make_frame(1))
    refuse(remote.upload, 1, b.assignment, bytes(a.max_bytes + 1))
    remote.upload(1, a.assignment, make_frame(1))
    server.wait_for_version(1)
    refuse(remote.upload, 1, b.assignment, make_frame(2))
    refuse(remote.upload, 9, b.assignment, make_frame(2))
    server.kill()
    server.start()

    first, second = counted(server)

    assert first == {
        "malformed-frame": 2, "stale-version": 1, "unknown-assignment": 1, "too-large": 1, "round-closed": 1,
    }  # fmt: skip
    assert second == {"unknown-round": 1}
    lines = re.findall(
        r"update refused: round=(\d+) device=(\S+) reason=(\S+) detail=(\".*\")",
        (server.folder / "log.txt").read_text(),
    )
    assert [line[:3] for line in lines] == [
        ("1", "a", "malformed-frame"), ("1", "a", "malformed-frame"), ("1", "b", "stale-version"),
        ("1", "unknown", "unknown-assignment"), ("1", "b", "too-large"), ("1", "b", "round-closed"),
        ("9", "unknown", "unknown-round"),
    ]  # fmt: skip
    assert all(json.loads(line[3]) for line in lines)


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_never_read_is_counted_too(serve, hello, declared):
    server = serve()
    task = server.remote().check_in(hello("a")).task
    how = "content-length: 1000000000" if declared else "transfer-encoding: chunked"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        head = f"PUT /v1/rounds/1/updates/{task.assignment} HTTP/1.1\r\nhost: a\r\n{how}\r\n\r\n"
        sock.sendall(head.encode() + (b"" if declared else b"ffffff\r\n" + bytes(1 << 17)))
        while b"too-large" not in sock.recv(65536):
            pass

    assert counted(server) == [{"too-large": 1}]


def test_participants_and_what_became_of_each(serve, make_frame, hello):
    server = serve(goal=2, rounds=1, surplus=2.0)
    remote = server.remote()
    tasks = {name: remote.check_in(hello(name, examples=7)).task for name in "abcde"}
    refuse(remote.upload, 1, tasks["b"].assignment, b"nonsense")
    remote.decline(1, tasks["c"].assignment, "no memory")
    remote.upload(1, tasks["a"].assignment, make_frame(1, meta={"loss": 0.5}))
    during = remote.participants(1)
    remote.upload(1, tasks["e"].assignment, make_frame(2))
    server.wait_for_version(1)

    after = {each.device: each for each in remote.participants(1)}

    assert [each.device for each in during] == list("abcde")
    assert [each.state for each in during] == ["accepted", "refused", "declined", "working", "working"]
    assert {name: each.state for name, each in after.items()} == {
        "a": "accepted", "b": "refused", "c": "declined", "d": "absent", "e": "accepted",
    }  # fmt: skip
    assert (after["a"].bytes, after["a"].loss) == (len(make_frame(1, meta={"loss": 0.5})), 0.5)
    assert (after["b"].reason, after["c"].reason) == ("malformed-frame", "no memory")
    assert {each.engine for each in after.values()} == {"test"}
    assert {each.examples for each in after.values()} == {7}
    assert refuse(remote.participants, 2) == "unknown-round"


def test_status_on_the_command_line(serve, make_frame, hello, tmp_path):
    server = serve(goal=1, rounds=2)
    remote = server.remote()
    task = remote.check_in(hello("pi-1")).task
    refuse(remote.upload, 1, task.assignment, b"nonsense")
    remote.upload(1, task.assignment, make_frame(1))
    server.wait_for_version(1)
    remote.check_in(hello("pi-2"))

    found = in_own_process(("status", server.url, "--json"), tmp_path).json()
    said = in_own_process(("status", server.url, "--round", 1), tmp_path, 160)
    missing = in_own_process(("status", server.url, "--round", 5, "--json"), tmp_path).refusal()

    assert found["status"]["version"] == 1
    assert found["rounds"][0]["refused"] == [{"reason": "malformed-frame", "count": 1}]
    assert found["participants"]["round"] == 2
    assert [row["device"] for row in found["participants"]["devices"]] == ["pi-2"]
    assert "mlp: version 1, 1 of 2 rounds, 2 devices" in said.out
    assert "1 malformed-frame" in said.out and "Round 1" in said.out
    assert re.search(r"pi-1 +test +10 +accepted", said.out)
    assert "no round 5" in missing["message"]


def test_the_updates_of_a_round_are_found_without_a_look_at_all_there_ever_were(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'rounds.db'}")
    tables.metadata.create_all(engine)
    joined = tables.updates.join(tables.assignments)
    query = select(tables.updates.c.digest).select_from(joined).where(tables.counts_in(3))

    with engine.connect() as c:
        text = str(query.compile(engine, compile_kwargs={"literal_binds": True}))
        plan = [row[-1] for row in c.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
    engine.dispose()

    # Of the table alone it looks for updates that came late; what is joined is found by its keys.
    assert not {"SCAN updates", "SCAN assignments"} & set(plan), plan
