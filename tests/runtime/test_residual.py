# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefl.delta import Residual
from edgefl.parameters import Parameter, Schema
from edgefl.runtime.residual import MAX_AGE, ResidualStore
from edgefl.tensorfile import write_tensors

pytestmark = pytest.mark.device

SCHEMA = Schema((Parameter("w", (5,), "float32", "shared"),))
VECTOR = np.arange(5, dtype=np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "residual"


@pytest.fixture
def store(path) -> ResidualStore:
    return ResidualStore(path)


def test_nothing_kept_is_none(store: ResidualStore) -> None:
    assert store.load(SCHEMA, 0) is None


def test_a_restart_finds_what_was_kept(store: ResidualStore, path) -> None:
    store.save(Residual(VECTOR, SCHEMA.id, 3))

    found = ResidualStore(path).load(SCHEMA, 4)

    assert found is not None
    assert (found.schema_id, found.base_version) == (SCHEMA.id, 3)
    np.testing.assert_array_equal(found.vector, VECTOR)


def test_the_newest_replaces_the_older(store: ResidualStore, path) -> None:
    store.save(Residual(VECTOR, SCHEMA.id, 3))
    store.save(Residual(VECTOR * 2, SCHEMA.id, 4))

    found = store.load(SCHEMA, 4)

    assert found is not None
    np.testing.assert_array_equal(found.vector, VECTOR * 2)
    assert list(path.parent.iterdir()) == [path]


def test_clear_forgets(store: ResidualStore) -> None:
    store.save(Residual(VECTOR, SCHEMA.id, 3))
    store.clear()
    store.clear()

    assert store.load(SCHEMA, 3) is None


@pytest.mark.parametrize("version", [2, 4 + MAX_AGE])
def test_a_version_too_far_resets(store: ResidualStore, version: int, caplog) -> None:
    store.save(Residual(VECTOR, SCHEMA.id, 3))

    with caplog.at_level(logging.INFO):
        assert store.load(SCHEMA, version) is None
    assert "dropped" in caplog.text


def test_another_schema_resets(store: ResidualStore) -> None:
    store.save(Residual(VECTOR, SCHEMA.id, 3))

    assert store.load(Schema((Parameter("other", (5,), "float32", "shared"),)), 3) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_damaged_file_resets_and_is_logged(store: ResidualStore, path, caplog, data) -> None:
    store.save(Residual(VECTOR, SCHEMA.id, 3))
    good = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(good) - 1))
    damaged = good.copy()
    damaged[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    caplog.clear()

    found = store.load(SCHEMA, 3)

    if found is None:
        assert "dropped" in caplog.text
    else:
        np.testing.assert_array_equal(found.vector, VECTOR)


@pytest.mark.parametrize("content", [b"", b"x" * 7, b"\0" * 100, write_tensors({"other": VECTOR})])
def test_other_files_reset_and_are_logged(store: ResidualStore, path, caplog, content: bytes) -> None:
    path.write_bytes(content)

    assert store.load(SCHEMA, 3) is None
    assert "dropped" in caplog.text


def test_a_huge_file_is_not_read(store: ResidualStore, path, caplog) -> None:
    path.touch()
    os.truncate(path, 1 << 40)

    assert store.load(SCHEMA, 3) is None
    assert "over" in caplog.text


def test_values_that_are_not_finite_reset(store: ResidualStore, caplog) -> None:
    store.save(Residual(VECTOR * np.float32("nan"), SCHEMA.id, 3))

    assert store.load(SCHEMA, 3) is None
    assert "NaN" in caplog.text


def test_a_failed_write_keeps_the_old_file(store: ResidualStore, path, monkeypatch) -> None:
    store.save(Residual(VECTOR, SCHEMA.id, 3))

    def refuse(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="disk full"):
        store.save(Residual(VECTOR * 2, SCHEMA.id, 4))

    found = store.load(SCHEMA, 3)
    assert found is not None
    np.testing.assert_array_equal(found.vector, VECTOR)
    assert list(path.parent.iterdir()) == [path]


def test_momentum_is_kept_with_it(store: ResidualStore, path) -> None:
    store.save(Residual(VECTOR, SCHEMA.id, 3, momentum=VECTOR * 3))

    found = ResidualStore(path).load(SCHEMA, 4)

    assert found is not None and found.momentum is not None
    np.testing.assert_array_equal(found.vector, VECTOR)
    np.testing.assert_array_equal(found.momentum, VECTOR * 3)


def test_damaged_momentum_drops_both(store: ResidualStore, path) -> None:
    store.save(Residual(VECTOR, SCHEMA.id, 3, momentum=VECTOR * 3))
    data = path.read_bytes()
    at = data.index((VECTOR * 3).tobytes())
    path.write_bytes(data[: at + 4] + b"\x01" + data[at + 5 :])

    assert store.load(SCHEMA, 4) is None
