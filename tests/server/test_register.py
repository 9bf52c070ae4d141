# SPDX-License-Identifier: Apache-2.0
"""Who is enrolled: one contract, kept by memory, SQLite and PostgreSQL; and nonces, each taken once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from edgefl.errors import Refused
from edgefl.identity import WINDOW_S
from edgefl.server_stub.identity.register import Device, Token
from edgefl.server_stub.identity.replay import Nonces
from edgefl.server_stub.memory import MemoryStore
from edgefl.server_stub.store import Store
from edgefl.wire import CheckIn

TOKEN = Token("a" * 64, "for two", uses=2, used=0, made_at=10.0, expires_at=1000.0)
KITCHEN = Device("0" * 16, "kitchen", "hmac", bytes(32), TOKEN.digest, enrolled_at=20.0)
ATTIC = Device("1" * 16, "attic", "ed25519", bytes(range(32)), TOKEN.digest, enrolled_at=30.0)
CELLAR = Device("2" * 16, "", "hmac", b"\xff" * 32, TOKEN.digest, enrolled_at=40.0)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def reopened(request, tmp_path):
    """A function that gives the storage, opened anew where it outlives its process."""
    if request.param == "memory":
        kept = MemoryStore()
        yield lambda: kept
        return
    url = (
        request.getfixturevalue("postgres")() if request.param == "postgres" else f"sqlite:///{tmp_path}/x.db"
    )
    opened = []

    def again():
        for old in opened:
            old.close()
        opened.append(Store(url))
        return opened[-1]

    yield again
    for old in opened:
        old.close()


@pytest.fixture
def register(reopened):
    """With one token for two devices."""
    made = reopened().register()
    made.put_token(TOKEN)
    return made


def reason(call, *arguments):
    with pytest.raises(Refused) as caught:
        call(*arguments)
    assert caught.value.status == 403
    return caught.value.reason


def used(register):
    return [token.used for token in register.tokens()]


def test_everything_is_as_it_was_put(register, reopened):
    register.enrol(ATTIC)
    register.enrol(KITCHEN)
    register.put_token(replace(TOKEN, digest="b" * 64, made_at=5.0, label=""))
    register.put_admin("c" * 64)

    again = reopened().register()

    assert again.tokens() == [replace(TOKEN, digest="b" * 64, made_at=5.0, label=""), replace(TOKEN, used=2)]
    assert again.devices() == [KITCHEN, ATTIC] and again.find(ATTIC.identity) == ATTIC
    assert again.admin() == "c" * 64


def test_nothing_is_known_of_strangers(register):
    assert register.find(KITCHEN.identity) is None and register.devices() == [] and register.admin() is None
    assert not register.revoke(KITCHEN.identity, 50.0)


def test_a_token_is_for_as_many_devices_as_it_says(register):
    register.enrol(KITCHEN)
    register.enrol(ATTIC)

    assert reason(register.enrol, CELLAR) == "bad-token"
    assert used(register) == [2] and register.find(CELLAR.identity) is None


def test_the_same_device_again_takes_nothing_from_the_token(register):
    for _ in range(3):
        register.enrol(KITCHEN)
    register.enrol(replace(KITCHEN, enrolled_at=900.0, label="hall"))
    register.enrol(ATTIC)
    register.enrol(replace(KITCHEN, enrolled_at=5000.0))

    assert used(register) == [2], "nor does it matter that the token is used up, or its time over"
    assert register.find(KITCHEN.identity) == KITCHEN


@pytest.mark.parametrize("at", [1000.0, 1001.0])
def test_a_token_ends(register, at):
    assert reason(register.enrol, replace(KITCHEN, enrolled_at=at)) == "bad-token"
    assert used(register) == [0]


def test_tokens_nobody_made_enrol_nobody(register):
    assert reason(register.enrol, replace(KITCHEN, token="d" * 64)) == "bad-token"


def test_a_known_device_with_another_token_or_key_is_refused(register):
    register.put_token(replace(TOKEN, digest="b" * 64))
    register.enrol(KITCHEN)

    for other in (
        replace(KITCHEN, token="b" * 64),
        replace(KITCHEN, key=b"x" * 32),
        replace(KITCHEN, scheme="ed25519"),
    ):
        assert reason(register.enrol, other) == "bad-token"
    assert used(register) == [1, 0] and register.find(KITCHEN.identity) == KITCHEN


def test_a_revoked_device_stays_so(register, reopened):
    register.enrol(KITCHEN)
    assert register.revoke(KITCHEN.identity, 50.0) and register.revoke(KITCHEN.identity, 60.0)

    again = reopened().register()

    assert again.find(KITCHEN.identity).revoked_at == 50.0, "since the first time"
    assert reason(again.enrol, KITCHEN) == "revoked" and used(again) == [1]


def test_there_is_one_admin_token(register):
    register.put_admin("a" * 64)
    register.put_admin("b" * 64)

    assert register.admin() == "b" * 64


def test_a_device_was_last_seen_when_it_asked_for_work(reopened):
    store = reopened()
    register = store.register()
    register.put_token(TOKEN)
    register.enrol(KITCHEN)
    store.put_device(CheckIn(KITCHEN.identity, "0" * 16, "numpy 1", 3), 70.0)
    store.put_device(CheckIn(KITCHEN.identity, "0" * 16, "numpy 1", 3), 80.0)
    store.put_device(CheckIn(ATTIC.identity, "0" * 16, "numpy 1", 3), 90.0)

    assert [device.last_seen for device in register.devices()] == [80.0]
    assert register.find(KITCHEN.identity).last_seen == 80.0


def test_a_party_was_last_seen_under_its_tokens_label(reopened):
    store = reopened()
    register = store.register()
    register.put_token(replace(TOKEN, label="alice"))
    register.enrol(KITCHEN)
    store.put_device(CheckIn("alice", "0" * 16, "numpy 1", 3), 70.0)

    assert register.find(KITCHEN.identity).last_seen == 70.0
    assert [device.last_seen for device in register.devices()] == [70.0]


def test_of_many_at_once_as_many_are_enrolled_as_the_token_allows(register):
    crowd = [replace(CELLAR, identity=f"{n:016x}") for n in range(8)]

    def outcome(device):
        try:
            register.enrol(device)
        except Refused as exc:
            return exc.reason
        return "enrolled"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(outcome, crowd))
        again = list(
            pool.map(
                outcome,
                [device for device, said in zip(crowd, outcomes, strict=True) if said == "enrolled"] * 4,
            )
        )

    assert sorted(outcomes) == ["bad-token"] * 6 + ["enrolled"] * 2
    assert again == ["enrolled"] * 8 and used(register) == [2] and len(register.devices()) == 2


# -- nonces


def test_a_nonce_is_taken_once_per_identity_and_time():
    nonces = Nonces(1000.0)

    assert nonces.take("a", "x", 1010, 1010.0)
    assert not nonces.take("a", "x", 1010, 1011.0)
    assert all(
        nonces.take(*other, 1011.0) for other in (("b", "x", 1010), ("a", "y", 1010), ("a", "x", 1011))
    )
    assert len(nonces) == 4


def test_requests_from_before_the_start_or_outside_the_window_are_not_fresh():
    nonces = Nonces(1000.9)

    assert nonces.floor == 1001 and nonces.told(1000.9) == 1001 and nonces.told(1002.5) == 1002
    assert not nonces.fresh(1000, 1000.9) and nonces.fresh(1001, 1000.9)
    late = 1001 + WINDOW_S
    assert nonces.fresh(1001, late) and not nonces.fresh(1001, late + 1)
    assert nonces.fresh(late, 1001.0) and not nonces.fresh(late + 1, 1001.0)


def test_what_is_forgotten_with_time_is_stale_by_then():
    nonces = Nonces(0.0)
    assert nonces.take("a", "x", 30, 30.0)
    later = 60.0 + WINDOW_S
    assert not nonces.take("a", "x", 30, later - 1), "its minute may still be asked for"

    nonces.take("b", "y", int(later), later)

    assert len(nonces) == 1 and nonces.floor == 60
    assert not nonces.fresh(30, later)


def test_a_full_list_forgets_the_oldest_and_takes_nothing_as_old_again():
    nonces = Nonces(0.0, most=3)
    for minute in range(4):
        assert nonces.take("a", "x", 60 * minute + 1, 61.0 * minute)

    assert len(nonces) <= 3 and nonces.floor == 60
    assert not nonces.fresh(1, 200.0) and nonces.fresh(61, 200.0)
    assert not nonces.take("a", "x", 181, 200.0)
