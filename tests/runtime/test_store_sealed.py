# SPDX-License-Identifier: Apache-2.0
"""A store whose examples, keys and labels are encrypted where they lie."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.errors import MissingDependency, OptionError, StoreError
from edgefl.runtime.store import AesGcm, ExampleStore
from tests.runtime.test_store import Opened, marked, needle, numbers

KEY = bytes(range(32))


@pytest.fixture
def store(tmp_path: Path, mlp: Bundle, opened: Opened) -> ExampleStore:
    store = opened(tmp_path / "s.db", mlp, cipher=AesGcm(KEY))
    for i in range(9):
        store.add(*marked(i, i % 3), key=f"person-{i % 2}")
    return store


def test_it_works_as_any_other(store: ExampleStore) -> None:
    assert not store.add(*marked(4, 1))
    assert store.sealed and store.info().labels == {"0": 3, "1": 3, "2": 3}
    assert store.forget(key="person-0", label=1) == 1
    assert numbers(store.take()) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert store.forget(where=lambda one: one.label == "2" and one.key == "person-1") == 1


def test_the_file_tells_nothing(store: ExampleStore, tmp_path: Path) -> None:
    data = (tmp_path / "s.db").read_bytes()

    assert not any(needle(i) in data for i in range(9)) and b"person" not in data


def test_only_its_key_opens_it(store: ExampleStore, tmp_path: Path, mlp: Bundle) -> None:
    with ExampleStore(tmp_path / "s.db", mlp, cipher=AesGcm(KEY)) as again:
        assert len(numbers(again.take())) == 9
    with pytest.raises(StoreError, match="the key is another"):
        ExampleStore(tmp_path / "s.db", mlp, cipher=AesGcm(bytes(32)))
    with pytest.raises(StoreError, match="is encrypted: it opens with its key only"):
        ExampleStore(tmp_path / "s.db", mlp)


def test_a_plain_store_does_not_become_a_sealed_one(tmp_path: Path, mlp: Bundle, opened: Opened) -> None:
    opened(tmp_path / "p.db", mlp).add(*marked(0))

    with pytest.raises(StoreError, match="is not encrypted, and holds examples"):
        ExampleStore(tmp_path / "p.db", mlp, cipher=AesGcm(KEY))


def test_what_was_altered_or_moved_is_refused(store: ExampleStore) -> None:
    store._db.change("UPDATE examples SET data = (SELECT data FROM examples WHERE id = 1) WHERE id = 2")

    with pytest.raises(StoreError, match="has been altered"):
        store.take()


def test_keys_have_a_length() -> None:
    with pytest.raises(OptionError, match="has 5 bytes, allowed are 16, 24 or 32"):
        AesGcm(b"short")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)

    with pytest.raises(MissingDependency, match="an encrypted store needs the package 'cryptography'"):
        AesGcm(KEY)


def test_sealed_values_differ_each_time() -> None:
    cipher = AesGcm(KEY)

    assert cipher.seal(b"same", b"a") != cipher.seal(b"same", b"a")
    assert cipher.open(cipher.seal(b"same", b"a"), b"a") == b"same"
    assert np.unique([cipher.seal(b"", b"")[:12] for _ in range(50)]).size == 50
