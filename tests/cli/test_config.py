# SPDX-License-Identifier: Apache-2.0
"""Options from a file, and how messages name what the user wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgefl.declared import options_of
from edgefl.options import SECTIONS, EngineOptions, FitOptions
from tests.cli.commands import Command

pytestmark = pytest.mark.device

QUICK = ("-b", "numpy", "--json")
TRAIN = (*QUICK, "--delta", os.devnull)


def config(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_a_file_says_what_options_say(call: Command, mlp: Path, data: Path, tmp_path: Path) -> None:
    file = config(tmp_path, '[fit]\nepochs = 3\nlr = 0.2\noptimizer = "adam"\nmu = 0.5\nclip_norm = 0.1\n')
    typed = ("--epochs", 3, "--lr", 0.2, "--optimizer", "adam", "--mu", 0.5, "--clip-norm", 0.1)

    by_file = call("train", mlp, "-d", data, *TRAIN, "--config", file).json()
    by_hand = call("train", mlp, "-d", data, *TRAIN, *typed).json()
    plain = call("train", mlp, "-d", data, *TRAIN).json()

    assert by_file["steps"] == by_hand["steps"] == 3 * plain["steps"]
    assert by_file["loss_last"] == by_hand["loss_last"] != plain["loss_last"]


def test_what_is_typed_wins(call: Command, mlp: Path, data: Path, tmp_path: Path) -> None:
    file = config(tmp_path, "[fit]\nepochs = 3\nsteps = 1\n")

    steps = [
        call("train", mlp, "-d", data, *TRAIN, "--config", file, *typed).json()["steps"]
        for typed in ((), ("--steps", 2), ("--steps", 0, "--epochs", 1))
    ]

    assert steps[:2] == [1, 2] and steps[2] > 2


def test_a_file_gives_the_command_s_own_options(call: Command, mlp: Path, data: Path, tmp_path: Path) -> None:
    file = config(
        tmp_path, f'[train]\ndata = "{data}"\noutput = "next.edgefl"\n[engine]\nbackend = "numpy"\n'
    )

    found = call("train", mlp, "--config", file, "--json").json()

    assert (found["backend"], found["bundle"]) == ("numpy", "next.edgefl")


def test_one_file_serves_all_commands(call: Command, mlp: Path, data: Path, tmp_path: Path) -> None:
    text = "[server]\nrounds = 2\ngoal = 3\ndeadline = 60\n[serve]\nport = 0\n[coding]\nwarm_up = 3\n"
    file = config(tmp_path, text + "[fit]\nsteps = 1\n")

    assert call("train", mlp, "-d", data, *TRAIN, "--config", file).json()["steps"] == 1
    rows = call("simulate", mlp, "-d", data, "--devices", 2, *QUICK, "--config", file).json()["rounds"]
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[fit]\nlearning_rate = 0.1\n", "run.toml: [fit] 'learning_rate' allowed epochs, steps, lr"),
        ("[fit]\nepoch = 1\n", "run.toml: [fit] 'epoch' epochs may be meant"),
        ("[fti]\nlr = 0.1\n", "run.toml [fti] fit may be meant allowed engine, fit, coding, server"),
        ("[server]\ngoals = 1\n", "run.toml: [server] 'goals' goal may be meant"),
        ("[serve]\nprot = 1\n", "run.toml: [serve] 'prot' port may be meant"),
        ("[fit]\nlr = -0.1\n", "fit.lr = -0.1 in run.toml: over 0"),
        ("[fit]\nepochs = 2.5\n", "fit.epochs = 2.5 in run.toml: an integer from 1"),
        ('[fit]\nepochs = "2"\n', "fit.epochs = '2' in run.toml: an integer from 1"),
        ('[coding]\npayload = "many"\n', "coding.payload = 'many' in run.toml: no size 20kB"),
        ("[coding]\nper_tensor = 1\n", "coding.per_tensor = 1 in run.toml: true or false"),
        ("[train]\noutput = 5\n", "train.output = 5 in run.toml: text"),
        ("[serve]\nport = 70000\n", "serve.port = 70000 in run.toml: 65535"),
        ("[fit]\nmomentum = 0.9\noptimizer = 'adam'\n", "fit.momentum = 0.9 in run.toml fit.optimizer"),
        ("[coding]\npayload = 9000\nmode = 'dense8'\n", "coding.payload = 9000 coding.mode = 'dense8'"),
        ("lr = 0.1\n", "run.toml: lr outside any section fit"),
        ("[fit\n", "run.toml is no TOML file"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_meant(
    call: Command, mlp: Path, data: Path, tmp_path: Path, text: str, said: str
) -> None:
    config(tmp_path, text)

    error = call("train", mlp, "-d", data, *TRAIN, "--config", tmp_path / "run.toml").refusal()

    assert error["error"] == "OptionError"
    words = error["message"].replace(f"{tmp_path}/", "")
    assert [part for part in said.split(" ") if part not in words] == []


def test_a_file_that_is_not_there(call: Command, mlp: Path, data: Path) -> None:
    error = call("train", mlp, "-d", data, *TRAIN, "--config", "none.toml").refusal()

    assert "none.toml" in error["message"]


def test_a_pair_is_named_by_where_each_stands(call: Command, mlp: Path, data: Path, tmp_path: Path) -> None:
    file = config(tmp_path, "[fit]\nmomentum = 0.9\n")
    typed = ("--optimizer", "adam", "--config", file)

    message = call("train", mlp, "-d", data, *TRAIN, *typed).refusal()["message"]

    assert message.startswith(f"fit.momentum = 0.9 in {file} with --optimizer adam: ")


def test_a_payload_that_no_update_fits(call: Command, mlp: Path, data: Path) -> None:
    typed = ("--payload", 30, "--delta", "u.eflu")

    message = call("train", mlp, "-d", data, *TRAIN, *typed).refusal()["message"]

    assert message.startswith("--payload 30: no update of this model is that short")


def test_sections_do_not_share_names() -> None:
    names = [name for kind in SECTIONS.values() for name in options_of(kind)]

    assert len(names) == len(set(names))


def test_an_option_is_as_its_field() -> None:
    options = options_of(FitOptions)

    assert list(options) == list(FitOptions.rules())
    assert (options["clip_norm"].flags, options["clip_norm"].key) == (("--clip-norm",), "clip_norm")
    assert options_of(EngineOptions)["backend"].flags == ("--backend", "-b")
