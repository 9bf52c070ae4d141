# SPDX-License-Identifier: Apache-2.0
"""A device's key: made once, known to the server by a token, signing every request from then on."""

from edgefl.runtime.identity.credential import FILE, Credential
from edgefl.runtime.identity.enrol import enrol
from edgefl.runtime.identity.joined import joined
from edgefl.runtime.identity.signed import SignedTransport

__all__ = ["FILE", "Credential", "SignedTransport", "enrol", "joined"]
