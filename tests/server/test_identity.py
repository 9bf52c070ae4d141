# SPDX-License-Identifier: Apache-2.0
"""Enrolled devices over real HTTP and SQLite: who is let in, and what nobody can do in another's name."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from edgefl.errors import Refused, ServerUnreachable
from edgefl.identity import authorization, read_claim, write_claim
from edgefl.identity.messages import NewToken
from edgefl.runtime.administration import Administration, AdminTransport
from edgefl.runtime.identity import Credential, SignedTransport, enrol
from edgefl.runtime.remote import Remote
from edgefl.runtime.sockets import Allowance
from edgefl.runtime.transport import HttpTransport, Response
from edgefl.wire import Failure, RoundInfo
from tests.server.conftest import Server

LIMIT = 1 << 20


class Place:
    """A server with enrolled devices, and its administrator."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.token = (server.folder / "rounds.db.admin").read_text().strip()
        self.admin = Administration(AdminTransport(server.transport(), self.token))

    def token_for(self, uses: int = 1, **options: Any) -> str:
        return self.admin.make_token(NewToken(uses, **options)).token

    def credential(self, name: str, **options: Any) -> Credential:
        folder = self.server.folder / f"device-{secrets.token_hex(4)}"
        return enrol(self.server.transport(), self.token_for(), folder, label=name, **options)

    def transport(self, credential: Credential, **options: Any) -> SignedTransport:
        return SignedTransport(self.server.transport(), credential.signer, credential.federation, **options)

    def device(self, name: str, **options: Any) -> Remote:
        return Remote(self.transport(self.credential(name, **options)))

    def admin_remote(self) -> Remote:
        return Remote(AdminTransport(self.server.transport(), self.token))

    def rounds(self) -> tuple[RoundInfo, ...]:
        return self.admin_remote().rounds()

    def wait_for_version(self, version: int) -> None:
        deadline = time.monotonic() + 30
        while self.admin_remote().status().version < version:
            assert time.monotonic() < deadline, f"version {version} did not come"
            time.sleep(0.02)


class From(HttpTransport):
    """HTTP from another address of this machine."""

    def _connect(self, allowance: Allowance) -> http.client.HTTPConnection:
        to, seconds = self._route, allowance.seconds()
        return http.client.HTTPConnection(to.host, to.port, seconds, source_address=("127.0.0.2", 0))


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server for all tests that neither close its round nor restart it."""
    server = Server(
        tmp_path_factory.mktemp("enrolled"), {"goal": 1000, "enrolled": True, "training": {"density": 0.2}}
    )
    yield Place(server.start())
    server.stop()


@pytest.fixture
def place(serve: Any) -> Place:
    """A server of one's own."""
    return Place(serve(enrolled=True))


def reason_of(answer: Response) -> str:
    return Failure.from_bytes(answer.body).reason


def refused(call: Any, *arguments: Any) -> str:
    with pytest.raises(Refused) as failure:
        call(*arguments)
    return failure.value.reason


@pytest.mark.parametrize("scheme", ["hmac", "ed25519"])
def test_enrolled_devices_take_part_under_their_identities(place, make_frame, hello, scheme):
    ours = [place.credential(name, scheme=scheme) for name in ("a", "b")]
    devices = [Remote(place.transport(credential)) for credential in ours]
    tasks = [device.check_in(hello("anything")).task for device in devices]

    for device, task, seed in zip(devices, tasks, (1, 2), strict=True):
        device.upload(task.round, task.assignment, make_frame(seed))
    people = place.admin_remote().participants(1)
    known = place.admin.devices()

    assert {person.device for person in people} == {credential.identity for credential in ours}
    assert [(info.identity, info.label, info.scheme) for info in known] == [
        (credential.identity, name, scheme) for credential, name in zip(ours, "ab", strict=True)
    ]
    assert all(info.last_seen is not None for info in known)


