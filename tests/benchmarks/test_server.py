# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the server measures whole rounds of a real one."""

from __future__ import annotations

import json

import pytest

from benchmarks import crowd, server


def test_rounds_are_measured(capsys):
    server.main(["--parameters", "500", "--devices", "3", "--rounds", "2", "--crowd", "0", "--json"])

    made = json.loads(capsys.readouterr().out)

    assert len(made["rounds"]) == 2
    assert all(value > 0 for value in made["median"].values())


def test_a_crowd_meets_no_error():
    found = crowd.measure(500, devices=40, places=5)

    assert (found["errors"], found["updates"]) == (0, 5 * crowd.ROUNDS)
    assert found["check_ins"] >= 40 + found["updates"], "each is told the end, and each place was asked for"
    server.check({"crowd": found, "parameters": 500})


def test_errors_and_memory_of_a_crowd_are_those_of_the_benchmark():
    good = {"errors": 0, "devices": 1000, "grown_mb": 100.0, "error_kinds": {}}

    server.check({"parameters": 10})
    server.check({"parameters": 10, "crowd": good})
    wrong = [({"errors": 2, "error_kinds": {"x": 2}}, "2 errors"), ({"grown_mb": 500.0}, "grew by 500 MB")]
    for found, why in wrong:
        with pytest.raises(SystemExit, match=why):
            server.check({"parameters": 10, "crowd": {**good, **found}})
