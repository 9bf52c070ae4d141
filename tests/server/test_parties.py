# SPDX-License-Identifier: Apache-2.0
"""Rounds of named parties: all of them, and nobody else."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from edgefl.errors import OptionError, Refused
from edgefl.identity.messages import NewToken
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.identity import enrol
from edgefl.runtime.remote import Remote
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.memory import MemoryStore
from edgefl.server_stub.settings import Settings
from edgefl.wire import Training
from tests.server.conftest import MODEL
from tests.server.test_coordinator import Clock
from tests.server.test_identity import Place
from tests.server.test_other_federations import examples  # noqa: F401, a fixture


@pytest.fixture(params=["sqlite", "memory", "postgres"])
def start(request, tmp_path):
    """A function that makes a coordinator on the same storage, and its clock."""
    database = request.getfixturevalue("postgres")() if request.param == "postgres" else tmp_path / "x.db"
    clock, kept, opened = Clock(), MemoryStore() if request.param == "memory" else None, []

    def make(**options):
        for old in opened:
            old.close()
        given = {"training": Training.of(density=0.2), "rounds": 3, "parties": "alice,bob,carol", **options}
        settings = Settings(bundle=MODEL, database=database, deadline_s=60.0, **given)
        opened.append(Coordinator(settings, store=kept, clock=clock))
        return opened[-1], clock

    yield make
    opened[-1].close()


def send(server, hello, make_frame, *names):
    for name in names:
        task = server.check_in(hello(name)).task
        seed = sum(name.encode())
        server.accept(task.round, task.assignment, make_frame(seed, task.base_version))


def test_a_round_closes_with_all_of_them(start, hello, make_frame):
    server, _ = start()
    with pytest.raises(Refused, match="mallory is none of the parties") as caught:
        server.check_in(hello("mallory"))
    assert (caught.value.status, caught.value.reason) == (403, "not-a-party")

    send(server, hello, make_frame, "alice", "carol")
    server.tick()
    assert [(r.state, r.updates, r.missing) for r in server.rounds()] == [("open", 2, "bob")]
    send(server, hello, make_frame, "bob")
    server.tick()

    assert [(r.state, r.missing, r.goal, r.minimum) for r in server.rounds()] == [
        ("closed", "", 3, 3),
        ("open", "alice,bob,carol", 3, 3),
    ]
    assert server.status().version == 1 and server.status().devices == 3


@pytest.mark.parametrize("extensions", [None, 2])
def test_a_round_that_lacks_one_is_abandoned_and_names_it(start, hello, make_frame, caplog, extensions):
    server, clock = start(extensions=extensions)
    send(server, hello, make_frame, "alice")
    late = server.check_in(hello("bob")).task
    for _ in range(extensions or 0):
        clock.now += 60
        server.tick()
        assert server.rounds()[0].state == "open"
    clock.now += 60
    server.tick()

    first = server.rounds()[0]
    assert (first.state, first.version, first.missing, first.bounded) == ("abandoned", None, "bob,carol", 1)
    assert "without bob, carol" in caplog.text and "device=alice" in caplog.text
    told = {p.device: (p.state, p.counted, p.reason) for p in server.participants(1).participants}
    assert told["alice"] == ("accepted", 0.0, "the round was abandoned without bob, carol")
    assert told["bob"] == ("absent", 1.0, "")
    with pytest.raises(Refused, match="round-closed"):
        server.accept(1, late.assignment, make_frame(3))

    again, _ = start(extensions=extensions)
    assert replace(again.rounds()[0], refused=()) == first
    send(again, hello, make_frame, "alice", "bob", "carol")
    again.tick()
    closed = again.rounds()[1]
    assert (closed.state, closed.base_version, closed.version) == ("closed", 0, 1)


def test_a_round_keeps_the_parties_it_began_with(start, hello, make_frame):
    server, _ = start()
    send(server, hello, make_frame, "alice")

    again, _ = start(parties="alice,bob,dave")

    assert again.rounds()[0].missing == "bob,carol"
    assert again.check_in(hello("dave")).task is None, "from the next round on"
    with pytest.raises(Refused, match="not-a-party"):
        again.check_in(hello("carol"))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"parties": "alice,alice"}, "twice"),
        ({"parties": "alice,,bob"}, "allowed is"),
        ({"parties": "alice, bob"}, "allowed is"),
        ({"parties": "a,b", "minimum": 1}, "minimum=1"),
        ({"parties": "a,b", "staleness": 2}, "staleness=2"),
        ({"parties": "a,b", "selection_window_s": 5.0}, "selection_window_s=5.0"),
    ],
)
def test_what_does_not_go_with_parties_is_refused(options, why):
    with pytest.raises(OptionError, match=why):
        Settings(bundle=MODEL, database="", **options)


def test_over_http_parties_train_and_strangers_do_not(serve, examples, tmp_path):  # noqa: F811
    server = serve(parties="alice,bob", rounds=2, deadline_s=600.0)

    def party(name):
        return DeviceClient(server.transport(), examples, tmp_path / name, backend="numpy", device=name)

    with pytest.raises(Refused, match="not-a-party"):
        next(party("mallory").run())
    for version in (1, 2):
        assert next(party("alice").run(max_rounds=1)).accepted
        assert server.status().version == version - 1 and server.status().round.missing == "bob"
        assert next(party("bob").run(max_rounds=1)).accepted
        server.wait_for_version(version)

    assert server.status().finished


def test_over_http_a_round_nobody_completes_names_who_was_missing(serve, hello, make_frame):
    server = serve(parties="alice,bob", rounds=1, deadline_s=2.0)
    task = server.remote().check_in(hello("alice")).task
    if task is not None:  # the deadline may be over by now
        server.remote().upload(1, task.assignment, make_frame(1))
    deadline = time.monotonic() + 30
    while not server.status().finished:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    info = server.rounds().rounds[0]
    assert info.state == "abandoned" and info.missing == ("bob" if info.updates else "alice,bob")
    assert server.status().version == 0


def test_enrolled_parties_are_those_whose_token_has_their_name(serve, hello, make_frame):
    place = Place(serve(enrolled=True, parties="alice,bob", rounds=1))

    def enrolled(label):
        token = place.admin.make_token(NewToken(label=label)).token
        return enrol(place.server.transport(), token, place.server.folder / f"of-{label}", label="alice")

    alice, bob, other = (Remote(place.transport(enrolled(label))) for label in ("alice", "bob", "eve"))
    with pytest.raises(Refused, match="eve is none of the parties"):
        other.check_in(hello("alice"))
    for party, seed in ((alice, 1), (bob, 2)):
        task = party.check_in(hello("anything")).task
        party.upload(task.round, task.assignment, make_frame(seed))
    place.wait_for_version(1)

    assert [person.device for person in place.admin_remote().participants(1)] == ["alice", "bob"]
    seen = {info.identity: info.last_seen is not None for info in place.admin.devices()}
    assert sorted(seen.values()) == [False, True, True]


def test_a_revoked_party_gives_its_place_up(serve, hello):
    place = Place(serve(enrolled=True, parties="alice,bob", rounds=1))
    token = place.admin.make_token(NewToken(label="alice")).token
    alice = enrol(place.server.transport(), token, place.server.folder / "of-alice")
    assert Remote(place.transport(alice)).check_in(hello("x")).task is not None

    place.admin.revoke(alice.identity)

    assert [p.state for p in place.admin_remote().participants(1)] == ["declined"]
