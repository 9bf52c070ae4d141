# SPDX-License-Identifier: Apache-2.0
"""A key, a signature, a device that insists on it: by the commands alone."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefl import Bundle
from tests.cli.commands import Command
from tests.cli.test_federation import Server, needs_server
from tests.cli.test_identity import serving  # noqa: F401, a fixture

pytestmark = needs_server


@pytest.fixture
def key(call: Command, tmp_path: Path) -> str:
    """The line of a publisher's public key, whose files are acme.key and acme.pub."""
    return call("keys", "new", "acme").out.strip()


def test_keys_are_two_files_of_which_one_is_private(call: Command, key: str, tmp_path: Path) -> None:
    again = call("keys", "new", "acme", "--json").refusal()
    nowhere = call("keys", "new", "no/such/folder", "--json").refusal()

    assert (tmp_path / "acme.pub").read_text() == key + "\n" and len(key) == 51
    assert stat.S_IMODE((tmp_path / "acme.key").stat().st_mode) == 0o600
    assert "acme.key is there already" in again["message"] and "no folder" in nowhere["message"]


def test_a_bundle_is_signed_in_place_or_elsewhere(call: Command, key: str, mlp: Path, tmp_path: Path) -> None:
    shutil.copy(mlp, tmp_path / "m.edgefl")

    made = call("sign", mlp, "--key", "acme.key", "-o", "signed.edgefl", "--json").json()
    call("sign", "m.edgefl", "--key", "acme.key")
    shown = call("inspect", "m.edgefl", "--json").json()["signature"]
    told = call("inspect", "m.edgefl", columns=200).out
    bare = call("inspect", mlp, "--json").json()["signature"]
    wrong = call("sign", mlp, "--key", "acme.pub", "--json").refusal()

    assert (tmp_path / "m.edgefl").read_bytes() == (tmp_path / "signed.edgefl").read_bytes()
    assert made["digests"].keys() == {"whole", "onnx", "tflite"}
    assert shown == {"key_id": made["signed_by"], "key": key, "verdict": "genuine"} and bare is None
    assert f"signed by {made['signed_by']}, {key}: genuine" in told
    assert "--key acme.pub cannot be used" in wrong["message"]


def test_inspect_says_of_a_signature_that_is_not_of_the_bundle(
    call: Command, key: str, mlp: Path, tmp_path: Path
) -> None:
    from dataclasses import replace

    call("sign", mlp, "--key", "acme.key", "-o", "signed.edgefl")
    other = Bundle.open(mlp).with_provenance(by="another")
    replace(other, signature=Bundle.open(tmp_path / "signed.edgefl").signature).save(
        tmp_path / "other.edgefl"
    )

    shown = call("inspect", "other.edgefl", "--json").json()["signature"]

    assert shown["verdict"] == "not a signature of this bundle"


def test_a_device_insists_on_the_publisher(
    serving: Callable[..., Server],  # noqa: F811
    call: Command,
    key: str,
    data: Path,
    mlp: Path,
) -> None:
    server = serving()  # of the bundle as nobody has signed it
    common = ("device", "-s", server.url, "-d", data, "-b", "numpy", "--json", "--max-rounds", 1)

    refused = call(*common, "--workdir", "a", "--publisher-key", key).refusal()
    pull = call("pull", server.url, "-o", "final.edgefl", "--publisher-key", key, "--json").refusal()
    taken = call(*common, "--workdir", "b")
    no_key = call(*common, "--workdir", "c", "--publisher-key", "acme.pub")

    assert refused["error"] == pull["error"] == "BundleSignature"
    assert "/v1/bundle?target=onnx" in refused["message"] and "not signed" in refused["message"]
    assert json.loads(taken.out)["accepted"]
    assert no_key.status == 2 and "ed25519" in no_key.err


def test_a_device_accepts_no_longer_bundle_than_it_is_told(
    serving: Callable[..., Server],  # noqa: F811
    call: Command,
    data: Path,
) -> None:
    server = serving()
    common = ("device", "-s", server.url, "-d", data, "-b", "numpy", "--json", "--max-rounds", 1)

    refused = call(*common, "--workdir", "a", "--bundle-bytes", "2kB").refusal()
    taken = call(*common, "--workdir", "b", "--bundle-bytes", "1000MB")

    assert "is allowed 2000" in refused["message"]
    assert json.loads(taken.out)["accepted"]