ROUTES = [
    ("POST", "/v1/check-in"),
    ("GET", "/v1/bundle?target=onnx"),
    ("GET", "/v1/parameters/0"),
    ("GET", "/v1/parameters/1/from/0"),
    ("GET", "/v1/weights/0"),
    ("GET", "/v1/control/0"),
    ("PUT", f"/v1/rounds/1/updates/{'0' * 32}"),
    ("PUT", f"/v1/rounds/1/declines/{'0' * 32}"),
    ("GET", "/v1/status"),
    ("GET", "/v1/rounds"),
    ("GET", "/v1/rounds/1/participants"),
    ("GET", "/v1/evaluations"),
    ("PUT", f"/v1/evaluations/0/{'0' * 32}"),
    ("POST", "/v1/enrol"),
    ("POST", "/v1/admin/tokens"),
    ("GET", "/v1/admin/tokens"),
    ("GET", "/v1/admin/devices"),
    ("PUT", f"/v1/admin/devices/{'0' * 16}/revoked"),
    ("GET", "/v1/versions"),
]
DECISIONS = [
    ("PUT", "/v1/admin/versions/0/promoted"),
    ("PUT", "/v1/admin/versions/0/pinned"),
    ("DELETE", "/v1/admin/versions/0/pinned"),
    ("PUT", "/v1/admin/versions/0/restored"),
    ("PUT", "/v1/admin/hold"),
    ("DELETE", "/v1/admin/hold"),
]


def test_who_does_not_sign_gets_nothing(shared_place):
    bare = shared_place.server.transport()
    answers = [bare.request(method, path, limit=LIMIT) for method, path in ROUTES]
    decided = [bare.request(method, path, limit=LIMIT) for method, path in DECISIONS]
    told = bare.request("GET", "/openapi.json", limit=LIMIT)
    listed = {
        (method.upper(), path)
        for path, methods in json.loads(told.body)["paths"].items()
        for method in methods
    }

    assert {reason_of(answer) for answer in answers} == {"not-signed"}
    assert {reason_of(answer) for answer in decided} == {"not-admin"}
    assert len(listed) == len(ROUTES) + len(DECISIONS)


def test_every_signed_part_counts(shared_place, hello):
    credential = shared_place.credential("a")
    other = shared_place.credential("b")
    body = hello("a").to_bytes()
    now = int(told_time(shared_place, credential))
    method, path = "POST", "/v1/check-in"
    good = authorization(credential.signer, credential.federation, method, path, body, now)
    claim = read_claim(good)
    assert claim is not None

    def answer(header=good, method=method, path=path, body=body):
        http = shared_place.server.transport()
        return http.request(method, path, body, {"authorization": header}, limit=LIMIT)

    def header(**changes):
        return write_claim(replace(claim, **changes))

    elsewhere = authorization(credential.signer, "0" * 16, method, path, body, now)
    tampered = [
        answer(method="PUT", path=f"/v1/rounds/1/updates/{'0' * 32}"),
        answer(path="/v1/check-in?x=1"),
        answer(body=body.replace(b'"a"', b'"b"')),
        answer(header(identity=other.identity)),
        answer(header(time=now + 1)),
        answer(header(nonce="AAAA")),
        answer(header(signature=bytes(16))),
        answer(elsewhere),
    ]

    assert [(bad.status, reason_of(bad)) for bad in tampered] == [(401, "bad-signature")] * 8
    assert answer(header(identity="0" * 16)).status == 401
    assert answer().status == 200


def told_time(place: Place, credential: Credential) -> float:
    """The server's clock as it tells it to one whose clock is wrong."""
    header = authorization(credential.signer, credential.federation, "GET", "/v1/status", b"", 0)
    answer = place.server.transport().request(
        "GET", "/v1/status", headers={"authorization": header}, limit=LIMIT
    )
    assert (answer.status, reason_of(answer)) == (401, "stale-signature")
    return float(answer.headers["edgefl-time"])


def test_a_request_is_taken_once(shared_place, hello):
    credential = shared_place.credential("a")
    body = hello("a").to_bytes()
    now = int(told_time(shared_place, credential))
    header = authorization(credential.signer, credential.federation, "POST", "/v1/check-in", body, now)

    def answer():
        http = shared_place.server.transport()
        return http.request("POST", "/v1/check-in", body, {"authorization": header}, limit=LIMIT)

    assert answer().status == 200
    assert [reason_of(answer()) for _ in range(2)] == ["replayed", "replayed"]


