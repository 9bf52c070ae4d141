# SPDX-License-Identifier: Apache-2.0
"""The server's time: what a wall clock that is set does to rounds, which is nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefl.server_stub import coordinator as module
from edgefl.server_stub.clock import Moment, ServerClock
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.settings import Settings

MODEL = Path(__file__).parent.parent / "fixtures" / "mlp.edgefl"
YEAR = 365.0 * 86400


class Machine:
    """A wall clock and a steady one."""

    def __init__(self) -> None:
        self.wall, self.steady = 1e9, 50.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def clock(self, last: Moment | None) -> ServerClock:
        return ServerClock(last, lambda: self.wall, lambda: self.steady)


@pytest.mark.parametrize("set_by", [-YEAR, YEAR, 0.0])
def test_setting_the_wall_clock_moves_no_time(set_by):
    machine = Machine()
    clock = machine.clock(None)
    before = clock()

    machine.wall += set_by
    machine.pass_(3.0)

    assert clock() == before + 3.0


def test_time_counts_on_while_no_server_runs():
    machine = Machine()
    last = machine.clock(None).moment()
    machine.pass_(61.0)
    machine.steady = 0.0

    assert machine.clock(last)() == last.server + 61.0


def test_wall_clock_set_back_while_no_server_runs_does_not_turn_time_back():
    machine = Machine()
    last = machine.clock(None).moment()
    machine.wall -= YEAR

    clock = machine.clock(last)
    machine.pass_(5.0)

    assert clock() == last.server + 5.0


@pytest.mark.parametrize("set_by", [-YEAR, YEAR])
def test_deadline_stands_when_the_wall_clock_is_set(tmp_path, monkeypatch, hello, set_by):
    machine = Machine()
    monkeypatch.setattr(module, "ServerClock", lambda last: machine.clock(last))
    settings = Settings(MODEL, tmp_path / "x.db", goal=2, minimum=2, rounds=1, deadline_s=60.0)
    server = Coordinator(settings)
    server.check_in(hello("a"))

    machine.wall += set_by
    machine.pass_(10.0)
    server.tick()
    assert (server.due(), server.rounds()[0].extensions) == (50.0, 0)
    machine.pass_(50.0)
    server.tick()

    assert (server.due(), server.rounds()[0].extensions) == (60.0, 1)
    server.close()


def test_restart_goes_on_from_the_last_sign_of_life(tmp_path, monkeypatch, hello):
    machine = Machine()
    monkeypatch.setattr(module, "ServerClock", lambda last: machine.clock(last))
    settings = Settings(MODEL, tmp_path / "x.db", goal=2, minimum=2, rounds=1, deadline_s=60.0)
    first = Coordinator(settings)
    first.check_in(hello("a"))
    machine.wall -= YEAR
    machine.pass_(20.0)
    first.tick()
    first.close()

    machine.pass_(10.0)
    second = Coordinator(settings)

    assert second.due() == 30.0
    second.close()
