# SPDX-License-Identifier: Apache-2.0
"""Bytes of requests and answers as HTTP/1.1 writes them: headers and bodies, inside any TLS."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgefl.server_stub.answers import fields_size, head_size
from edgefl.server_stub.values import Traffic

_PROTOCOL = "/v1/"
_CLOSE = b"Connection: close\r\n"
"""What an answer says beside its own fields, where the client said so."""


class Meter:
    """A running count of bytes; `up` towards the server, `down` towards devices."""

    def __init__(self) -> None:
        self.up = 0
        self.down = 0

    def read(self) -> Traffic:
        return Traffic(self.up, self.down)


class Metered:
    """Counts what the protocol of an application takes and gives; of bodies what was read or sent of them.

    Whoever looks at pages and figures adds nothing to them.
    """

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app, self._meter = app, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_PROTOCOL):
            await self._app(scope, receive, send)
            return
        meter = self._meter
        meter.up += _request_head(scope)
        goodbye = len(_CLOSE) if (b"connection", b"close") in scope["headers"] else 0

        async def taken() -> Message:
            message = await receive()
            meter.up += len(message.get("body", b""))
            return message

        async def given(message: Message) -> None:
            if message["type"] == "http.response.start":
                meter.down += head_size(message["status"], message.get("headers", ())) + goodbye
            elif message["type"] == "http.response.body":
                meter.down += len(message.get("body", b""))
            await send(message)

        await self._app(scope, taken, given)


def _request_head(scope: Scope) -> int:
    path, query = scope.get("raw_path") or scope["path"].encode(), scope["query_string"]
    line = len(scope["method"]) + len(path) + bool(query) + len(query) + len("  HTTP/1.1\r\n")
    return line + fields_size(scope["headers"]) + len("\r\n")