def test_what_was_recorded_before_a_restart_is_not_taken_after_it(place, hello):
    credential = place.credential("a")
    body = hello("a").to_bytes()
    now = int(told_time(place, credential))
    header = authorization(credential.signer, credential.federation, "POST", "/v1/check-in", body, now)
    request = ("POST", "/v1/check-in", body, {"authorization": header})
    first = place.server.transport().request(*request, limit=LIMIT)

    place.server.kill()
    place.server.start()

    assert first.status == 200
    assert reason_of(place.server.transport().request(*request, limit=LIMIT)) == "stale-signature"


@pytest.mark.parametrize("wrong_s", [-3e8, -1000.0, 1000.0, 3e8])
def test_a_device_with_a_wrong_clock_takes_part(shared_place, make_frame, hello, wrong_s):
    def clock():
        return time.time() + wrong_s

    credential = shared_place.credential("late", clock=clock)
    device = Remote(shared_place.transport(credential, clock=clock))

    task = device.check_in(hello("late")).task

    assert device.upload(1, task.assignment, make_frame(1)).accepted


def test_a_device_whose_answers_get_lost_repeats_itself(shared_place, make_frame, hello):
    class Breaking:
        """Every other request is sent twice, as by a client whose connection breaks before the answer."""

        def __init__(self, inner):
            self._inner, self._count = inner, 0

        def request(self, *arguments, **options):
            self._count += 1
            if self._count % 2:
                self._inner.request(*arguments, **options)
            return self._inner.request(*arguments, **options)

    credential = shared_place.credential("a")
    breaking = Breaking(shared_place.server.transport())
    device = Remote(SignedTransport(breaking, credential.signer, credential.federation))

    task = device.check_in(hello("a")).task
    answer = device.upload(1, task.assignment, make_frame(1))

    assert answer.accepted and answer.duplicate


def test_nobody_takes_anothers_assignment(shared_place, make_frame, hello):
    victim, thief = shared_place.device("victim"), shared_place.device("thief")
    task = victim.check_in(hello("victim")).task

    theirs = thief.check_in(hello("victim")).task
    took = [
        refused(thief.upload, 1, task.assignment, make_frame(1)),
        refused(thief.upload, 1, task.assignment, b"nonsense"),
        refused(thief.decline, 1, task.assignment, "tired"),
    ]

    assert theirs.assignment != task.assignment
    assert took == ["unknown-assignment"] * 3
    assert victim.upload(1, task.assignment, make_frame(2)).accepted
    assert shared_place.rounds()[0].refused == ()


def test_a_hundred_names_are_one_place(shared_place, hello):
    device = shared_place.device("greedy")

    before = shared_place.rounds()[0].assigned
    tasks = {device.check_in(hello(f"name-{i}")).task.assignment for i in range(100)}

    assert len(tasks) == 1
    assert shared_place.rounds()[0].assigned == before + 1


def test_what_a_revoked_device_sent_counts_and_its_place_is_free(serve, make_frame, hello):
    place = Place(serve(enrolled=True, goal=2, surplus=0.0))
    a, b = place.credential("a"), place.credential("b")
    sent, idle = Remote(place.transport(a)), Remote(place.transport(b))
    frame = make_frame(1)
    task = sent.check_in(hello("a")).task
    sent.upload(1, task.assignment, frame)
    held = idle.check_in(hello("b")).task

    place.admin.revoke(a.identity)
    place.admin.revoke(b.identity)
    after = [
        refused(sent.check_in, hello("a")),
        refused(sent.upload, 1, task.assignment, frame),
        refused(idle.upload, 1, held.assignment, make_frame(2)),
    ]
    third = place.device("c")
    task = third.check_in(hello("c")).task
    third.upload(1, task.assignment, make_frame(3))
    place.wait_for_version(1)

    assert after == ["revoked"] * 3
    assert place.rounds()[0].updates == 2
    assert [info.revoked_at is not None for info in place.admin.devices()] == [True, True, False]


def test_tokens_are_for_so_many_devices_and_so_long(shared_place, tmp_path):
    http = shared_place.server.transport()
    token = shared_place.token_for(2)
    old = shared_place.token_for(days=0)

    a, b = (enrol(http, token, tmp_path / name) for name in "ab")
    again = enrol(http, token, tmp_path / "a")

    assert again == a and a.identity != b.identity
    assert refused(enrol, http, token, tmp_path / "c") == "bad-token"
    assert refused(enrol, http, old, tmp_path / "d") == "bad-token"
    assert refused(enrol, http, "guessed", tmp_path / "e") == "bad-token"
    assert [(info.uses, info.used) for info in shared_place.admin.tokens()[-2:]] == [(2, 2), (1, 0)]


