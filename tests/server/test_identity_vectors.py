# SPDX-License-Identifier: Apache-2.0
"""Known answers, for whoever writes a client in another language."""

from __future__ import annotations

import random

import pytest

from edgefl.identity import Claim, canonical_request, ed25519, identity_of, read_claim, signer_from, verifies
from edgefl.identity.keys import SIGNATURE_BYTES, from_text, to_text

KEY = bytes(range(32))
REQUEST = ("PUT", f"/v1/rounds/3/updates/{'00112233445566778899aabbccddeeff'}", "0123456789abcdef")
# What is signed, by whom, the signature, and the header.
VECTORS = [
    (
        "hmac",
        b"",
        "033c1bc5bb7a0002",
        b"EFL1\n"
        b"PUT\n"
        b"/v1/rounds/3/updates/00112233445566778899aabbccddeeff\n"
        b"0123456789abcdef\n"
        b"033c1bc5bb7a0002\n"
        b"1764400000\n"
        b"AAAA\n"
        b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n",
        "nnHLyUP_vPXR345MZrkuui8TVhcI-DjmxONMx7E3kFA",
        "EFL1 Azwbxbt6AAIAaSqbgAAAAJ5xy8lD_7z10d-OTGa5Lro",
    ),
    (
        "ed25519",
        b"EFLU",
        "49da258285783393",
        b"EFL1\n"
        b"PUT\n"
        b"/v1/rounds/3/updates/00112233445566778899aabbccddeeff\n"
        b"0123456789abcdef\n"
        b"49da258285783393\n"
        b"1764400000\n"
        b"AAAA\n"
        b"dc7e7794a2bb9cc857aefed1240a19d5b2f0f3a41e2662267412208336a3ac14\n",
        "lryMMCidoSsRlkS6mAtDUQqVvTDiMw6qTSe_4U1-xJaY3XNlG-VBll4bevwup0gzkNJ_3hfTxaceXSJgFBf_Bg",
        "EFL1 SdolgoV4M5MAaSqbgAAAAJa8jDAonaErEZZEupgLQ1EKlb0w4jMOqk0"
        "nv-FNfsSWmN1zZRvlQZZeG3r8LqdIM5DSf94X08WnHl0iYBQX_wY",
    ),
]
# RFC 8032, 7.1: secret key, public key, message, signature.
RFC8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("scheme", "body", "identity", "message", "signature", "header"), VECTORS)
def test_known_answers(scheme, body, identity, message, signature, header):
    signer = signer_from(scheme, KEY)

    made = canonical_request(*REQUEST, identity_of(scheme, signer.key), 1764400000, "AAAA", body)

    assert (identity_of(scheme, signer.key), made) == (identity, message)
    assert to_text(signer.sign(made)) == signature
    travels = from_text(signature)[: SIGNATURE_BYTES[scheme]]
    assert verifies(scheme, signer.key, made, travels)
    assert not verifies(scheme, signer.key, made, travels[:-1])
    assert read_claim(header) == Claim(identity, 1764400000, "AAAA", travels)


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC8032)
def test_ed25519_is_that_of_the_rfc(secret, public, message, signature):
    parts = bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature)

    assert ed25519.public_of(bytes.fromhex(secret)) == parts[0]
    assert ed25519.sign(bytes.fromhex(secret), parts[1]) == parts[2]
    assert ed25519.verifies(*parts)


def test_what_is_no_signature_is_refused():
    draw = random.Random(7)
    private = bytes(draw.randrange(256) for _ in range(32))
    public, message = ed25519.public_of(private), b"what a publisher says"
    signature = ed25519.sign(private, message)
    flipped = [_flip(signature, draw.randrange(512)) for _ in range(20)]
    group = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(signature[32:], "little")
    malleable = signature[:32] + (s + group).to_bytes(32, "little")
    wrong = [
        *((public, message, other) for other in [*flipped, malleable, signature[:-1], b"", bytes(64)]),
        (_flip(public, 3), message, signature),
        (b"\xff" * 32, message, signature),
        (public[:-1], message, signature),
        (public, message + b".", signature),
    ]

    assert not any(ed25519.verifies(*each) for each in wrong)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer x",
        f"EDGEFL1 {'0' * 16}.1764400000.AAAAAAAA.{'A' * 43}",
        f"EFL1 {'A' * 42}",
        f"EFL1 {'A' * 44}",
        f"EFL1  {'A' * 43}",
        f"efl1 {'A' * 43}",
        f"EFL1 {'A' * 42}B",
        f"EFL1 {'A' * 42}+",
        f"EFL1 {'A' * 42}\N{ARABIC-INDIC DIGIT ONE}",
        f"EFL1 {'A' * 43}\n",
        f"EFL1 {'A' * 43}=",
        f"EFL1 {'A' * 100_000}",
    ],
)
def test_headers_that_claim_nothing(header):
    assert read_claim(header) is None


def _flip(data: bytes, bit: int) -> bytes:
    return bytes(b ^ (1 << bit % 8 if i == bit // 8 else 0) for i, b in enumerate(data))
