# SPDX-License-Identifier: Apache-2.0
"""Connections on which every wait has an end: to a server or through a proxy, plain or under TLS.

The standard library's client has a time for each read alone, so that a server which sends a byte now and then
holds it for ever. Here a whole request has a time, and a whole answer a most of bytes, whatever is in it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import ipaddress
import os
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from edgefl.errors import OptionError, ServerNonsense

AROUND = 256 * 1024
"""Bytes that headers, interim answers and the frames of chunks may take around a body."""
_PIECE = 64 * 1024
_HEAD = 16 * 1024


class Allowance:
    """What is left of a request's time, and of the bytes its answer may have."""

    def __init__(self, timeout_s: float, total_s: float, limit: int) -> None:
        """
        Args:
            timeout_s: longest silence.
            total_s: seconds from now to the end of the answer.
            limit: bytes of its body.
        """
        self._timeout_s, self._total_s = timeout_s, total_s
        self._until = time.monotonic() + total_s
        self._most = self._left = limit + limit // 8 + AROUND

    def seconds(self) -> float:
        """The longest that the next wait may take; TimeoutError where there is no time left."""
        left = self._until - time.monotonic()
        if left <= 0.0:
            raise TimeoutError(f"the request took longer than {self._total_s:g} s")
        return min(self._timeout_s, left)

    def received(self, count: int) -> None:
        """Bytes have arrived; ServerNonsense where they are too many."""
        self._left -= count
        if self._left < 0:
            raise ServerNonsense(f"the answer has more than {self._most} bytes with all around its body")


class Wire:
    """A connected socket as `http.client` uses one. `allowance` is to be renewed for each request."""

    def __init__(self, sock: socket.socket, allowance: Allowance) -> None:
        self._sock, self.allowance = sock, allowance

    def sendall(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        while view:
            self._sock.settimeout(self.allowance.seconds())
            view = view[self._sock.send(view[:_PIECE]) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._sock, lambda: self.allowance))

    def close(self) -> None:
        self._sock.close()


class _Incoming(io.RawIOBase):
    """What arrives at a socket. It stays open for an answer that is still read when its owner closes it."""

    def __init__(self, sock: socket.socket, allowance: Callable[[], Allowance]) -> None:
        self._sock, self._raw = sock, sock.makefile("rb", buffering=0)
        self._allowance = allowance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        allowance = self._allowance()
        self._sock.settimeout(allowance.seconds())
        try:
            count = self._raw.readinto(buffer) or 0
        except TimeoutError:
            allowance.seconds()  # says which time it was
            raise
        allowance.received(count)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy on the way.

    Attributes:
        credentials: value of its header `Proxy-Authorization`; empty where it asks for none.
    """

    host: str
    port: int
    credentials: str = ""


@dataclass(frozen=True)
class Route:
    """How a server is reached.

    Attributes:
        context: for TLS; None for plain connections.
        pins: SHA-256 digests of the public keys the server may have; empty for any with a good certificate.
    """

    host: str
    port: int
    context: ssl.SSLContext | None = None
    pins: frozenset[bytes] = field(default_factory=frozenset)
    proxy: Proxy | None = None

    def open(self, allowance: Allowance) -> Wire:
        """A connection, ready for a request; raises OSError where there is none in time."""
        via = self.proxy
        sock = _dial(via.host if via else self.host, via.port if via else self.port, allowance)
        try:
            if self.context is not None:
                if via is not None:
                    _tunnel(sock, f"{_bracketed(self.host)}:{self.port}", via, allowance)
                # The handshake as a whole ends by this time.
                sock.settimeout(allowance.seconds())
                sock = self.context.wrap_socket(sock, server_hostname=self.host)
                self._check_pin(sock)
        except BaseException:
            sock.close()
            raise
        return Wire(sock, allowance)

    def _check_pin(self, sock: ssl.SSLSocket) -> None:
        found = hashlib.sha256(public_key(sock.getpeercert(binary_form=True) or b"")).digest()
        if self.pins and found not in self.pins:
            raise ssl.SSLError(f"the server's key is {pin_text(found)}, which is not pinned")


def is_here(host: str) -> bool:
    """Whether a host is this machine, by its name alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_for(secure: bool, host: str, port: int) -> Proxy | None:
    """The proxy that `https_proxy` or `http_proxy` names, unless `no_proxy` excepts the host.

    Raises:
        OptionError: the variable holds what is no `http://host:port`.
    """
    if is_here(host) or not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    # Typeshed leaves out the second; it stands beside the first in every Python we support.
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    found = getproxies_environment()
    url = found.get("https" if secure else "http", "")
    if not url or proxy_bypass_environment(f"{host}:{port}", found):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        to = parts.port or 80
    except ValueError:
        to = 0
    if parts.scheme != "http" or not parts.hostname or not to:
        name = "https_proxy" if secure else "http_proxy"
        raise OptionError(f"{name} names a proxy that is none, allowed is http://host:port")
    if parts.username is None:
        return Proxy(parts.hostname, to)
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(parts.hostname, to, "Basic " + base64.b64encode(secret.encode()).decode())


