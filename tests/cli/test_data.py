# SPDX-License-Identifier: Apache-2.0
"""Examples that are no `.npz`, on the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from edgefl.data import load_examples
from tests.cli.commands import Command
from tests.cli.test_federation import needs_server, start
from tests.cli.test_federation import server as two_rounds  # noqa: F401

NAMES = ("rest", "run", "walk")
HOW = ("--label-column", "kind", "--columns", "acc_*")


@pytest.fixture
def table(data: Path, tmp_path: Path) -> Path:
    """The same examples as text."""
    found, path = load_examples(data), tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*(f"acc_{i}" for i in range(6)), "kind", "note"])
        out.writerows([*map(float, x), NAMES[y], "-"] for x, y in zip(found.x, found.y, strict=True))
    return path


def test_a_table_is_as_good_as_arrays(call: Command, mlp: Path, data: Path, table: Path) -> None:
    for name, given in (("a", (data,)), ("b", (table, *HOW))):
        call("train", mlp, "-d", *given, "-b", "numpy", "-o", f"{name}.edgefl", "--json").json()
    scores = [
        call("evaluate", f"{name}.edgefl", "-d", *given, "-b", "numpy", "--json").json()
        for name, given in (("a", (data,)), ("b", (table, *HOW)))
    ]
    simulated = call("simulate", mlp, "-d", table, *HOW, "--devices", 2, "--rounds", 1, "--json").json()
    added = call("store", "add", "s.db", "--bundle", mlp, "-d", table, *HOW, "--json").json()

    assert scores[0] == scores[1]
    assert simulated["rounds"][0]["devices"] == 2 and added["new"] == 96


def test_a_value_that_is_none_says_where(call: Command, mlp: Path, table: Path) -> None:
    lines = table.read_text().splitlines()
    lines[4] = lines[4].replace(lines[4].split(",")[2], "n/a")
    table.write_text("\n".join(lines))

    refused = call("evaluate", mlp, "-d", table, *HOW, "--json").refusal()

    assert refused["error"] == "DataType"
    assert refused["message"].endswith("t.csv, row 5, column 'acc_2': 'n/a' is no number")


@needs_server
def test_a_device_reads_a_table(
    two_rounds,  # noqa: F811
    table: Path,
    tmp_path: Path,
) -> None:
    devices = [
        start(tmp_path, "device", "-s", two_rounds.url, "-d", table, *HOW, "--workdir", n, "-b", "numpy")
        for n in ("a", "b")
    ]

    ended = [device.communicate(timeout=60) for device in devices]

    assert [device.returncode for device in devices] == [0, 0], ended


def test_columns_for_calibration(call: Command, mlp: Path, table: Path, tmp_path: Path) -> None:

    made = call(
        "export", mlp, "-d", table, *HOW, "--form", "int8", "-t", "onnx", "-o", tmp_path, "--json"
    ).json()

    assert made["files"]
