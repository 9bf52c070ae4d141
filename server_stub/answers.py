# SPDX-License-Identifier: Apache-2.0
"""What answers carry beside their bodies, and how many bytes that is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from http import HTTPStatus

JSON = "application/json"
BYTES = "application/octet-stream"
UPDATE = "application/vnd.edgefl.update"

REVALIDATE = {"cache-control": "no-cache"}
"""Of all that has an entity tag: the next federation at this address begins with the same numbers."""

_DATE = "date: Thu, 01 Jan 1970 00:00:00 GMT"


def etag(data: bytes) -> str:
    """A strong entity tag for bytes."""
    return f'"{hashlib.sha256(data).hexdigest()}"'


def answer_size(status: int, headers: Mapping[str, str], body: bytes) -> int:
    """Bytes of an answer as the server writes it over HTTP/1.1, with the date and the length of its body."""
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    if status not in (204, 304):
        fields.append((b"content-length", str(len(body)).encode()))
    return head_size(status, fields) + len(body)


def head_size(status: int, fields: Iterable[tuple[bytes, bytes]]) -> int:
    """Bytes of an answer before its body, the date included, which the server adds."""
    lines = len(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n") + len(_DATE) + len("\r\n")
    return lines + fields_size(fields) + len("\r\n")


def fields_size(fields: Iterable[tuple[bytes, bytes]]) -> int:
    """Bytes of header fields."""
    return sum(len(name) + len(": ") + len(value) + len("\r\n") for name, value in fields)
