# SPDX-License-Identifier: Apache-2.0
"""Becoming known to a server, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgefl.errors import OptionError
from edgefl.identity import SCHEMES, Signer, new_signer
from edgefl.identity.keys import to_text
from edgefl.identity.messages import Enrol, Enrolled
from edgefl.runtime.identity.credential import Credential
from edgefl.runtime.identity.signed import SignedTransport
from edgefl.runtime.remote import Remote
from edgefl.runtime.transport import Transport


def enrol(
    transport: Transport,
    token: str,
    folder: Path,
    *,
    scheme: str = "hmac",
    label: str = "",
    again: bool = False,
    clock: Callable[[], float] = time.time,
) -> Credential:
    """Make a key, keep it in a folder, and have the server know it; an enrolled one stays as it is.

    The key is on disk before it is sent: where the answer is lost, the same call makes good for it and takes
    nothing more from the token.

    Args:
        again: ask even where the device is enrolled already, as on a server with a new database.

    Raises:
        OptionError: no such scheme, or the folder's key cannot be used.
        Refused: `bad-token` or `revoked`.
        ServerUnreachable, ServerNonsense: worth a retry.
    """
    if scheme not in SCHEMES:
        raise OptionError(f"allowed is {' or '.join(SCHEMES)}", {"scheme": scheme})
    folder.mkdir(parents=True, exist_ok=True)
    kept = Credential.load(folder)
    if kept is not None and kept.federation and not again:
        return kept
    if kept is None:
        kept = Credential(scheme, to_text(new_signer(scheme).private))
        kept.save(folder)
    answer = introduce(transport, kept.signer, token, label, clock=clock)
    made = replace(kept, federation=answer.federation)
    made.save(folder)
    return made


def introduce(
    transport: Transport, signer: Signer, token: str, label: str, *, clock: Callable[[], float] = time.time
) -> Enrolled:
    """Have the server know a key, wherever it is kept; the answer says what to sign requests for."""
    message = Enrol(token, signer.scheme, to_text(signer.key), label)
    return Remote(SignedTransport(transport, signer, "", clock=clock)).enrol(message)
