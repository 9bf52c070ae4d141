# SPDX-License-Identifier: Apache-2.0
"""Every wait has an end, whatever a server does; proxies, pinned keys, and no plain http to strangers."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from edgefl.errors import OptionError, ServerNonsense, ServerUnreachable
from edgefl.runtime.sockets import pin_text, public_key
from edgefl.runtime.transport import HttpTransport
from tests.runtime.test_transport import OK, answering, request_of, server

pytestmark = pytest.mark.device
TLS = Path(__file__).parents[1] / "server" / "tls"


def endless(*begin: bytes, again: bytes, pause: float = 0.01) -> Callable[[socket.socket, int], None]:
    """Begins an answer, then sends the same bytes again and again until the client has gone."""

    def serve(sock: socket.socket, _: int) -> None:
        request_of(sock)
        stop = threading.Event()
        try:
            sock.sendall(b"".join(begin))
            while not stop.wait(pause):
                sock.sendall(again)
        except OSError:
            return

    return serve


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(endless(b"HTTP/1.1 200", again=b"O"), id="status"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\nX-A: ", again=b"a"), id="header"),
        pytest.param(endless(again=b"HTTP/1.1 100 Continue\r\n\r\n"), id="continue"),
        pytest.param(endless(CHUNKED, b"1\r\nx\r\n0\r\n", again=b"T: a\r\n"), id="trailers"),
        pytest.param(endless(CHUNKED, again=b"1\r\nx\r\n"), id="chunks"),
        pytest.param(endless(CHUNKED, b"1;", again=b"e=f;"), id="extension"),
    ],
)
def test_what_never_ends_is_ended(serve: Callable[[socket.socket, int], None]) -> None:
    with server(serve) as (url, _), HttpTransport(url, total_s=0.4) as transport:
        began = time.monotonic()
        with pytest.raises((ServerUnreachable, ServerNonsense)):
            transport.request("GET", "/", limit=10**6)
        assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(endless(again=b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, pause=0.0), id="continue"),
        pytest.param(endless(CHUNKED, b"0\r\n", again=b"T: a\r\n" * 9000, pause=0.0), id="trailers"),
    ],
)
def test_a_flood_around_a_body_is_not_taken_in(serve: Callable[[socket.socket, int], None]) -> None:
    with server(serve) as (url, _), HttpTransport(url) as transport, pytest.raises(ServerNonsense):
        transport.request("GET", "/", limit=100)


def test_a_body_that_is_not_read_is_ended() -> None:
    """The peer takes no more, and answers nothing."""
    done = threading.Event()

    def serve(sock: socket.socket, _: int) -> None:
        done.wait(30)

    with server(serve) as (url, _), HttpTransport(url, total_s=0.5) as transport:
        with pytest.raises(ServerUnreachable, match=r"longer than|timed out"):
            transport.request("PUT", "/", b"x" * (64 << 20), limit=100)
        done.set()


def test_a_later_request_has_its_own_time() -> None:
    with server(answering(OK, OK)) as (url, connections), HttpTransport(url, total_s=0.5) as transport:
        assert transport.request("GET", "/", limit=10).body == b"hi"
        time.sleep(0.7)
        assert transport.request("GET", "/", limit=10).body == b"hi"
        assert len(connections) == 1


# -- TLS, pins, proxies


@contextmanager
def secure_server() -> Iterator[tuple[int, ssl.SSLContext]]:
    """A TLS server that answers OK; its port, and a context that knows its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")

    def serve(sock: socket.socket, _: int) -> None:
        try:
            with context.wrap_socket(sock, server_side=True) as wrapped:
                while request_of(wrapped):
                    wrapped.sendall(OK)
        except (OSError, ssl.SSLError):
            return

    with server(serve) as (url, _):
        yield int(url.rpartition(":")[2]), ssl.create_default_context(cafile=str(TLS / "certificate.pem"))


def own_pin() -> str:
    """By `cryptography`, which reads certificates without our help; by ours where it is not installed."""
    import hashlib

    pem = (TLS / "certificate.pem").read_text()
    der = ssl.PEM_cert_to_DER_cert(pem)
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    except ImportError:
        return pin_text(hashlib.sha256(public_key(der)).digest())
    key = x509.load_der_x509_certificate(der).public_key()
    theirs = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public_key(der) == theirs
    return pin_text(hashlib.sha256(theirs).digest())


