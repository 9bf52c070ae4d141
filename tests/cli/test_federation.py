# SPDX-License-Identifier: Apache-2.0
"""Server and devices as processes of their own, and the same federation simulated in one."""

from __future__ import annotations

import csv
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
from edgefl.data import load_examples
from edgefl.simulation import divide
from edgefl.tensorfile import read_tensors
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
    ended = [device.communicate(timeout=600) for device in (first, second)]
    rounds = server.get("/v1/rounds")
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(timeout=600)

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
def test_a_device_tells_how_good_a_version_is_and_everyone_can_read_it(
    mlp: Path, call: Command, data: Path, tmp_path: Path
) -> None:
    port = tmp_path / "port"
    options = ("--rounds", 1, "--goal", 1, "--evaluate-every", 1, "--evaluators", 1)
    server = start(tmp_path, "serve", mlp, "--port", 0, "--port-file", port, *options)
    try:
        while not port.exists():
            assert server.poll() is None, server.communicate()
            time.sleep(0.05)
        url = f"http://127.0.0.1:{int(port.read_text())}"
        device = start(
            tmp_path, "device", "-s", url, "-d", data, "--workdir", "a", "-b", "numpy", "--holdout", 0.3
        )
        _, err = device.communicate(timeout=600)
        told = call("status", url, "--json").json()
        rows = call("history", url, "--json").json()["rounds"]
        assert call("history", url, "--csv", "rounds.csv").status == 0
        shown = call("status", url).out
        history = call("device", "--history", "--workdir", "a", "--json").json()["entries"]
        decided = [
            call("admin", command, url, *given, "--json").json()
            for command, *given in (("promote", 0), ("pin", 1), ("unpin", 1), ("hold",), ("resume",))
        ]
        back = call("admin", "rollback", url, 0)
        listed = call("versions", url, "--json").json()
        listing = call("versions", url).out
        pulled = call("pull", url, "-o", "promoted.edgefl", "--json").json()
    finally:
        server.kill()
        server.communicate()

    assert device.returncode == 0, err
    assert [one["version"] for one in told["evaluations"]] == [0, 1]
    assert told["status"]["evaluation"] == told["evaluations"][-1]
    with (tmp_path / "rounds.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [each["round"] for each in rows] == [int(each["round"]) for each in table]
    for row, info in zip(rows, told["rounds"], strict=True):
        assert (row["updates"], row["loss"], row["version"]) == (
            info["updates"],
            info["loss"],
            info["version"],
        )
        (found,) = [each for each in told["evaluations"] if each["version"] == row["version"]]
        assert row["evaluation_accuracy"] == found["accuracy"] and row["seconds"] >= 0
    assert "On examples that devices hold out" in shown
    mine = [entry for entry in history if entry["event"] == "evaluated"]
    for entry, info in zip(mine, told["evaluations"], strict=True):
        names = ("version", "loss", "accuracy", "examples")
        assert [entry[name] for name in names] == [info[name] for name in names]
    assert decided == [{"promoted": 0}, {"pinned": 1}, {"unpinned": 1}, {"held": True}, {"held": False}]
    assert back.out == "version 2 has the parameters of version 0 again\n"
    assert (listed["promoted"], listed["held"], pulled["version"]) == (0, "", 0)
    assert [(v["version"], v["parent"], v["restores"]) for v in listed["versions"]] == [
        (0, None, None), (1, 0, None), (2, 1, 0)
    ]  # fmt: skip
    assert listed["versions"][1]["evaluation"] == told["evaluations"][1]
    assert "promoted" in listing and "as version 0" in listing
    (trained,) = told["participants"]["devices"]
    assert trained["examples"] + mine[0]["examples"] == 96


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
    out, err = device.communicate(timeout=600)

    assert device.returncode == 1
    assert json.loads(out.splitlines()[-1])["error"] == "NotFinite"
    assert "error (NotFinite) 'x' holds nan" in err and "Traceback" not in err
    current = server.get("/v1/status")["round"]
    assert current["updates"] == 0 and current["declined"] == current["assigned"]


@needs_server
def test_a_port_that_is_taken(server: Server, mlp: Path, tmp_path: Path) -> None:
    second = start(tmp_path, "serve", mlp, "--db", "second.db", "--port", server.url.rpartition(":")[2])
    _, err = second.communicate(timeout=600)

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

    assert all(row["frame_bytes"] <= 3 * 200 for row in rows)


@pytest.mark.device
def test_downlink_of_whole_models(call: Command, mlp: Path, data: Path) -> None:
    common = ("simulate", mlp, "-d", data, "--devices", 3, "--rounds", 2, "-b", "numpy")

    whole = call(*common, "--downlink", 0, "--json").json()["rounds"]
    steps = call(*common, "--json").json()["rounds"]

    # The first version comes with the bundle; after it devices fetch steps, or every version whole.
    assert whole[1]["bytes_down"] > 3 * 4 * 103 and whole[1]["bytes_down"] > steps[1]["bytes_down"]
    assert (
        steps[0]["bytes_down"] > 3 * len(Bundle.open(mlp).slice("onnx").to_bytes()) > whole[1]["bytes_down"]
    )


@pytest.mark.device
def test_simulate_tells_its_settings_and_every_device(call: Command, mlp: Path, data: Path) -> None:
    found = call("simulate", mlp, "-d", data, "--devices", 3, "--rounds", 2, "-b", "numpy", "--mu", 0.5,
                 "--density", 0.1, "--seed", 4, "--json").json()  # fmt: skip

    training = found["settings"]["training"]
    assert (training["fit"]["mu"], training["fit"]["seed"], training["coding"]["density"]) == (0.5, 4, 0.1)
    assert (found["settings"]["rounds"], found["settings"]["devices"]) == (2, 3)
    assert found["versions"]["engine"].startswith("numpy ") and found["versions"]["edgefl"]
    assert [(d["device"], d["examples"], d["rounds"]) for d in found["devices"]] == [
        (f"device-{i:04d}", 32, 2) for i in range(3)
    ]
    up = sum(row["bytes_up"] for row in found["rounds"])
    assert found["bytes_up"] == up > sum(row["frame_bytes"] for row in found["rounds"])
    assert found["times_smaller"] == round(found["dense_bytes"] * 6 / up, 1)


@pytest.mark.device
def test_pull_towards_the_global_model_changes_what_is_learned(call: Command, mlp: Path, data: Path) -> None:
    common = (
        "simulate",
        mlp,
        "-d",
        data,
        "--devices",
        3,
        "--rounds",
        2,
        "-b",
        "numpy",
        "--epochs",
        3,
        "--json",
    )

    free, pulled = (call(*common, "--mu", mu).json()["rounds"][1]["loss"] for mu in (0, 2))

    assert pulled > free


@pytest.mark.device
def test_rounds_as_a_table_for_other_programs(call: Command, mlp: Path, data: Path, tmp_path: Path) -> None:
    found = call("simulate", mlp, "-d", data, "--test", data, "--devices", 3, "--rounds", 2, "-b", "numpy",
                 "--csv", "rounds.csv", "--json").json()  # fmt: skip

    with (tmp_path / "rounds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # What was not measured is an empty cell.
    made = [{name: float(value) if value else None for name, value in row.items()} for row in rows]
    assert made == found["rounds"]


@pytest.mark.device
def test_every_device_in_a_table(call: Command, mlp: Path, data: Path) -> None:
    ran = call("simulate", mlp, "-d", data, "--devices", 3, "--rounds", 1, "-b", "numpy", "--per-device")

    assert ran.status == 0
    assert all(f"device-{i:04d}" in ran.out for i in range(3))
    assert "HTTP included" in ran.out


@pytest.mark.device
def test_models_of_their_own_in_a_table(call: Command, mlp: Path, data: Path) -> None:
    common = ("simulate", mlp, "-d", data, "--devices", 3, "--rounds", 1, "-b", "numpy", "--personalize", 2)

    ran, found = call(*common), call(*common, "--json").json()

    assert ran.status == 0 and "Models of their own" in ran.out
    for row in found["devices"]:
        own = row["personal"]
        assert [one["share"] for one in own["tried"]] == [0, 0.25, 0.5, 0.75, 1]
        assert own["kind"] in ran.out and own["share"] in [one["share"] for one in own["tried"]]


def test_simulation_as_a_picture(call: Command, mlp: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ran = call("simulate", mlp, "-d", data, "--test", data, "--devices", 3, "--rounds", 2, "-b", "numpy",
               "--plot", "p.png")  # fmt: skip

    assert ran.status == 0 and "p.png" in ran.out
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.device
def test_a_picture_without_matplotlib_is_refused_before_the_work(
    call: Command, mlp: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)

    ran = call("simulate", mlp, "-d", data, "--rounds", 2, "--plot", "p.png")

    assert ran.status == 1 and "matplotlib" in ran.err and "Traceback" not in ran.err


@needs_server
def test_processes_and_simulation_end_with_the_same_bits(
    call: Command, mlp: Path, data: Path, tmp_path: Path
) -> None:
    """`serve` and `device` as users run them, against `simulate` over the same division."""
    parts = divide(load_examples(data), 2, "dirichlet:1", 3)
    options = ("--rounds", 2, "--density", 0.1, "--momentum", 0.5, "--mode", "unbiased", "--seed", 3)
    port = tmp_path / "port"
    process = start(
        tmp_path, "serve", mlp, *options, "--goal", 2, "--surplus", 0, "--port", 0, "--port-file", port
    )
    try:
        while not port.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        server = Server(process, f"http://127.0.0.1:{int(port.read_text())}")
        devices = []
        for name, part in parts.items():
            np.savez(tmp_path / f"{name}.npz", x=part.x, y=part.y)
            joined = (
                "device",
                "-s",
                server.url,
                "-d",
                f"{name}.npz",
                "--workdir",
                name,
                "--id",
                name,
                "-b",
                "onnx",
            )
            devices.append(start(tmp_path, *joined))
        assert [device.communicate(timeout=600)[1] for device in devices] == ["", ""]
        with urllib.request.urlopen(server.url + "/v1/parameters/2", timeout=10) as answer:
            real = read_tensors(answer.read())
        rounds = server.get("/v1/rounds")["rounds"]
    finally:
        process.kill()
        process.communicate()

    division = ("--devices", 2, "--partition", "dirichlet:1", "-o", "final.edgefl")
    found = call("simulate", mlp, "-d", data, *division, *options, "-b", "onnx", "--json").json()

    simulated = Bundle.open(tmp_path / "final.edgefl").parameters()
    assert {n: v.tobytes() for n, v in real.items()} == {n: simulated[n].tobytes() for n in real}
    assert [r["frame_bytes"] for r in rounds] == [r["frame_bytes"] for r in found["rounds"]]


@pytest.mark.device
def test_a_size_that_is_none(call: Command, mlp: Path, data: Path) -> None:
    ran = call("simulate", mlp, "-d", data, "--payload", "20 parsecs")

    assert ran.status == 2 and "20 parsecs" in ran.err and "20kB" in ran.err
