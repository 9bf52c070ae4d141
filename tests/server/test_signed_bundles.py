# SPDX-License-Identifier: Apache-2.0
"""Devices that trust a publisher, and servers that give them its bundle, another's, or an altered one."""

from __future__ import annotations

import numpy as np
import pytest

import edgefl
from edgefl.bundle import Bundle
from edgefl.bundle.archive import pack, unpack
from edgefl.bundle.publisher import key_id, key_line
from edgefl.errors import BundleSignature
from edgefl.identity.keys import Ed25519Signer
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.follower import Follower
from edgefl.runtime.transport import Response
from tests.cli.commands import save_examples

ACME, OTHER = Ed25519Signer(bytes(range(32))), Ed25519Signer(bytes(32))
TRUST = (key_line(ACME.key),)


@pytest.fixture
def examples(tmp_path):
    return edgefl_examples(save_examples(tmp_path / "mine.npz"))


def edgefl_examples(path):
    from edgefl.data import load_examples

    return load_examples(path)


class Altering:
    """A transport that changes bundles on their way."""

    def __init__(self, transport, change):
        self._transport, self._change = transport, change

    def request(self, method, path, body=b"", headers=None, *, limit):
        answer = self._transport.request(method, path, body, headers, limit=limit)
        if not path.startswith("/v1/bundle") or answer.status != 200:
            return answer
        return Response(200, answer.headers, self._change(answer.body))


def altered(data):
    files = {name: bytes(content) for name, content in unpack(data).items()}
    files["artifacts/onnx/step.onnx"] += b"\x00"
    return pack(files)


def test_a_signed_bundle_reaches_devices_as_it_was_signed(serve, bundle, examples, tmp_path):
    path = tmp_path / "signed.edgefl"
    bundle.signed(ACME).save(path)
    server = serve(bundle=str(path), goal=1, rounds=2)

    trusting = DeviceClient(server.transport(), examples, tmp_path / "a", backend="numpy", publishers=TRUST)
    first = next(trusting.run(max_rounds=1))
    anybody = DeviceClient(server.transport(), examples, tmp_path / "b", backend="numpy")
    second = next(anybody.run(max_rounds=1))
    server.wait_for_version(2)
    pulled = edgefl.pull(server.transport(), publishers=TRUST)
    newest = Follower(server.transport(), tmp_path / "c", publishers=TRUST).refresh()

    assert first.accepted and second.accepted
    assert Bundle.open(tmp_path / "a" / "bundle.edgefl").covered
    assert pulled.signature is None, "trained parameters are nobody's word"
    assert pulled.manifest.provenance["trained_from"] == bundle.digest
    assert pulled.manifest.provenance["trained_from_signed_by"] == key_id(ACME.key)
    assert newest.manifest.model_version == 2


@pytest.mark.parametrize("signer", [None, OTHER])
def test_a_server_with_another_bundle_is_refused_at_once(serve, bundle, examples, tmp_path, signer):
    path = tmp_path / "model.edgefl"
    (bundle.signed(signer) if signer else bundle).save(path)
    server = serve(bundle=str(path), goal=1, rounds=1)
    client = DeviceClient(server.transport(), examples, tmp_path / "a", backend="numpy", publishers=TRUST)

    with pytest.raises(BundleSignature) as caught:
        list(client.run())
    with pytest.raises(BundleSignature):
        edgefl.pull(server.transport(), publishers=TRUST)
    with pytest.raises(BundleSignature):
        Follower(server.transport(), tmp_path / "c", publishers=TRUST).refresh()

    assert "GET /v1/bundle?target=onnx" in str(caught.value) and key_id(ACME.key) in str(caught.value)
    assert server.status().devices == 0 and not (tmp_path / "a" / "bundle.edgefl").exists()


def test_a_bundle_altered_on_the_way_is_refused_at_once(serve, bundle, examples, tmp_path):
    path = tmp_path / "signed.edgefl"
    bundle.signed(ACME).save(path)
    server = serve(bundle=str(path), goal=1, rounds=1)
    way = Altering(server.transport(), altered)
    client = DeviceClient(way, examples, tmp_path / "a", backend="numpy", publishers=TRUST)

    with pytest.raises(BundleSignature, match=r"step\.onnx"):
        list(client.run())


def test_a_kept_bundle_of_before_the_key_is_not_trusted(serve, bundle, examples, tmp_path):
    server = serve(goal=1, rounds=2)
    next(DeviceClient(server.transport(), examples, tmp_path / "a", backend="numpy").run(max_rounds=1))
    client = DeviceClient(server.transport(), examples, tmp_path / "a", backend="numpy", publishers=TRUST)

    with pytest.raises(BundleSignature):
        list(client.run())


def test_a_server_that_has_other_parameters_says_that_they_are_not_signed(serve, bundle, examples, tmp_path):
    server = serve(goal=1, rounds=2)
    server.kill()
    moved = {name: value + np.float32(1) for name, value in bundle.parameters().items()}
    path = tmp_path / "signed.edgefl"
    bundle.with_parameters(moved, 0).signed(ACME).save(path)
    server.options["bundle"] = str(path)
    server.start()

    with pytest.raises(BundleSignature, match="not signed"):
        edgefl.pull(server.transport(), publishers=TRUST)
    assert "nobody has signed it" in (server.folder / "log.txt").read_text()
