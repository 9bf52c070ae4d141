# SPDX-License-Identifier: Apache-2.0
"""Who signs what: keys of devices and publishers, and the bytes they sign (docs/identity.md)."""

from edgefl.identity.keys import SCHEMES, Signer, identity_of, new_signer, signer_from, verifies
from edgefl.identity.request import WINDOW_S, Claim, authorization, canonical_request, read_claim, write_claim

__all__ = [
    "SCHEMES",
    "WINDOW_S",
    "Claim",
    "Signer",
    "authorization",
    "canonical_request",
    "identity_of",
    "new_signer",
    "read_claim",
    "signer_from",
    "verifies",
    "write_claim",
]
