# SPDX-License-Identifier: Apache-2.0
"""`edgefl selftest`: the vectors that every machine replays, on this one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.commands import Command

pytestmark = pytest.mark.device
VECTORS = Path(__file__).parents[1] / "conformance" / "vectors"


def test_this_machine_computes_what_every_machine_computes(call: Command) -> None:
    found = call("selftest", VECTORS, "--json").json()

    assert found["vectors"] == found["as_expected"] == len(found["results"]) > 20
    assert {row["kind"] for row in found["results"]} >= {"pack", "refused", "frame", "round"}
    assert "numpy" in found["engine"]


def test_a_vector_that_differs_is_named_and_ends_with_status_1(call: Command, tmp_path: Path) -> None:
    vectors = shutil.copytree(VECTORS, tmp_path / "vectors")
    shutil.copyfile(VECTORS / "pack-2.safetensors", vectors / "pack-1.safetensors")

    ran = call("selftest", vectors)
    described = call("selftest", vectors, "--json")

    assert ran.status == described.status == 1
    assert "other bytes are written" in ran.out
    total = len(json.loads(described.out)["results"])
    assert f"{total - 1} of {total} vectors as expected" in ran.out


@pytest.mark.parametrize("index", [None, "{", "[]", '{"packs": 1}'])
def test_another_folder_is_refused(call: Command, tmp_path: Path, index: str | None) -> None:
    if index is not None:
        (tmp_path / "index.json").write_text(index)

    refused = call("selftest", tmp_path, "--json").refusal()

    assert refused["error"] == "DataError" and "is no folder of vectors" in refused["message"]
