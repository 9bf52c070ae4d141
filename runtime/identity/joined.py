# SPDX-License-Identifier: Apache-2.0
"""A device's way to its server: as it is, or signed by the device's key, which a token brings first."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edgefl.options import ReachOptions
from edgefl.runtime.identity.credential import Credential
from edgefl.runtime.identity.enrol import enrol
from edgefl.runtime.identity.signed import SignedTransport
from edgefl.runtime.lock import only_one
from edgefl.runtime.patience import Patience
from edgefl.runtime.reach import check_private
from edgefl.runtime.transport import Transport


def joined(
    transport: Transport,
    folder: Path,
    server: str,
    reach: ReachOptions,
    token: str | None,
    scheme: str = "hmac",
    label: str = "",
    *,
    patience: Patience | None = None,
) -> Transport:
    """Signed where the device is enrolled, which it is first if it comes with a token.

    Raises:
        OptionError: the token would go over plain http to another machine.
        Refused: `bad-token` or `revoked`.
    """
    credential = Credential.load(folder)
    if token and (credential is None or not credential.federation):
        check_private(server, reach, "the token")
        join = partial(enrol, transport, token, folder, scheme=scheme, label=label)
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(folder):
            credential = (patience or Patience()).insist(join, lambda: None)
    if credential is None or not credential.federation:
        return transport
    return SignedTransport(transport, credential.signer, credential.federation)
