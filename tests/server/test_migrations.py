# SPDX-License-Identifier: Apache-2.0
"""Databases of older releases go on; those of newer ones are refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from edgefl.errors import StoreError
from edgefl.server_stub import migrations
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.settings import Settings
from edgefl.server_stub.store import Store
from edgefl.wire import Training

FIXTURES = Path(__file__).parent.parent / "fixtures"
OLD = (FIXTURES / "server_schema_0.sql").read_text()
"""What the release before the first schema number left: one closed round, one of two updates of the next."""


@pytest.fixture
def old(tmp_path) -> Path:
    with sqlite3.connect(tmp_path / "old.db") as db:
        db.executescript(OLD)
    db.close()
    return tmp_path / "old.db"


def settings(path: Path) -> Settings:
    model = FIXTURES / "mlp.edgefl"
    return Settings(model, path, goal=2, rounds=3, downlink=0.0, training=Training.of(density=0.2))


def columns(path: Path) -> dict[str, dict[str, tuple[str, bool]]]:
    engine = create_engine(f"sqlite:///{path}")
    found = inspect(engine)
    tables = {
        table: {c["name"]: (str(c["type"]), bool(c["nullable"])) for c in found.get_columns(table)}
        for table in found.get_table_names()
    }
    engine.dispose()
    return tables


def test_an_old_database_goes_on_with_the_round_it_has(old, make_frame, hello):
    coordinator = Coordinator(settings(old), clock=lambda: 1001.0)
    assert [r.updates for r in coordinator.rounds()] == [2, 1]

    task = coordinator.check_in(hello("b")).task
    coordinator.accept(2, task.assignment, make_frame(7, task.base_version))
    coordinator.tick()

    assert coordinator.status().version == 2
    coordinator.close()


def test_steps_lead_to_the_tables_of_a_new_database(old, tmp_path):
    for path in (old, tmp_path / "new.db"):
        Store(f"sqlite:///{path}").close()

    assert columns(old) == columns(tmp_path / "new.db")


def test_a_database_of_a_newer_release_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "new.db"
    Store(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as db:
        db.execute("update schema_version set version = 9999")
    db.close()

    with pytest.raises(StoreError, match="schema 9999, this release knows up to"):
        Store(f"sqlite:///{path}")


def test_a_step_that_fails_changes_nothing(old, monkeypatch):
    def fail(_):
        raise RuntimeError("power failure")

    before = columns(old)
    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, fail))

    with pytest.raises(RuntimeError):
        Store(f"sqlite:///{old}")

    assert columns(old) == before
