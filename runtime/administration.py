# SPDX-License-Identifier: Apache-2.0
"""What administrators ask of a server, with their token."""

from __future__ import annotations

from collections.abc import Mapping

from edgefl.identity.messages import DeviceInfo, Devices, NewToken, TokenInfo, TokenMade, Tokens
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
