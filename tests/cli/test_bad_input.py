# SPDX-License-Identifier: Apache-2.0
"""Mistakes end with status 1, one line on standard error and, where asked for, a JSON object."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl import Bundle
from tests.cli.commands import Command, save_examples

pytestmark = pytest.mark.device

NOWHERE = ("--delta", os.devnull)
"""Where a training keeps its result that is not to get that far."""


def check(command: Command, kind: str, words: str, *arguments: object) -> None:
    """The command fails as it should, with and without --json."""
    error = command(*arguments, "--json").refusal()
    ran = command(*arguments)

    assert error["error"] == kind
    assert all(word in error["message"] for word in words.split())
    assert ran.status == 1 and ran.out == ""
    assert ran.err == f"error ({kind}) {' '.join(error['message'].split())}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect"],
        ["verify"],
        ["train", "-d", "x.npz", *NOWHERE],
        ["evaluate", "-d", "x.npz"],
        ["bench", "step"],
    ],
)
def test_missing_bundle(call: Command, arguments: list[str]) -> None:
    check(call, "BundleError", "no-such.edgefl file", *arguments, "no-such.edgefl")


def test_missing_bundle_in_a_process_of_its_own(edgefl: Command) -> None:
    check(edgefl, "BundleError", "no-such.edgefl", "inspect", "no-such.edgefl")


@pytest.mark.parametrize(
    ("damage", "kind"),
    [(lambda b: b[: len(b) // 2], "BundleTruncated"), (lambda b: b.replace(b"\x08\x08", b"\x08\x09", 1), "")],
)
def test_broken_bundle(call: Command, mlp: Path, tmp_path: Path, damage: object, kind: str) -> None:
    path = tmp_path / "broken.edgefl"
    path.write_bytes(damage(mlp.read_bytes()))  # type: ignore[operator]

    error = call("verify", path, "--json").refusal()

    assert error["error"].startswith(kind or "Bundle")
    assert "broken.edgefl" in error["message"]


def test_a_bundle_that_is_none(call: Command, data: Path) -> None:
    check(call, "BundleEntry", f"{data} manifest.json", "inspect", data)


def test_a_folder_as_bundle(call: Command, tmp_path: Path) -> None:
    error = call("inspect", tmp_path, "--json").refusal()

    assert str(tmp_path) in error["message"]


def test_missing_data(call: Command, mlp: Path) -> None:
    check(call, "DataError", "no-such.npz file", "train", mlp, "-d", "no-such.npz", *NOWHERE)


@pytest.mark.parametrize(
    ("arrays", "kind", "words"),
    [
        ({"x": np.zeros((96, 7), np.float32)}, "DataShape", "'x' (96, 7) (examples, 6)"),
        ({"x": np.zeros((95, 6), np.float32)}, "DataShape", "95 96"),
        ({"x": np.full((96, 6), np.nan, np.float32)}, "NotFinite", "'x' nan (0, 0)"),
        ({"y": np.full(96, 3, np.int32)}, "LabelRange", "'y' 3 allowed 0 2"),
        ({"y": np.full(96, -1, np.int32)}, "LabelRange", "'y' -1"),
        ({"y": np.full(96, 0.5)}, "DataType", "'y' float64 0.5"),
        ({"x": np.array(["a"] * 96)}, "DataType", "'x.npy' expected numbers"),
    ],
    ids=["width", "length", "nan", "label", "negative", "fraction", "text"],
)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_data_that_does_not_fit(
    call: Command,
    mlp: Path,
    tmp_path: Path,
    command: str,
    arrays: dict[str, Any],
    kind: str,
    words: str,
) -> None:
    path = save_examples(tmp_path / "bad.npz", **arrays)

    options = NOWHERE if command == "train" else ()
    check(call, kind, words, command, mlp, "-d", path, "-b", "numpy", *options)


def test_data_without_labels(call: Command, mlp: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((8, 6), np.float32))

    check(call, "DataError", "'x' 'y'", "train", mlp, "-d", tmp_path / "x.npz", *NOWHERE)


def test_nothing_is_written_where_training_fails(call: Command, mlp: Path, tmp_path: Path) -> None:
    path = save_examples(tmp_path / "bad.npz", x=np.full((96, 6), np.nan, np.float32))

    ran = call("train", mlp, "-d", path, "-b", "numpy", "-o", "out.edgefl", "--delta", "out.eflu")

    assert ran.status == 1
    assert not (tmp_path / "out.edgefl").exists() and not (tmp_path / "out.eflu").exists()


def test_a_loss_that_explodes(call: Command, mlp: Path, data: Path) -> None:
    options = ("-b", "numpy", "--lr", "1e38", "--epochs", "3", *NOWHERE)
    check(call, "NotFinite", "step", "train", mlp, "-d", data, *options)


def test_training_for_nothing_is_refused_before_it_begins(call: Command, mlp: Path) -> None:
    check(call, "OptionError", "--output --delta nothing", "train", mlp, "-d", "not-even-looked-for.npz")


def test_unknown_backend(call: Command, mlp: Path, data: Path) -> None:
    check(call, "OptionError", "'gpu' onnx tflite numpy", "train", mlp, "-d", data, "-b", "gpu", *NOWHERE)


def test_missing_delegate(call: Command, mlp: Path, data: Path) -> None:
    check(
        call,
        "BackendUnavailable",
        "no-such.so",
        "train",
        mlp,
        "-d",
        data,
        *NOWHERE,
        "--delegate",
        "/no-such.so",
    )


def test_unknown_mode_lists_all(call: Command, mlp: Path, data: Path) -> None:
    ran = call("train", mlp, "-d", data, "-b", "numpy", "--delta", "u.eflu", "--mode", "zip", columns=200)

    assert ran.status == 2
    assert "'--mode': zip, allowed is one of topk, ternary, unbiased, dense8" in ran.err


@pytest.mark.parametrize("option", ["-o", "--delta"])
def test_a_folder_that_does_not_exist_is_said_before_training(call: Command, mlp: Path, option: str) -> None:
    arguments = ("train", mlp, "-d", "no-such.npz", option, "/no-such-folder/a")

    check(call, "OptionError", "/no-such-folder", *arguments)


def test_missing_payload(call: Command, mlp: Path) -> None:
    check(call, "FileNotFoundError", "no-such.eflu: No such file", "delta", "inspect", "no-such.eflu")
    check(call, "FileNotFoundError", "no-such.eflu", "aggregate", mlp, "no-such.eflu", "-o", "next.edgefl")


def test_not_a_payload(call: Command, mlp: Path, data: Path) -> None:
    check(call, "DeltaMagic", f"{data} EFLU", "delta", "inspect", data)
    check(call, "DeltaMagic", f"{data} EFLU", "aggregate", mlp, data, "-o", "next.edgefl")


@pytest.fixture
def update(call: Command, mlp: Path, data: Path, tmp_path: Path) -> Path:
    assert call("train", mlp, "-d", data, "-b", "numpy", "--delta", tmp_path / "u.eflu").status == 0
    return tmp_path / "u.eflu"


def test_a_damaged_payload(call: Command, update: Path) -> None:
    frame = bytearray(update.read_bytes())
    frame[20] ^= 1
    update.write_bytes(bytes(frame))

    check(call, "DeltaChecksum", "u.eflu", "delta", "inspect", update)


def test_an_update_of_another_model(call: Command, head: Path, update: Path, tmp_path: Path) -> None:
    check(call, "DeltaSchema", "u.eflu", "aggregate", head, update, "-o", "next.edgefl")
    assert not (tmp_path / "next.edgefl").exists()


def test_an_update_of_another_version(call: Command, mlp: Path, update: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(mlp)
    bundle.with_parameters(bundle.parameters(), 5).save(tmp_path / "later.edgefl")

    check(
        call,
        "DeltaBase",
        "u.eflu version 0",
        "aggregate",
        tmp_path / "later.edgefl",
        update,
        "-o",
        "next.edgefl",
    )


@pytest.mark.parametrize("weights", ["1,2", "-1", "0", "nan"])
def test_weights_that_do_not_fit(call: Command, mlp: Path, update: Path, weights: str) -> None:
    error = call("aggregate", mlp, update, "-o", "next.edgefl", f"--weights={weights}", "--json").refusal()

    assert error["error"] == "DataError" and "weights" in error["message"]


@pytest.mark.parametrize("partition", ["dirichlet", "dirichlet:0", "dirichlet:x", "random"])
def test_unknown_partition(call: Command, mlp: Path, data: Path, partition: str) -> None:
    check(
        call,
        "OptionError",
        f"{partition!r} iid dirichlet:ALPHA",
        "simulate",
        mlp,
        "-d",
        data,
        "--partition",
        partition,
    )


def test_more_devices_than_examples(call: Command, mlp: Path, data: Path) -> None:
    check(call, "DataError", "96 97", "simulate", mlp, "-d", data, "--devices", 97)
    check(
        call,
        "DataError",
        "cohort 4 3",
        "simulate",
        mlp,
        "-d",
        data,
        "--devices",
        3,
        "--cohort",
        4,
        "-b",
        "numpy",
    )


def test_a_server_address_that_is_none(call: Command, data: Path) -> None:
    check(call, "OptionError", "'somewhere' http://host:port", "device", "-s", "somewhere", "-d", data)


def test_a_missing_framework_is_named_with_what_brings_it(
    call: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "model.py").write_text("import torch\n\n\ndef make():\n    return torch.nn.Linear(6, 3)\n")

    check(call, "MissingDependency", "convert 'torch' pip install", "convert", tmp_path / "model.py:make")


def test_a_missing_server_is_named_with_what_brings_it(
    call: Command, mlp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "edgefl.server_stub.serve", raising=False)

    ran = call("serve", mlp)

    assert ran.status == 1
    assert "edgefl serve needs the package 'uvicorn': pip install 'uvicorn>=0.29'" in ran.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def other(): pass", "'make'"),
        ("def make(): return 3", "int"),
        ("def make(): raise ValueError('no\\nmodel')", "ValueError"),
        ("def make(:", "SyntaxError"),
    ],
)
def test_a_factory_that_makes_no_model(call: Command, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "model.py").write_text(text)

    check(call, "SourceError", words, "convert", tmp_path / "model.py:make")


def test_a_model_file_that_does_not_exist(call: Command) -> None:
    check(call, "SourceError", "'no-such.keras' .pt2 .onnx module.py:factory", "convert", "no-such.keras")


@pytest.mark.parametrize("options", [("6,six", "float32"), ("6", "float99"), ("-6", "float32")])
def test_an_input_shape_that_is_none(call: Command, tmp_path: Path, options: tuple[str, str]) -> None:
    (tmp_path / "model.py").write_text("def make(): return 3")
    shape = ("--input-shape", options[0], "--input-dtype", options[1])

    check(call, "DataShape", "--input-shape", "convert", tmp_path / "model.py:make", *shape)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--batch-norm", "batch", "--batch-size", 1), "--batch-norm batch with --batch-size 1: "),
        (("--loss", "huber:delta=-2"), "loss 'huber': delta has to be a number over 0"),
        (("--frozen-bits", 8, "--loss", "huber:delta=0"), "delta has to be a number over 0"),
    ],
    ids=str,
)
def test_a_conversion_names_what_was_typed(
    call: Command, tmp_path: Path, typed: tuple[object, ...], said: str
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"never read")

    assert said in call("convert", model, "-o", "x.edgefl", *typed, "--json").refusal()["message"]
