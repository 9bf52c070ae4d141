# SPDX-License-Identifier: Apache-2.0
"""Requests signed by the device's key, whatever the device's clock says."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from edgefl.errors import ServerUnreachable
from edgefl.identity import Signer, authorization
from edgefl.identity.request import TIME_HEADER
from edgefl.runtime.transport import Response, Transport


class SignedTransport:
    """Signs what goes through a transport. Where the server tells its time, it signs again by that."""

    def __init__(
        self,
        transport: Transport,
        signer: Signer,
        federation: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            federation: what requests are signed for, as the server told at enrolment.
            clock: seconds since the epoch, right or wrong.
        """
        self._transport, self._signer, self._federation = transport, signer, federation
        self._clock, self._offset = clock, 0.0

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        limit: int,
    ) -> Response:
        """See `Transport`; ServerUnreachable where the server does not take the time it told."""
        for _ in range(2):
            at = int(self._clock() + self._offset)
            signature = authorization(self._signer, self._federation, method, path, body, at)
            signed = {**(headers or {}), "authorization": signature}
            answer = self._transport.request(method, path, body, signed, limit=limit)
            told = answer.headers.get(TIME_HEADER, "")
            if answer.status != 401 or not told.isdecimal() or len(told) > 12:
                return answer
            self._offset = int(told) - self._clock()
        raise ServerUnreachable(f"{method} {path}: the server told its time and does not take it")
