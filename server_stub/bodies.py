# SPDX-License-Identifier: Apache-2.0
"""Bodies of requests, within their limits, and of answers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from anyio import move_on_after
from fastapi import Request
from fastapi.responses import Response
from pydantic import TypeAdapter
from starlette.requests import ClientDisconnect

from edgefl.errors import ProtocolError, Refused
from edgefl.message import Message
from edgefl.server_stub.answers import JSON
from edgefl.wire import MAX_JSON_BYTES, MAX_TEXT, Failure

_GLIMPSE_S = 2.0


async def read_body(request: Request, limit: int = MAX_JSON_BYTES) -> bytes:
    """The request's body; nothing beyond `limit` is ever held."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise Refused(413, "too-large", f"body of {declared} bytes, allowed {limit}")
    chunks, total = [], 0
    try:
        async for chunk in request.stream():
            total += len(chunk)
            if total > limit:
                raise Refused(413, "too-large", f"body of more than {limit} bytes")
            chunks.append(chunk)
    except ClientDisconnect as exc:
        raise Refused(400, "malformed-request", f"the body ended after {total} bytes") from exc
    return b"".join(chunks)


async def glimpse(request: Request, most: int = 8 << 20) -> bytes | None:
    """The body of a request that is refused already, where it is short and comes at once; None of any other.

    It is read although nobody wants it: a connection closed on unread bytes may take the answer with it. Of
    more than a message nothing is kept, and after `most` bytes, or a moment, the answer goes out as it may.
    """
    kept, total = b"", 0
    with contextlib.suppress(ClientDisconnect), move_on_after(_GLIMPSE_S):
        async for chunk in request.stream():
            total += len(chunk)
            if total > most:
                return None
            kept = kept + chunk if total <= MAX_JSON_BYTES else b""
        return kept if total <= MAX_JSON_BYTES else None
    return None


def parsed(kind: type[Message], body: bytes) -> Any:
    """A message; Refused (`malformed-request`) where the body is none."""
    try:
        return kind.from_bytes(body)
    except ProtocolError as exc:
        raise Refused(400, "malformed-request", str(exc)) from exc


def answer(message: Message, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A message on its way out."""
    return Response(message.to_bytes(), status, headers=dict(headers or {}), media_type=JSON)


def failure(status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A refusal on its way out."""
    return answer(Failure(reason, detail[:MAX_TEXT]), status, headers)


def body_of(kind: type[Message]) -> dict[str, Any]:
    """What OpenAPI says of a route that takes a message."""
    schema = TypeAdapter(kind).json_schema()
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}
