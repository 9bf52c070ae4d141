# SPDX-License-Identifier: Apache-2.0
"""Merged and sliced bundles say what they cannot do, in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefl import Bundle
from edgefl.bundle import ArtifactData
from tests.cli.commands import Command

NOT_MERGED = "is merged, its adapters are part of the weights: it infers and is exported, but does not"
NOT_SLICED = "is a slice for tflite without ONNX graphs: it trains and infers on a device, but"


@pytest.fixture(scope="module")
def merged(mlp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as `edgefl merge` leaves it: it infers only, and its provenance says why."""
    whole = Bundle.open(mlp)
    manifest = whole.manifest
    path = tmp_path_factory.mktemp("merged") / "merged.edgefl"
    Bundle.create(
        name="watch",
        parameters=manifest.parameters,
        values=whole.parameters(),
        inputs=manifest.inputs,
        step_inputs=manifest.inputs,
        label=manifest.label,
        output=manifest.output,
        loss=manifest.loss,
        batch_size=manifest.batch_size,
        artifacts=[ArtifactData("onnx", "infer", whole.artifact("onnx", "infer"))],
        golden=whole.golden(),
        provenance={"merged": "0.weight"},
    ).save(path)
    return path


@pytest.fixture(scope="module")
def sliced(mlp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sliced") / "sliced.edgefl"
    Bundle.open(mlp).slice("tflite").save(path)
    return path


@pytest.mark.parametrize("command", ["train", "evaluate", "simulate"])
def test_what_a_merged_bundle_cannot_do_with_data(
    call: Command, merged: Path, data: Path, command: str
) -> None:
    options = {"simulate": ("--devices", 2), "train": ("-o", "never.edgefl")}.get(command, ())

    refusal = call(command, merged, "-d", data, *options, "--json").refusal()

    assert f"bundle 'watch' {NOT_MERGED}" in refusal["message"]
    assert "the bundle it was merged from does" in refusal["message"]


@pytest.mark.parametrize("command", [("serve",), ("verify",), ("bench", "step")], ids=" ".join)
def test_what_neither_can_do(call: Command, merged: Path, sliced: Path, command: tuple[str, ...]) -> None:
    for path, why in ((merged, NOT_MERGED), (sliced, NOT_SLICED)):
        ran = call(*command, path)

        assert ran.status == 1 and ran.out == ""
        assert ran.err.startswith("error (") and ran.err.count("\n") == 1
        assert why in ran.err


def test_a_slice_is_not_exported(call: Command, sliced: Path, data: Path) -> None:
    refusal = call("export", sliced, "--calibration", data, "--json").refusal()

    assert NOT_SLICED in refusal["message"]