def pins_of(text: str) -> frozenset[bytes]:
    """Digests out of `sha256/<base64>`, several with commas between them; OptionError where it is none."""
    return frozenset(map(_pin, text.split(",")))


def _pin(text: str) -> bytes:
    match = re.fullmatch(r"sha256/([A-Za-z0-9+/]{43}=)", text.strip())
    if match is None:
        raise OptionError(f"pin is {text!r}, allowed is sha256/ and 44 characters of base64")
    return base64.b64decode(match[1])


def pin_text(digest: bytes) -> str:
    """A digest as `--pin` takes it."""
    return "sha256/" + base64.b64encode(digest).decode()


def public_key(certificate: bytes) -> bytes:
    """The `SubjectPublicKeyInfo` of an X.509 certificate, both in DER; OSError where it is none."""
    try:
        _, at, _ = _element(certificate, 0)
        _, at, _ = _element(certificate, at)
        tag, _, end = _element(certificate, at)
        # An optional version; then serial number, algorithm, issuer, validity and subject.
        for _ in range(6 if tag == 0xA0 else 5):
            at = end
            _, _, end = _element(certificate, at)
        return certificate[at:end]
    except IndexError as exc:
        raise ssl.SSLError("the server's certificate cannot be read") from exc


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag of a DER element, where its content begins, and where it ends."""
    tag, length, start = data[at], data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(data[start : start + count], "big"), start + count
    if start + length > len(data):
        raise IndexError
    return tag, start, start + length


def _dial(host: str, port: int, allowance: Allowance) -> socket.socket:
    """A connection to the first address that answers. The system's own time for names is not counted in."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(allowance.seconds())
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as exc:
            sock.close()
            failure = exc
    raise failure or OSError(f"{host} has no address")


def _tunnel(sock: socket.socket, to: str, proxy: Proxy, allowance: Allowance) -> None:
    """Have a proxy connect on; raises OSError where it does not."""
    secret = f"Proxy-Authorization: {proxy.credentials}\r\n" if proxy.credentials else ""
    wire = Wire(sock, allowance)
    wire.sendall(f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{secret}\r\n".encode())
    head = b""
    # Byte by byte: what comes after the head is TLS's.
    with _Incoming(sock, lambda: allowance) as incoming:
        while not head.endswith(b"\r\n\r\n"):
            byte = incoming.read(1)
            if not byte or len(head) > _HEAD:
                raise ConnectionAbortedError(f"proxy {proxy.host}:{proxy.port} does not answer in HTTP")
            head += byte
    status = head.partition(b"\r\n")[0]
    if not re.match(rb"HTTP/1\.[01] 2\d\d\b", status):
        raise ConnectionAbortedError(f"proxy {proxy.host}:{proxy.port} refuses: {status[:80]!r}")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
