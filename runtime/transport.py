# SPDX-License-Identifier: Apache-2.0
"""How a device's requests travel: HTTP by the standard library, or straight into a function."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from edgefl.errors import OptionError, ServerNonsense, ServerUnreachable

_CHUNK = 64 * 1024


@dataclass(frozen=True)
class Response:
    """An answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Transport(Protocol):
    """Takes one request to the server and brings its answer back."""

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        limit: int,
    ) -> Response:
        """The server's answer, whatever its status.

        Args:
            path: absolute, with the query; a prefix in the server's URL comes before it.
            limit: bytes of body that may come back.

        Raises:
            ServerUnreachable: no whole answer came in time.
            ServerNonsense: the answer is not HTTP, or its body is over the limit.
        """
        ...


class HttpTransport:
    """HTTP/1.1 over one kept-alive connection; HTTPS with certificates checked where the URL says so.

    A request that fails on a connection used before is made again on a new one: servers close idle
    connections, and every request of the protocol may be repeated.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 30.0,
        total_s: float = 900.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """
        Args:
            url: `http://` or `https://`, host, port, and a path prefix if there is one.
            timeout_s: longest silence, longer than the server holds a check-in.
            total_s: longest time for one whole answer.
            context: for certificates the system does not know.

        Raises:
            OptionError: the URL is none of these.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise OptionError(f"server URL is {url!r}, allowed is http://host:port or https://host:port")
        self._host, self._port, self._prefix = parts.hostname, parts.port, parts.path.rstrip("/")
        self._secure, self._context = parts.scheme == "https", context
        self._timeout_s, self._total_s = timeout_s, total_s
        self._connection: http.client.HTTPConnection | None = None

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
        used_before = self._connection is not None
        try:
            try:
                return self._exchange(method, path, body, headers or {}, limit)
            except (http.client.RemoteDisconnected, ConnectionError):
                self.close()
                if not used_before:
                    raise
                return self._exchange(method, path, body, headers or {}, limit)
        except (OSError, http.client.IncompleteRead) as exc:
            self.close()
            raise ServerUnreachable(f"{method} {self._where(path)}: {exc or type(exc).__name__}") from exc
        except http.client.HTTPException as exc:
            self.close()
            raise ServerNonsense(f"{method} {self._where(path)}: the answer is no HTTP: {exc!r}") from exc
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> HttpTransport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], limit: int
    ) -> Response:
        connection = self._connection = self._connection or self._connect()
        until = time.monotonic() + self._total_s
        try:
            _send(connection, method, self._prefix + path, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            # A server may refuse a body before it has read it all; its answer, if it came, says why.
            if connection.sock is None:
                raise
        with connection.getresponse() as answer:
            content = self._read(answer, limit, until)
            if answer.will_close:
                self.close()
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, content)

    def _read(self, answer: http.client.HTTPResponse, limit: int, until: float) -> bytes:
        if (answer.length or 0) > limit:
            raise ServerNonsense(f"the answer declares {answer.length} bytes, allowed {limit}")
        chunks, total = [], 0
        while chunk := answer.read1(_CHUNK):
            total += len(chunk)
            if total > limit:
                raise ServerNonsense(f"the answer has more than {limit} bytes")
            if time.monotonic() > until:
                raise TimeoutError(f"the answer took longer than {self._total_s} s")
            chunks.append(chunk)
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
        return b"".join(chunks)

    def _connect(self) -> http.client.HTTPConnection:
        if self._secure:
            context = self._context or ssl.create_default_context()
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    def _where(self, path: str) -> str:
        scheme = "https" if self._secure else "http"
        return f"{scheme}://{self._host}:{self._port or ''}{self._prefix}{path}"


def _send(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> None:
    """A request without `Accept-Encoding: identity`: servers compress for who asks, and bytes count here."""
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if body or method in ("POST", "PUT"):
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body or None)


class _Counter:
    """In place of a socket: counts what is sent."""

    def __init__(self) -> None:
        self.sent = 0

    def sendall(self, data: bytes) -> None:
        self.sent += len(data)


def request_size(method: str, path: str, body: bytes, headers: Mapping[str, str], host: str) -> int:
    """Bytes of a request as `HttpTransport` sends it to a host, `name:port`, inside any TLS."""
    connection, counter = http.client.HTTPConnection(host), _Counter()
    connection.sock = counter
    _send(connection, method, path, body, headers)
    return counter.sent


Handler = Callable[[str, str, bytes, Mapping[str, str]], Response]


class LoopbackTransport:
    """A transport whose server is a function: for tests, and for devices simulated in one process."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

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
        answer = self._handler(method, path, body, headers or {})
        if len(answer.body) > limit:
            raise ServerNonsense(f"the answer has {len(answer.body)} bytes, allowed {limit}")
        return answer
