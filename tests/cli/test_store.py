# SPDX-License-Identifier: Apache-2.0
"""`edgefl store`, and a device that trains from what it made."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgefl.data import load_examples
from tests.cli.commands import Command
from tests.cli.test_federation import Server, needs_server, start
from tests.cli.test_federation import server as two_rounds  # noqa: F401


def test_add_info_forget_export(call: Command, mlp: Path, data: Path) -> None:
    made = call("store", "add", "s.db", "--bundle", mlp, "-d", data, "--key", "day 1", "--json").json()
    again = call("store", "add", "s.db", "-d", data, "--keep-days", 30).out
    info = call("store", "info", "s.db", "--json").json()
    said = call("store", "info", "s.db").out
    gone = call("store", "forget", "s.db", "--label", 2, "--key", "day 1", "--json").json()
    written = call("store", "export", "s.db", "-o", "out.npz", "--json").json()

    classes = np.bincount(load_examples(data).y)
    assert (made["given"], made["new"], made["examples"]) == (96, 96, 96)
    assert again == "s.db: 0 of 96 examples are new; it holds 96\n"
    assert info["labels"] == {str(i): n for i, n in enumerate(classes)} and not info["sealed"]
    assert info["limits"]["keep_days"] == 30 and "limits   keep_days 30.0" in said
    assert (gone["forgotten"], gone["examples"]) == (classes[2], 96 - classes[2])
    kept = load_examples(written["file"])
    assert written["examples"] == len(kept) == 96 - classes[2] and set(kept.y) == {0, 1}


def test_what_goes_wrong(call: Command, mlp: Path, data: Path, tmp_path: Path) -> None:
    nothing = call("store", "info", "no.db", "--json").refusal()
    call("store", "add", "s.db", "--bundle", mlp, "-d", data)
    all_of_it = call("store", "forget", "s.db", "--json").refusal()
    when = call("store", "forget", "s.db", "--before", "yesterday", "--json").refusal()
    both = call("device", "-s", "http://x", "-d", data, "--store", "s.db", "--json").refusal()
    (tmp_path / "key").write_text("nothing")
    key = call("store", "info", "s.db", "--store-key", "key", "--json").refusal()

    assert "there is no store no.db; `edgefl store add --bundle` makes one" in nothing["message"]
    assert "say what to forget" in all_of_it["message"] and "write a date such as" in when["message"]
    assert "either --data or --store" in both["message"]
    assert key["message"] == "key holds no key: it has 7 bytes that are no digits"


def test_sealed(call: Command, mlp: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(range(32)))
    call("store", "add", "s.db", "--bundle", mlp, "-d", data, "--store-key", "key")
    (tmp_path / "digits").write_text(bytes(range(32)).hex() + "\n")

    info = call("store", "info", "s.db", "--store-key", "digits", "--json").json()
    refused = call("store", "info", "s.db", "--json").refusal()

    assert info["sealed"] and info["examples"] == 96 and "is encrypted" in refused["message"]


@needs_server
def test_a_federation_from_stores(
    two_rounds: Server,  # noqa: F811
    call: Command,
    mlp: Path,
    data: Path,
    tmp_path: Path,
) -> None:
    call("store", "add", "s.db", "--bundle", mlp, "-d", data)
    devices = [
        start(tmp_path, "device", "-s", two_rounds.url, "--store", "s.db", "--workdir", name, "-b", "numpy")
        for name in ("a", "b")
    ]

    ended = [device.communicate(timeout=60) for device in devices]

    assert [device.returncode for device in devices] == [0, 0], ended
    assert all(out.count("accepted") == 2 for out, _ in ended)
