# SPDX-License-Identifier: Apache-2.0
"""Who has signed a bundle: known answers, slices, and everything that is not as it was signed."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.bundle.archive import pack, unpack
from edgefl.bundle.publisher import FILE, Publishers, Signature, digest, key_id, key_line, signed
from edgefl.errors import BundleSignature, EdgeflError, MissingDependency, OptionError
from edgefl.identity import ed25519
from edgefl.identity.keys import Ed25519Signer, to_text

pytest.importorskip("cryptography", reason="signatures need the package cryptography")

ACME = Ed25519Signer(bytes(range(32)))
OTHER = Ed25519Signer(bytes(32))
LINE = key_line(ACME.key)


def entries(bundle: Bundle) -> dict[str, bytes]:
    return {name: bytes(data) for name, data in unpack(bundle.to_bytes()).items()}


def refusal(data: bytes, *keys: str) -> str:
    with pytest.raises(BundleSignature) as caught:
        Bundle.open(data, Publishers(keys or [LINE]))
    return str(caught.value)


def test_the_bytes_that_are_signed_are_those_of_the_page(bundle: Bundle) -> None:
    made = bundle.signed(ACME).signature
    assert made is not None

    manifest = entries(bundle)["manifest.json"]
    slices = {target: bundle.slice(target) for target in ("coreml", "onnx", "tflite")}
    lines = [
        f"{target} {hashlib.sha256(entries(s)['manifest.json']).hexdigest()}\n"
        for target, s in slices.items()
    ]
    whole = f"whole {hashlib.sha256(manifest).hexdigest()}\n"
    assert signed(made.digests) == "".join(["EDGEFL-BUNDLE1\n", *lines, whole]).encode()
    assert made.signature == ACME.sign(signed(made.digests)) and made.genuine
    assert (made.key_id, bundle.digest) == (key_id(ACME.key), digest(manifest))
    assert LINE == "ed25519:A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"


def test_a_signed_bundle_and_its_slices_open_for_who_trusts_the_publisher(bundle: Bundle) -> None:
    trusted = Publishers([key_line(OTHER.key), LINE])
    signed_one = bundle.signed(ACME)

    whole = Bundle.open(signed_one.to_bytes(), trusted)
    cut = Bundle.open(whole.slice("onnx").to_bytes(), trusted)

    assert whole.to_bytes() == signed_one.to_bytes() and whole.covered
    assert cut.manifest.targets == ("onnx",) and cut.covered
    assert Bundle.open(whole.to_bytes()).signature == signed_one.signature, "nobody has to look at it"
    assert bundle.to_bytes() == pack({n: d for n, d in entries(signed_one).items() if n != FILE})


def test_what_is_made_of_a_signed_bundle_is_not_signed(bundle: Bundle) -> None:
    one = bundle.signed(ACME)
    made = [
        one.with_parameters({"w": np.ones((2, 3), np.float32)}, 1),
        one.with_parameters({}, 0),
        one.with_artifacts(()),
        one.with_proof({}),
        one.with_provenance(note="mine"),
    ]
    assert [each.signature for each in made] == [None] * 5


def test_who_trusts_a_publisher_takes_nothing_else(bundle: Bundle, tmp_path: Path) -> None:
    acme, stranger = key_id(ACME.key), key_id(OTHER.key)
    path = tmp_path / "model.edgefl"
    bundle.save(path)
    with pytest.raises(BundleSignature, match=f"{path} is not signed; .*publisher {acme}"):
        Bundle.open(path, Publishers([LINE]))
    assert f"signed by {stranger}; it has to be by the publisher {acme}" in refusal(
        bundle.signed(OTHER).to_bytes()
    )


@pytest.mark.parametrize("name", ["manifest.json", "parameters.safetensors", "artifacts/onnx/step.onnx"])
def test_whatever_is_altered_is_refused_by_name(bundle: Bundle, name: str) -> None:
    files = entries(bundle.signed(ACME))
    files[name] = (
        files[name].replace(b"small", b"smell") if name == "manifest.json" else files[name][:-1] + b"~"
    )

    said = refusal(pack(files))

    assert key_id(ACME.key) in said and name in said


def test_a_consistent_bundle_of_an_attacker_under_a_stolen_signature_is_refused(bundle: Bundle) -> None:
    """Every digest in it is right; only nobody has signed them."""
    mine = bundle.with_parameters({"w": np.full((2, 3), 9, np.float32)}, 0)
    stolen = replace(mine, signature=bundle.signed(ACME).signature)
    assert "manifest.json is not as" in refusal(stolen.to_bytes())

    forged = replace(bundle.signed(OTHER).signature, key=ACME.key)  # type: ignore[type-var]
    assert "is not one of" in refusal(replace(bundle, signature=forged).to_bytes())


def test_the_signature_is_verified_before_a_file_is_looked_into(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = entries(bundle.signed(OTHER))
    files["manifest.json"] = b"{ no JSON"
    assert "signed by" in refusal(pack(files))

    def looked(*_: object) -> None:
        raise AssertionError("an artifact was looked into")

    monkeypatch.setattr("edgefl.bundle.bundle.check_artifact", looked)
    refusal(bundle.to_bytes())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"key":1,"digests":{},"signature":""}',
        b'{"key":"ed25519:%s","digests":{"whole":"%s"},"signature":"!"}' % (b"A" * 43, b"0" * 64),
        b'{"key":"ed25519:%s","digests":{"other":"%s"},"signature":""}' % (b"A" * 43, b"0" * 64),
        b"x" * 5000,
    ],
)
def test_a_signature_that_is_none_is_refused(bundle: Bundle, data: bytes) -> None:
    with pytest.raises(BundleSignature, match=FILE):
        Bundle.open(pack({**entries(bundle), FILE: data}))


def test_a_signature_of_another_length_is_no_signature(bundle: Bundle) -> None:
    made = bundle.signed(ACME).signature
    assert made is not None and not Signature(made.key, made.digests, made.signature[:-1]).genuine


@pytest.mark.parametrize("line", ["", "acme.pub", "ed25519:", "ed25519:" + "A" * 42 + "B", LINE + "\n"])
def test_keys_that_are_none_are_refused(line: str) -> None:
    with pytest.raises(OptionError, match="publisher key"):
        Publishers([line])


def test_without_the_package_a_key_is_an_error_and_no_key_is_none(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bundle.signed(ACME).to_bytes()
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)

    with pytest.raises(MissingDependency, match=r"publisher's signature needs .*install"):
        Publishers([LINE])
    assert Bundle.open(data).signature is not None


def test_private_keys_are_files_that_other_tools_read() -> None:
    pem = ed25519.to_pem(ACME.private)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----") and ed25519.from_pem(pem) == ACME.private

    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric import ed25519 as real

    def written(key: ec.EllipticCurvePrivateKey | real.Ed25519PrivateKey, lock: bytes | None) -> bytes:
        how = form.BestAvailableEncryption(lock) if lock else form.NoEncryption()
        return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, how)

    locked = written(real.Ed25519PrivateKey.generate(), b"secret")
    other = written(ec.generate_private_key(ec.SECP256R1()), None)
    for wrong, why in ((locked, "encrypted"), (other, "another kind"), (b"text", "PEM")):
        with pytest.raises(ValueError, match=why) as caught:
            ed25519.from_pem(wrong)
        assert not isinstance(caught.value, EdgeflError)


def test_a_key_line_is_base64url() -> None:
    assert f"ed25519:{to_text(ACME.key)}" == LINE and len(LINE) == 51