def test_a_pinned_key_is_asked_for() -> None:
    other = pin_text(b"\0" * 32)
    with secure_server() as (port, context):
        url = f"https://localhost:{port}"
        for pin in (own_pin(), f"{other},{own_pin()}"):
            with HttpTransport(url, context=context, pin=pin) as transport:
                assert transport.request("GET", "/", limit=10).body == b"hi"
        with (
            HttpTransport(url, context=context, pin=other) as transport,
            pytest.raises(ServerUnreachable, match="is not pinned"),
        ):
            transport.request("GET", "/", limit=10)


def test_a_handshake_that_never_comes_is_ended() -> None:
    silent = threading.Event()
    with server(lambda sock, _: bool(silent.wait(30)) and None) as (url, _):
        secure = url.replace("http://127.0.0.1", "https://localhost")
        with HttpTransport(secure, total_s=0.3) as transport, pytest.raises(ServerUnreachable):
            transport.request("GET", "/", limit=10)
        silent.set()


@pytest.mark.parametrize("pin", ["", "sha256/abc", "md5/" + "a" * 44, "sha256/" + "!" * 43 + "="])
def test_what_is_no_pin_is_refused(pin: str) -> None:
    if pin:
        with pytest.raises(OptionError, match="pin"):
            HttpTransport("https://localhost:1", pin=pin)
    with pytest.raises(OptionError, match="plain http shows no key"):
        HttpTransport("http://localhost:1", pin=own_pin())


def test_plain_http_to_another_machine_must_be_meant() -> None:
    for url in ("http://fl.example.org", "http://192.0.2.7:8017"):
        with pytest.raises(OptionError, match="--insecure"):
            HttpTransport(url)
        HttpTransport(url, insecure=True).close()
    for url in ("http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "https://fl.example.org"):
        HttpTransport(url).close()


@contextmanager
def proxy(to: int) -> Iterator[tuple[str, list[bytes]]]:
    """An HTTP proxy that connects everything to one port here; its URL and the heads it was sent."""
    heads: list[bytes] = []

    def serve(sock: socket.socket, _: int) -> None:
        head = request_of(sock)
        heads.append(head)
        if not head.startswith(b"CONNECT"):
            sock.sendall(OK if head else b"")
            return
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", to)) as other:
            back = threading.Thread(target=_pump, args=(other, sock))
            back.start()
            _pump(sock, other)
            back.join(10)

    with server(serve) as (url, _):
        yield url, heads


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
    finally:
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def test_plain_requests_go_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(0) as (url, heads):
        monkeypatch.setenv("http_proxy", url.replace("http://", "http://me:se%20cret@"))
        with HttpTransport("http://fl.example.org:8017/fl", insecure=True) as transport:
            assert transport.request("GET", "/v1/status", limit=10).body == b"hi"
    assert heads[0].startswith(b"GET http://fl.example.org:8017/fl/v1/status HTTP/1.1\r\n")
    assert b"proxy-authorization: basic bwu6c2ugy3jlda==" in heads[0].lower()


def test_secure_requests_go_through_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    with secure_server() as (port, context), proxy(port) as (url, heads):
        monkeypatch.setenv("https_proxy", url)
        # The certificate is for this machine's names; a proxy is not used for these.
        context.check_hostname = False
        with HttpTransport("https://fl.example.org", context=context) as transport:
            assert transport.request("GET", "/", limit=10).body == b"hi"
            assert transport.request("GET", "/", limit=10).body == b"hi"
    assert heads == [b"CONNECT fl.example.org:443 HTTP/1.1\r\nHost: fl.example.org:443\r\n\r\n"]


def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(answering(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")) as (url, _):
        monkeypatch.setenv("https_proxy", url)
        with (
            HttpTransport("https://fl.example.org") as transport,
            pytest.raises(ServerUnreachable, match=r"proxy .* refuses: .*407"),
        ):
            transport.request("GET", "/", limit=10)


def test_no_proxy_for_those_excepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    with server(answering(OK)) as (url, _), HttpTransport(url) as transport:
        assert transport.request("GET", "/", limit=10).body == b"hi"
    monkeypatch.setenv("https_proxy", "socks5://proxy.invalid")
    with pytest.raises(OptionError, match="https_proxy names a proxy that is none"):
        HttpTransport("https://fl.example.org")
    monkeypatch.setenv("no_proxy", ".example.org")
    HttpTransport("https://fl.example.org").close()
