# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the server measures whole rounds of a real one."""

from __future__ import annotations

import json

from benchmarks import server


def test_rounds_are_measured(capsys):
    server.main(["--parameters", "500", "--devices", "3", "--rounds", "2", "--json"])

    made = json.loads(capsys.readouterr().out)

    assert len(made["rounds"]) == 2
    assert all(value > 0 for value in made["median"].values())
