# SPDX-License-Identifier: Apache-2.0
"""`edgefl bench payload` and `edgefl delta inspect`: sizes to plan with, frames taken apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl import Bundle, decode_delta, encode_delta
from edgefl.delta import MODES, encode
from tests.cli.commands import Command

pytestmark = pytest.mark.device
Array = np.ndarray[Any, Any]


def a_delta(path: Path) -> dict[str, Array]:
    random = np.random.default_rng(5)
    parameters = Bundle.open(path).schema().parameters
    return {p.name: random.laplace(size=p.shape).astype(np.float32) for p in parameters}


@pytest.fixture
def frame(mlp: Path, tmp_path: Path) -> Path:
    path = tmp_path / "update.eflu"
    path.write_bytes(encode_delta(a_delta(mlp), Bundle.open(mlp), density=0.2, meta={"loss": 0.5}))
    return path


def test_payload_has_a_row_for_every_mode(call: Command, mlp: Path, data: Path) -> None:
    found = call("bench", "payload", mlp, "-d", data, "-b", "numpy", "--json").json()

    assert {row["mode"] for row in found["rows"]} == MODES.keys()
    assert found["parameters"] == 103 and found["dense_bytes"] == 412
    for row in found["rows"]:
        assert row["times_smaller"] == 412 / row["bytes"]
        assert row["bytes_up"] == row["bytes"] + found["assumptions"]["http_up"]
        assert row["month_up"] == 30 * row["bytes_up"]
        assert row["plan_share"] == pytest.approx(row["month_up"] / 1e9)


def test_payload_frames_are_as_long_as_the_codec_makes_them(call: Command, mlp: Path) -> None:
    found = call("bench", "payload", mlp, "-b", "numpy", "--json").json()

    sizes = {row["mode"]: row["bytes"] for row in found["rows"] if row["density"] == 1}
    bundle = Bundle.open(mlp)
    made = encode(
        np.ones(103, np.float32), schema_id=bundle.schema().id, base_version=0, mode="float32", coders=()
    )
    assert sizes["float32"] <= len(made.frame)
    assert sizes["dense4"] < sizes["dense8"] < sizes["float16"] < sizes["float32"]


def test_month_and_plan_are_the_users(call: Command, mlp: Path) -> None:
    options = ("--rounds", 8, "--plan", 0.5, "--cohort", 40)
    found = call("bench", "payload", mlp, "-b", "numpy", *options, "--json").json()

    assert found["assumptions"]["rounds"] == 8 and found["assumptions"]["plan"] == 500_000_000
    assert found["settings"].endswith("--goal 40")
    row = found["down"][0]
    assert row["month"] == 8 * row["bytes"] and row["plan_share"] == row["month"] / 500_000_000


def test_budget_fits_every_choosing_mode(call: Command, mlp: Path, data: Path) -> None:
    options = ("-d", data, "-b", "numpy", "--payload", "100B")
    found = call("bench", "payload", mlp, *options, "--json").json()

    assert [row["mode"] for row in found["fitted"]] == ["unbiased", "topk", "ternary", "subset"]
    assert all(row["bytes"] <= 100 for row in found["fitted"])
    assert "--payload 100 " in found["settings"]


def test_budget_nothing_fits(call: Command, mlp: Path) -> None:
    ran = call("bench", "payload", mlp, "-b", "numpy", "--payload", "20B", "--json")

    assert ran.refusal()["error"] == "DeltaOption"


def test_tables_fit_a_narrow_terminal(call: Command, mlp: Path) -> None:
    ran = call("bench", "payload", mlp, "-b", "numpy", "--payload", "200B", columns=80)

    assert ran.status == 0
    assert "unbiased 0.1 %" in ran.out and "dense8" in ran.out and "Settings    edgefl serve" in ran.out
    table = ran.out.split("Assumed")[0]
    assert all(len(line) <= 80 for line in table.splitlines())


def test_no_bundle_and_no_training(call: Command) -> None:
    assert "--train" in call("bench", "payload", "--json").refusal()["message"]


def test_inspect_with_the_bundle_tells_of_every_tensor(call: Command, mlp: Path, frame: Path) -> None:
    found = call("delta", "inspect", frame, "--bundle", mlp, "--json").json()

    sent = decode_delta(frame.read_bytes(), Bundle.open(mlp))
    assert [t["name"] for t in found["tensors"]] == list(sent)
    for tensor, value in zip(found["tensors"], sent.values(), strict=True):
        assert tensor["elements"] == value.size
        assert tensor["values"] == np.count_nonzero(value)
        assert tensor["norm"] == pytest.approx(np.linalg.norm(value))


def test_inspect_tells_where_the_bytes_are(call: Command, mlp: Path, frame: Path) -> None:
    ran = call("delta", "inspect", frame, "--bundle", mlp, columns=80)

    assert ran.status == 0
    assert "21 values" in ran.out and "loss 0.5" in ran.out
    assert all(name in ran.out for name in ("gaps", "signs", "bits/value", "checksum"))
    assert all(p.name in ran.out for p in Bundle.open(mlp).schema().parameters)


def test_inspect_refuses_another_models_update(call: Command, head: Path, frame: Path) -> None:
    assert call("delta", "inspect", frame, "--bundle", head, "--json").refusal()["error"] == "DeltaSchema"
