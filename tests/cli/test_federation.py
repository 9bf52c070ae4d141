# SPDX-License-Identifier: Apache-2.0
"""Server and devices as processes of their own, and the same federation simulated in one."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl import Bundle
from tests.cli.commands import Command, save_examples

needs_server = pytest.mark.skipif(
    importlib.util.find_spec("uvicorn") is None, reason="the server's packages are not installed"
)


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "edgefl", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    )


@dataclass(frozen=True)
class Server:
    """A server that listens."""

    process: subprocess.Popen[str]
    url: str

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.loads(answer.read())


@pytest.fixture
def server(mlp: Path, tmp_path: Path) -> Iterator[Server]:
    """Two rounds of two devices."""
    port = tmp_path / "port"
    options = ("--port", 0, "--port-file", port, "--rounds", 2, "--goal", 2, "--density", 0.1)
    process = start(tmp_path, "serve", mlp, *options)
    while not port.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    yield Server(process, f"http://127.0.0.1:{int(port.read_text())}")
    if process.poll() is None:
        process.kill()
    process.communicate()


@needs_server
def test_two_devices_run_two_rounds_and_everyone_ends_well(
    server: Server, data: Path, tmp_path: Path
) -> None:
    common = ("device", "-s", server.url, "-d", data)
    first = start(tmp_path, *common, "--workdir", "a", "--id", "a", "-b", "onnx")
    second = start(tmp_path, *common, "--workdir", "b", "--id", "b", "-b", "tflite", "--json")
    ended = [device.communicate(timeout=60) for device in (first, second)]
    rounds = server.get("/v1/rounds")
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(timeout=30)

    assert [first.returncode, second.returncode, server.process.returncode] == [0, 0, 0]
    place, *lines = ended[0][0].splitlines()
    assert place.startswith("step on ")
    assert [line.split()[:3] for line in lines] == [["round", "1", "loss"], ["round", "2", "loss"]]
    assert all(" sent " in line and line.endswith("s  accepted") for line in lines)
    reports = [json.loads(line) for line in ended[1][0].splitlines()]
    assert [(r["round"], r["accepted"], r["error"]) for r in reports] == [(1, True, ""), (2, True, "")]
    assert all(r["bytes_up"] == r["frame_bytes"] > 0 for r in reports)
    assert [row["state"] for row in rounds["rounds"]] == ["closed", "closed"]


@needs_server
def test_pull_evaluate_and_what_goes_wrong(server: Server, call: Command, data: Path, tmp_path: Path) -> None:
    pulled = call("pull", server.url, "-o", "first.edgefl", "--json").json()
    scored = call("evaluate", "first.edgefl", "-d", data, "-b", "numpy", "--json").json()
    said = call("pull", server.url, "--version", 0, "-o", "again.edgefl")
    missing = call("pull", server.url, "--version", 3, "-o", "no.edgefl", "--json").refusal()
    nowhere = call("pull", server.url, "-o", tmp_path / "no" / "final.edgefl", "--json").refusal()

    assert (pulled["model"], pulled["version"], pulled["as_they_were"]) == ("mlp", 0, [])
    assert scored["examples"] == 96
    assert said.out.startswith("again.edgefl: mlp, version 0, ")
    assert missing["error"] == "Refused" and "there are 0 to 0" in missing["message"]
    assert nowhere["error"] == "OptionError" and not (tmp_path / "no.edgefl").exists()


@needs_server
def test_a_device_with_nan_in_its_data_says_so_and_sends_nothing(server: Server, tmp_path: Path) -> None:
    bad = save_examples(tmp_path / "bad.npz", x=np.full((96, 6), np.nan, np.float32))

    device = start(tmp_path, "device", "-s", server.url, "-d", bad, "--id", "bad", "--json")
    out, err = device.communicate(timeout=60)

    assert device.returncode == 1
    assert json.loads(out.splitlines()[-1])["error"] == "NotFinite"
    assert "error (NotFinite) 'x' holds nan" in err and "Traceback" not in err
    current = server.get("/v1/status")["round"]
    assert current["updates"] == 0 and current["declined"] == current["assigned"]


@needs_server
def test_a_port_that_is_taken(server: Server, mlp: Path, tmp_path: Path) -> None:
    second = start(tmp_path, "serve", mlp, "--db", "second.db", "--port", server.url.rpartition(":")[2])
    _, err = second.communicate(timeout=60)

    assert second.returncode == 1
    assert "in use" in err.splitlines()[-1] and "Traceback" not in err


@needs_server
@pytest.mark.parametrize(
    "options",
    [
        ["--minimum", "9", "--goal", "8"],
        ["--payload", "20kB", "--warm-up", "3"],
        ["--payload", "20kB", "--mode", "dense4"],
        ["--payload", "30"],
        ["--correction", "0.5", "--mode", "unbiased"],
        ["--momentum", "0.9", "--optimizer", "adam"],
        ["--key", __file__],
    ],
    ids=" ".join,
)
def test_a_server_with_impossible_settings(call: Command, mlp: Path, options: list[str]) -> None:
    ran = call("serve", mlp, *options)

    assert ran.status == 1 and ran.out == ""
    assert ran.err.startswith("error (") and ran.err.count("\n") == 1
    assert all(word.removesuffix("kB") in ran.err for word in options)


@needs_server
@pytest.mark.parametrize(
    "options",
    [["--mode", "zip"], ["--lr", "0"], ["--max-norm", "-1"], ["--downlink", "1"], ["--payload", "many"]],
    ids=" ".join,
)
def test_a_server_with_settings_out_of_range(call: Command, mlp: Path, options: list[str]) -> None:
    ran = call("serve", mlp, *options, columns=200)

    assert ran.status == 2 and ran.out == ""
    assert f"Invalid value for '{options[0]}'" in ran.err


@pytest.mark.device
@pytest.mark.parametrize(
    ("options", "devices"),
    [([], 6), (["--partition", "dirichlet:0.5"], None), (["--cohort", "2"], 2)],
    ids=["iid", "dirichlet", "cohort"],
)
def test_simulate(
    call: Command, mlp: Path, data: Path, tmp_path: Path, options: list[str], devices: int | None
) -> None:
    common = ("simulate", mlp, "-d", data, "--devices", 6, "--rounds", 3, "-b", "numpy", *options)

    found = call(*common, "--test", data, "--density", 0.1, "-o", "final.edgefl", "--json").json()

    assert [row["round"] for row in found["rounds"]] == [1, 2, 3]
    assert found["dense_bytes"] == 4 * 103
    assert all(row["devices"] == (devices or row["devices"]) for row in found["rounds"])
    assert found["rounds"][-1]["loss"] < found["rounds"][0]["loss"]
    assert Bundle.open(tmp_path / "final.edgefl").manifest.model_version == 3


@pytest.mark.device
def test_simulate_as_a_table(call: Command, mlp: Path, data: Path) -> None:
    ran = call("simulate", mlp, "-d", data, "--devices", 3, "--rounds", 2, "-b", "numpy")

    assert ran.status == 0 and ran.err == ""
    rows = [line.split() for line in ran.out.splitlines() if line[:1].isdigit() or line.startswith(" ")]
    assert [row[:2] for row in rows if len(row) > 3] == [["1", "3"], ["2", "3"]]


@pytest.mark.device
def test_the_same_seed_simulates_the_same(call: Command, mlp: Path, data: Path, tmp_path: Path) -> None:
    common = ("simulate", mlp, "-d", data, "--devices", 4, "--rounds", 2, "-b", "numpy", "--mode", "unbiased")
    for name in ("a", "b"):
        assert call(*common, "-o", f"{name}.edgefl").status == 0

    assert (tmp_path / "a.edgefl").read_bytes() == (tmp_path / "b.edgefl").read_bytes()


@pytest.mark.device
@pytest.mark.parametrize("mode", ["topk", "unbiased", "ternary", "subset"])
def test_simulated_updates_fit_their_payload(call: Command, mlp: Path, data: Path, mode: str) -> None:
    common = ("simulate", mlp, "-d", data, "--devices", 3, "--rounds", 2, "-b", "numpy", "--mode", mode)

    rows = call(*common, "--payload", "0.2kB", "--json").json()["rounds"]

    assert all(row["bytes_up"] <= 3 * 200 for row in rows)
    # The first version comes with the bundle; after it devices fetch steps.
    assert rows[0]["bytes_down"] == 0 < rows[1]["bytes_down"]


@pytest.mark.device
def test_downlink_of_whole_models(call: Command, mlp: Path, data: Path) -> None:
    common = ("simulate", mlp, "-d", data, "--devices", 3, "--rounds", 2, "-b", "numpy")

    rows = call(*common, "--downlink", 0, "--json").json()["rounds"]

    assert rows[1]["bytes_down"] > 3 * 4 * 103


@pytest.mark.device
def test_a_size_that_is_none(call: Command, mlp: Path, data: Path) -> None:
    ran = call("simulate", mlp, "-d", data, "--payload", "20 parsecs")

    assert ran.status == 2 and "20 parsecs" in ran.err and "20kB" in ran.err
