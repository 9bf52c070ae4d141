# SPDX-License-Identifier: Apache-2.0
"""Bytes counted where they enter and leave the process: HTTP headers and bodies, inside any TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from edgefl.server_stub.door import PARTY
from edgefl.server_stub.values import Traffic


class Meter:
    """A running count of bytes; `up` towards the server, `down` towards devices."""

    def __init__(self) -> None:
        self.up = 0
        self.down = 0

    def read(self) -> Traffic:
        return Traffic(self.up, self.down)


class _Counting:
    """An asyncio transport that counts what is written to it and is otherwise the one it wraps."""

    def __init__(self, transport: asyncio.Transport, meter: Meter) -> None:
        self._transport, self._meter = transport, meter

    def write(self, data: bytes) -> None:
        self._meter.down += len(data)
        self._transport.write(data)

    def writelines(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _common_name(certificate: Any) -> str:
    """The name in a certificate as `ssl` tells it, "" where there is none."""
    names = [
        value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"
    ]
    return names[0] if len(names) == 1 else ""


def metered(meter: Meter) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 protocol with every byte in and out counted."""

    class MeteredProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(_Counting(transport, meter))  # type: ignore[arg-type]
            if party := _common_name(transport.get_extra_info("peercert")):
                # What requests of this connection find in their scope's state.
                self.app_state = {**self.app_state, PARTY: party}

        def data_received(self, data: bytes) -> None:
            meter.up += len(data)
            super().data_received(data)

    return MeteredProtocol
