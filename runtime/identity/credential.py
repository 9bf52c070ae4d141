# SPDX-License-Identifier: Apache-2.0
"""A device's key on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from edgefl.errors import OptionError, ProtocolError
from edgefl.files import write_atomically
from edgefl.identity import SCHEMES, Signer, identity_of, signer_from
from edgefl.identity.keys import from_text
from edgefl.message import Message
from edgefl.rules import one_of, text

FILE = "identity.json"


@dataclass(frozen=True, repr=False)
class Credential(Message):
    """A key, and what it is for.

    Attributes:
        scheme: one of `SCHEMES`.
        private: base64url of the private key, or of the shared secret.
        federation: what requests are signed for; empty until the server has answered the request to enrol.
    """

    scheme: Annotated[str, one_of(*SCHEMES)]
    private: Annotated[str, text(r"[A-Za-z0-9_-]{43}")]
    federation: Annotated[str, text(r"([0-9a-f]{16})?")] = ""

    @property
    def signer(self) -> Signer:
        try:
            return signer_from(self.scheme, from_text(self.private))
        except ValueError as exc:
            raise ProtocolError(f"the key: {exc}") from exc

    @property
    def identity(self) -> str:
        """What the server knows the device by."""
        signer = self.signer
        return identity_of(signer.scheme, signer.key)

    def save(self, folder: Path) -> None:
        """Keep it, for its owner alone to read."""
        write_atomically(folder / FILE, self.to_bytes(), private=True)

    @staticmethod
    def load(folder: Path) -> Credential | None:
        """The one in a folder, None where there is none; OptionError where it cannot be used."""
        path = folder / FILE
        try:
            found = Credential.from_bytes(path.read_bytes())
            _ = found.signer
        except FileNotFoundError:
            return None
        except (OSError, ProtocolError) as exc:
            raise OptionError(f"{path} holds no key: {exc}; enrol again once it is gone") from exc
        return found
