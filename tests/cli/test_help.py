# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from rich.console import Console

from edgefl import __version__
from edgefl.cli import app, output
from edgefl.cli.doctor import PARTS
from edgefl.runtime.backends import BACKENDS, BY_NAME
from edgefl.runtime.delegates import REGISTRY
from tests.cli.commands import Command

pytestmark = pytest.mark.device

COMMANDS = [[command.__name__] for _, command, _ in app.COMMANDS] + [
    ["delta", "inspect"],
    ["bench", "payload"],
    ["bench", "step"],
]


def test_version(edgefl: Command) -> None:
    ran = edgefl("--version")

    assert (ran.status, ran.out, ran.err) == (0, f"edgefl {__version__}\n", "")


def test_no_command_shows_them_all(edgefl: Command) -> None:
    ran = edgefl()

    shown = ran.out + ran.err
    assert all(command[0] in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(call: Command, command: list[str]) -> None:
    ran = call(*command, "--help", columns=120)

    assert ran.status == 0
    assert f"Example: edgefl {' '.join(command)}" in ran.out


@pytest.mark.parametrize("command", ["train", "device", "simulate"])
def test_help_names_every_engine(call: Command, command: str) -> None:
    shown = call(command, "--help", columns=200).out

    assert [name for name in ("auto", *BACKENDS, *BY_NAME) if name not in shown] == []


def test_help_names_every_target(call: Command) -> None:
    shown = call("convert", "--help", columns=200).out

    assert all(target in shown for target in ("onnx", "tflite", "coreml:iOS17", "ort-training"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_option_is_explained(command: list[str]) -> None:
    found = typer.main.get_command(app.app)
    for name in command:
        found = found.commands[name]  # type: ignore[attr-defined]

    assert [p.name for p in found.params if not getattr(p, "help", None)] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["inspect"],
        ["inspect", "model.edgefl", "--no-such-option"],
        ["train", "model.edgefl"],
        ["train", "model.edgefl", "-d", "x.npz", "--epochs", "0"],
        ["train", "model.edgefl", "-d", "x.npz", "--density", "2"],
        ["serve", "model.edgefl", "--port", "70000"],
        ["serve", "model.edgefl", "--certificate", "no-such.pem"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(call: Command, arguments: list[str]) -> None:
    ran = call(*arguments)

    assert ran.status == 2
    assert ran.out == "" and "Usage: " in ran.err


def test_weights_that_are_no_numbers_are_wrong_usage(call: Command, mlp: object) -> None:
    ran = call("aggregate", mlp, "a.eflu", "-o", "b.edgefl", "--weights", "1,many", columns=120)

    assert ran.status == 2
    assert "'many' is no number" in ran.err


def test_doctor_names_what_is_ready_and_what_to_install(call: Command) -> None:
    ran = call("doctor", columns=120)

    assert ran.status == 0
    assert f"edgefl {__version__}" in ran.out
    for part in PARTS:
        line = next(line for line in ran.out.splitlines() if line.startswith(part.role + " "))
        assert ("ready" in line) is (part.version() is not None)
        assert part.version() is not None or ran.out.count(f": {part.advice()}\n") == 1


def test_doctor_as_json(call: Command) -> None:
    found = call("doctor", "--json").json()

    assert found["machine"]["edgefl"] == __version__
    assert [p["module"] for p in found["parts"]] == [p.module for p in PARTS]
    assert all((p["installed"] is None) is (p["advice"] is not None) for p in found["parts"])


def test_doctor_lists_every_delegate_with_its_state(
    call: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libedgetpu.so.1").write_bytes(b"no library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    found = call("doctor", "--json").json()["delegates"]

    listed = {(row["engine"], row["delegate"]): row for row in found}
    assert set(listed) == {("onnx", "cpu"), ("tflite", "cpu"), *((k.engine, k.name) for k in REGISTRY)}
    assert listed["tflite", "xnnpack"]["state"] == "ready"
    assert listed["tflite", "edgetpu"]["state"] == "broken"
    assert "libedgetpu.so.1" in listed["tflite", "edgetpu"]["why"]
    assert all(row["why"] for row in found)


def test_doctor_tries_delegates_on_a_bundle(edgefl: Command, head: object) -> None:
    ran = edgefl("doctor", head, columns=120)

    assert ran.status == 0
    for graph in ("features", "step", "infer"):
        assert any(line.split()[:2] == ["tflite", graph] for line in ran.out.splitlines())


def test_names_from_files_are_neither_markup_nor_terminal_control(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_line("[/red] \x1b[31m[bold]x")
    output.print_rows("[/]", ["a[b]"], [["pip install 'rich[all]' \x1b]0;"]])

    shown = capsys.readouterr().out
    assert "[/red] \N{REPLACEMENT CHARACTER}[31m[bold]x\n" in shown
    assert "a[b]" in shown and "rich[all]" in shown
    assert "\x1b" not in shown


def test_long_text_wraps_and_numbers_stay_whole_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    note = "backend 'tflite' needs ai-edge-litert: pip install ai-edge-litert"
    made = output.table(
        "", ["engine", "median ms", "note"], [["tflite", "-", note], ["numpy", 1234.5678, ""]]
    )

    Console(width=40).print(made)

    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert "1235" in "".join(lines)
    assert all(word in " ".join(lines) for word in note.split())


def test_json_has_null_where_it_has_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"loss": float("nan"), "norm": float("inf"), "id": b"\x01\xff", "shape": (2, 3)})

    assert json.loads(capsys.readouterr().out) == {"loss": None, "norm": None, "id": "01ff", "shape": [2, 3]}