def test_a_lost_answer_takes_nothing_from_the_token(shared_place, tmp_path):
    class Losing:
        def __init__(self, inner):
            self._inner = inner

        def request(self, *arguments, **options):
            self._inner.request(*arguments, **options)
            raise ServerUnreachable("lost")

    http, token = shared_place.server.transport(), shared_place.token_for()
    before = len(shared_place.admin.devices())
    with pytest.raises(ServerUnreachable):
        enrol(Losing(http), token, tmp_path / "a")

    credential = enrol(http, token, tmp_path / "a")

    assert len(shared_place.admin.devices()) == before + 1
    assert Remote(shared_place.transport(credential)).status().rounds_done == 0
    assert (tmp_path / "a" / "identity.json").stat().st_mode & 0o777 == 0o600


def test_one_use_is_one_device_however_many_ask_at_once(shared_place, tmp_path):
    token = shared_place.token_for()

    def one(name: str) -> str:
        try:
            return enrol(shared_place.server.transport(), token, tmp_path / name).identity
        except Refused as exc:
            return exc.reason

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(one, "abcdefgh"))

    assert got.count("bad-token") == 7
    assert sum(info.token == shared_place.admin.tokens()[-1].id for info in shared_place.admin.devices()) == 1


def test_a_key_is_enrolled_by_who_has_it(shared_place, tmp_path):
    """Another's public key, brought with a token of one's own, enrols nobody."""
    from edgefl.identity import new_signer
    from edgefl.runtime.identity.enrol import introduce

    class Borrowed:
        scheme = "ed25519"
        key = new_signer("ed25519").key

        def sign(self, message: bytes) -> bytes:
            return new_signer("ed25519").sign(message)

    http, token = shared_place.server.transport(), shared_place.token_for()

    assert refused(introduce, http, Borrowed(), token, "") == "bad-signature"
    assert shared_place.admin.tokens()[-1].used == 0


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_only_administrators_administer(place):
    device = place.transport(place.credential("a"))
    guessing = AdminTransport(place.server.transport(), "guessed")

    assert refused(Administration(device).tokens) == "not-admin"
    assert refused(Administration(device).make_token, NewToken()) == "not-admin"
    assert refused(Remote(device).participants, 1) == "not-admin"
    assert refused(Administration(guessing).devices) == "not-admin"
    assert place.admin_remote().status().rounds_total == 2
    stored = (place.server.folder / "rounds.db").read_bytes()
    assert place.token.encode() not in stored
    assert (place.server.folder / "rounds.db.admin").stat().st_mode & 0o777 == 0o600


def test_a_token_in_the_admin_file_takes_the_place_of_the_old_one(place):
    place.server.kill()
    (place.server.folder / "rounds.db.admin").write_text("a token of my own\n")
    place.server.start()

    with_new = Administration(AdminTransport(place.server.transport(), "a token of my own"))
    with_old = Administration(AdminTransport(place.server.transport(), place.token))

    assert with_new.devices() == ()
    assert refused(with_old.devices) == "not-admin"


def test_floods_meet_their_limit_and_others_are_served(serve, make_frame, hello):
    place = Place(serve(enrolled=True, per_device=2.0, per_address=2.0))
    flooding, known = place.transport(place.credential("flood")), place.credential("b")
    headers = {"authorization": f"EFL1 {'A' * 43}"}

    told = [flooding.request("GET", "/v1/status", limit=LIMIT) for _ in range(60)]
    near = place.server.transport()
    strange = [near.request("GET", "/v1/status", headers=headers, limit=LIMIT) for _ in range(60)]
    with From(place.server.url) as elsewhere:
        other = Remote(SignedTransport(elsewhere, known.signer, known.federation))
        task = other.check_in(hello("b")).task
        sent = other.upload(1, task.assignment, make_frame(1))

    assert {answer.status for answer in told} == {200, 429}
    assert {answer.status for answer in strange} == {401, 429}
    for answer in (told[-1], strange[-1]):
        assert reason_of(answer) == "too-many-requests" and int(answer.headers["retry-after"]) >= 1
    assert sent.accepted
