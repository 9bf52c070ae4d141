# SPDX-License-Identifier: Apache-2.0
"""HTTP from the standard library against servers that behave and servers that do not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from edgefl.errors import OptionError, ServerNonsense, ServerUnreachable
from edgefl.runtime.transport import HttpTransport, LoopbackTransport, Response

pytestmark = pytest.mark.device

Serve = Callable[[socket.socket, int], None]


@contextmanager
def server(serve: Serve) -> Iterator[tuple[str, list[int]]]:
    """A TCP server that hands each connection and its number to a function; gives its URL and connections."""
    connections: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def loop() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    connections.append(1)
                    serve(sock, len(connections))

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections
        finally:
            # Closing alone does not wake accept() on every system.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=10)


def request_of(sock: socket.socket) -> bytes:
    """Head and body of one request; empty where the peer has gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = sock.recv(65536)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    ]
    while lengths and len(body) < lengths[0]:
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


def answering(*answers: bytes, close: bool = False) -> Serve:
    def serve(sock: socket.socket, _: int) -> None:
        for answer in answers:
            if not request_of(sock):
                return
            sock.sendall(answer)
        if not close:
            request_of(sock)

    return serve


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Thing: a\r\n\r\nhi"


def test_answer_comes_back_with_headers_in_lower_case():
    with server(answering(OK)) as (url, _), HttpTransport(url) as transport:
        answer = transport.request("GET", "/v1/status", limit=10)

    assert (answer.status, answer.body, answer.headers["x-thing"]) == (200, b"hi", "a")


def test_request_carries_method_prefix_headers_and_body():
    seen = []

    def serve(sock, _):
        seen.append(request_of(sock))
        sock.sendall(OK)

    with server(serve) as (url, _), HttpTransport(url + "/prefix/") as transport:
        transport.request("PUT", "/v1/x", b"\x00body", {"a": "b"}, limit=10)

    assert seen[0].startswith(b"PUT /prefix/v1/x HTTP/1.1\r\n")
    assert b"\r\na: b\r\n" in seen[0] and seen[0].endswith(b"\x00body")


def test_connection_is_kept_for_the_next_request():
    with server(answering(OK, OK, OK)) as (url, connections), HttpTransport(url) as transport:
        for _ in range(3):
            transport.request("GET", "/", limit=10)

    assert len(connections) == 1


def test_connection_the_server_closed_is_opened_again():
    with server(answering(OK, close=True)) as (url, connections), HttpTransport(url) as transport:
        for _ in range(3):
            assert transport.request("GET", "/", limit=10).body == b"hi"

    assert len(connections) == 3


def test_nobody_there_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with HttpTransport(f"http://127.0.0.1:{port}") as transport, pytest.raises(ServerUnreachable):
        transport.request("GET", "/", limit=10)


def test_silence_is_unreachable():
    with (
        server(answering(b"")) as (url, _),
        HttpTransport(url, timeout_s=0.2) as transport,
        pytest.raises(ServerUnreachable, match="timed out"),
    ):
        transport.request("GET", "/", limit=10)


def test_trickle_is_unreachable_in_the_end():
    def serve(sock, _):
        request_of(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        stop = threading.Event()
        try:
            while not stop.wait(0.02):
                sock.sendall(b"x")
        except OSError:
            return

    with (
        server(serve) as (url, _),
        HttpTransport(url, total_s=0.3) as transport,
        pytest.raises(ServerUnreachable, match="longer than"),
    ):
        transport.request("GET", "/", limit=10**6)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"",
    ],
)
def test_answer_that_breaks_off_is_unreachable(answer):
    with (
        server(answering(answer, close=True)) as (url, _),
        HttpTransport(url) as transport,
        pytest.raises(ServerUnreachable),
    ):
        transport.request("GET", "/", limit=100)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000 + b"\r\n\r\n",
    ],
)
def test_answer_that_is_no_http_is_nonsense(answer):
    with (
        server(answering(answer, close=True)) as (url, _),
        HttpTransport(url) as transport,
        pytest.raises(ServerNonsense),
    ):
        transport.request("GET", "/", limit=100)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + bytes(1024) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + bytes(1024),
    ],
)
def test_answer_over_the_limit_is_not_read(answer):
    with (
        server(answering(answer)) as (url, _),
        HttpTransport(url) as transport,
        pytest.raises(ServerNonsense, match=r"allowed 100|more than 100"),
    ):
        transport.request("GET", "/", limit=100)


def test_transport_works_again_after_a_failure():
    def serve(sock, number):
        request_of(sock)
        sock.sendall(b"junk\r\n" if number == 1 else OK)

    with server(serve) as (url, _), HttpTransport(url) as transport:
        with pytest.raises(ServerNonsense):
            transport.request("GET", "/", limit=10)

        assert transport.request("GET", "/", limit=10).status == 200


@pytest.mark.parametrize(
    "url", ["", "localhost:80", "ftp://host", "http://", "http://host/?a=b", "file:///etc/passwd"]
)
def test_urls_of_other_kinds_are_refused(url):
    with pytest.raises(OptionError, match="server URL"):
        HttpTransport(url)


def test_loopback_passes_everything_on_and_keeps_the_limit():
    transport = LoopbackTransport(
        lambda method, path, body, headers: Response(200, headers, body + path.encode())
    )

    assert transport.request("PUT", "/a", b"b", {"c": "d"}, limit=3) == Response(200, {"c": "d"}, b"b/a")
    with pytest.raises(ServerNonsense):
        transport.request("PUT", "/a", b"bb", limit=3)
