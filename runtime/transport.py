# SPDX-License-Identifier: Apache-2.0
"""How a device's requests travel: HTTP by the standard library, or straight into a function."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from edgefl.errors import OptionError, ServerNonsense, ServerUnreachable
from edgefl.plain import harmless
from edgefl.runtime.sockets import Allowance, Route, Wire, is_here, pins_of, proxy_for

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
    connections, and every request of the protocol may be repeated. Proxies are those of the environment.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 30.0,
        total_s: float = 900.0,
        context: ssl.SSLContext | None = None,
        pin: str | None = None,
        insecure: bool = False,
    ) -> None:
        """
        Args:
            url: `http://` or `https://`, host, port, and a path prefix if there is one.
            timeout_s: longest silence, longer than the server holds a check-in.
            total_s: longest time for a request, from connecting to the last byte of its answer, but for what
                the system takes to look up the host's name.
            context: for certificates the system does not know.
            pin: `sha256/` and the base64 of the SHA-256 of the server's public key, several with commas; a
                good certificate of another key is refused then.
            insecure: allow plain http to another machine.

        Raises:
            OptionError: the URL is none of these, plain http to another machine, or a pin for it.
        """
        parts, port = _parts(url)
        secure, host = parts.scheme == "https", parts.hostname or ""
        if not (secure or insecure or is_here(host)):
            raise OptionError(
                f"{url!r} is plain http to {host}, where whoever is on the way reads and changes everything: "
                "use https, or --insecure (insecure=True) if you mean it"
            )
        if pin and not secure:
            raise OptionError("plain http shows no key: use https with a pin", {"pin": pin})
        port = port or (443 if secure else 80)
        self._route = Route(
            host,
            port,
            (context or ssl.create_default_context()) if secure else None,
            pins_of(pin) if pin else frozenset(),
            proxy_for(secure, host, port),
        )
        self._origin, self._prefix = (
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
            parts.path.rstrip("/"),
        )
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
        allowance = Allowance(self._timeout_s, self._total_s, limit)
        try:
            try:
                return self._exchange(method, path, body, headers or {}, limit, allowance)
            except (http.client.RemoteDisconnected, ConnectionError):
                self.close()
                if not used_before:
                    raise
                return self._exchange(method, path, body, headers or {}, limit, allowance)
        except (OSError, http.client.IncompleteRead) as exc:
            self.close()
            raise ServerUnreachable(
                f"{method} {self._where(path)}: {harmless(str(exc)) or type(exc).__name__}"
            ) from exc
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
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        limit: int,
        allowance: Allowance,
    ) -> Response:
        connection = self._connection = self._connection or self._connect(allowance)
        wire: Any = connection.sock
        if isinstance(wire, Wire):
            wire.allowance = allowance
        target, more = self._prefix + path, headers
        if self._route.proxy is not None and self._route.context is None:
            target, secret = self._origin + target, self._route.proxy.credentials
            more = {**headers, "proxy-authorization": secret} if secret else headers
        try:
            _send(connection, method, target, body, more)
        except (BrokenPipeError, ConnectionResetError):
            # A server may refuse a body before it has read it all; its answer, if it came, says why.
            if connection.sock is None:
                raise
        with connection.getresponse() as answer:
            content = self._read(answer, limit)
            if answer.will_close:
                self.close()
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, content)

    def _read(self, answer: http.client.HTTPResponse, limit: int) -> bytes:
        if (answer.length or 0) > limit:
            raise ServerNonsense(f"the answer declares {answer.length} bytes, allowed {limit}")
        chunks, total = [], 0
        while chunk := answer.read1(_CHUNK):
            total += len(chunk)
            if total > limit:
                raise ServerNonsense(f"the answer has more than {limit} bytes")
            chunks.append(chunk)
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
        return b"".join(chunks)

    def _connect(self, allowance: Allowance) -> http.client.HTTPConnection:
        route = self._route
        connection = http.client.HTTPConnection(route.host, route.port)
        # The port that goes without saying; and it never connects by itself, which would have no end.
        connection.default_port, connection.auto_open = 443 if route.context else 80, 0
        connection.sock = route.open(allowance)
        return connection

    def _where(self, path: str) -> str:
        return f"{self._origin}{self._prefix}{path}"


def _parts(url: str) -> tuple[SplitResult, int | None]:
    """A server's URL and the port in it; OptionError where it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise OptionError(f"server URL is {url!r}, allowed is http://host:port or https://host:port")
    return parts, port


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
