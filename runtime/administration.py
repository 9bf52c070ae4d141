# SPDX-License-Identifier: Apache-2.0
"""What administrators ask of a server, with their token."""

from __future__ import annotations

from collections.abc import Mapping

from edgefl.identity.messages import DeviceInfo, Devices, NewToken, TokenInfo, TokenMade, Tokens
from edgefl.lineage import Hold, Restored
from edgefl.runtime.remote import ask, parsed
from edgefl.runtime.transport import Response, Transport
from edgefl.wire import MAX_LIST_BYTES


class AdminTransport:
    """Requests with the admin token, which opens whatever devices may ask for too, but no part in rounds."""

    def __init__(self, transport: Transport, token: str) -> None:
        self._transport, self._token = transport, token

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        limit: int,
    ) -> Response:
        """See `Transport`."""
        known = {**(headers or {}), "authorization": f"Bearer {self._token}"}
        return self._transport.request(method, path, body, known, limit=limit)


class Administration:
    """The routes for administrators. Methods raise as those of `Remote` do."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def make_token(self, wanted: NewToken) -> TokenMade:
        """A token that enrols devices; it is told this once."""
        answer = ask(self._transport, "POST", "/v1/admin/tokens", wanted.to_bytes())
        return parsed(TokenMade, answer)

    def tokens(self) -> tuple[TokenInfo, ...]:
        answer = ask(self._transport, "GET", "/v1/admin/tokens", limit=MAX_LIST_BYTES)
        return parsed(Tokens, answer).tokens

    def devices(self) -> tuple[DeviceInfo, ...]:
        """Every device that was ever enrolled, oldest first."""
        answer = ask(self._transport, "GET", "/v1/admin/devices", limit=MAX_LIST_BYTES)
        return parsed(Devices, answer).devices

    def revoke(self, identity: str) -> None:
        """Let a device take part no more."""
        ask(self._transport, "PUT", f"/v1/admin/devices/{identity}/revoked", good=(204,))

    def promote(self, version: int) -> None:
        """Have a version pulled by default."""
        ask(self._transport, "PUT", f"/v1/admin/versions/{version}/promoted", good=(204,))

    def pin(self, version: int, pinned: bool = True) -> None:
        """Keep a version, however many newer ones there are, or no longer."""
        method = "PUT" if pinned else "DELETE"
        ask(self._transport, method, f"/v1/admin/versions/{version}/pinned", good=(204,))

    def restore(self, version: int) -> int:
        """Make a new version that has the parameters of an old one; its number."""
        answer = ask(self._transport, "PUT", f"/v1/admin/versions/{version}/restored")
        return parsed(Restored, answer).version

    def hold(self, reason: str = "") -> None:
        """Have no rounds begin; the one that is open goes on to its end."""
        ask(self._transport, "PUT", "/v1/admin/hold", Hold(reason).to_bytes(), good=(204,))

    def resume(self) -> None:
        """Have rounds begin again."""
        ask(self._transport, "DELETE", "/v1/admin/hold", good=(204,))
