# SPDX-License-Identifier: Apache-2.0
"""Connections that keep the server waiting, bodies nobody asked for, and crowds: others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time

import pytest

from edgefl.errors import Refused
from edgefl.server_stub.quiet import BURST, RATE, Quiet
from edgefl.server_stub.serve import _listen
from edgefl.server_stub.waiting import WaitingRoom

QUICK = {"header_s": 0.4, "silence_s": 0.4}


def connect(server) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    return made


def answer(connection: socket.socket) -> bytes:
    """All the server says until it closes."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            said += piece
    connection.close()
    return said


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /v1/status HTTP/1.1\r\nhost: x\r\n",
        b"POST /v1/check-in HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
    ],
    ids=["nothing", "half a header", "half a body"],
)
def test_half_a_request_is_let_go_of(serve, sent):
    connection = connect(serve(limits=QUICK))

    connection.sendall(sent)

    assert answer(connection).startswith(b"HTTP/1.1 408 ")


def test_body_byte_by_byte_is_let_go_of(serve):
    connection = connect(serve(limits={**QUICK, "body_rate": 1000.0}))
    connection.sendall(b"POST /v1/check-in HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n")

    def trickle() -> None:
        with contextlib.suppress(OSError):
            for _ in range(600):
                connection.sendall(b"x")
                time.sleep(0.05)

    writer = threading.Thread(target=trickle)
    writer.start()
    connection.settimeout(25)
    assert answer(connection).startswith(b"HTTP/1.1 408 ")
    writer.join()


def test_device_that_waits_for_work_is_not_let_go_of(serve, hello):
    server = serve(goal=1, surplus=0.0, limits=QUICK, long_poll_s=2.0)
    server.remote().check_in(hello("a"))

    assert server.remote().check_in(hello("b")).task is None


def test_half_requests_by_the_hundred_lock_nobody_out(serve, hello):
    server = serve(limits={"connections": 40, "header_s": 60.0})
    half = [connect(server) for _ in range(200)]
    for connection in half:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /v1/status HTTP/1.1\r\n")

    task = server.remote().check_in(hello("a")).task

    assert task is not None
    assert (server.folder / "log.txt").stat().st_size < 20_000
    for connection in half:
        connection.close()


@pytest.mark.parametrize("assignment", ["0" * 32, "given"])
def test_body_nobody_waits_for_is_refused_before_it_is_sent(serve, hello, assignment):
    server = serve(goal=1, surplus=1.0, limits={"silence_s": 60.0})
    task = server.remote().check_in(hello("a")).task
    if assignment == "given":
        assignment = task.assignment
        size = task.max_bytes + 1
    else:
        size = task.max_bytes
    connection = connect(server)
    path = f"/v1/rounds/1/updates/{assignment}"
    connection.sendall(
        f"PUT {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {size}\r\n\r\n".encode()
    )
    said = b""
    while b"unknown-assignment" not in said and b"too-large" not in said:
        said += connection.recv(65536)

    connection.close()
    assert server.status().bytes_up < 10_000


def test_refusal_reaches_a_device_that_sends_it_all(serve, hello):
    server = serve(goal=1)
    server.remote().check_in(hello("a"))

    with pytest.raises(Refused, match="unknown-assignment"):
        server.remote().upload(1, "0" * 32, bytes(2_000_000))


def test_answers_do_not_wait_for_headers_to_be_confirmed():
    with _listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # what asyncio looks at before it sets TCP_NODELAY


def test_a_crowd_wakes_only_for_the_places_there_are():
    async def run() -> list[int]:
        room, woken = WaitingRoom(), []

        async def wait(number: int) -> None:
            turn = room.enter()
            await room.wait(turn, 0.3)
            woken.append((number, asyncio.get_running_loop().time()))
            await asyncio.sleep(0.01)
            room.leave(turn)

        start = asyncio.get_running_loop().time()
        crowd = [asyncio.create_task(wait(n)) for n in range(20)]
        await asyncio.sleep(0.01)
        room.call(3)
        room.call(3)
        await asyncio.gather(*crowd)
        assert len(room) == 0 and room._called == 0
        return [number for number, at in woken if at - start < 0.25]

    assert asyncio.run(run()) == [0, 1, 2]


def test_place_of_one_who_left_goes_to_the_next():
    async def run() -> list[str]:
        room, woken = WaitingRoom(), []

        async def wait(name: str) -> None:
            turn = room.enter()
            try:
                await room.wait(turn, 5.0)
                woken.append(name)
            finally:
                room.leave(turn)

        first, second = asyncio.create_task(wait("first")), asyncio.create_task(wait("second"))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        room.call(1)
        await second
        return woken

    assert asyncio.run(run()) == ["second"]


def test_call_between_asking_and_waiting_is_not_missed():
    async def run() -> float:
        room, loop = WaitingRoom(), asyncio.get_running_loop()
        turn, began = room.enter(), loop.time()
        room.call(1)
        await room.wait(turn, 60.0)
        room.leave(turn)
        return loop.time() - began

    assert asyncio.run(run()) < 30.0


def test_log_holds_only_so_many_lines_of_a_kind():
    now = [0.0]
    quiet = Quiet(lambda: now[0])

    def line(message: str) -> logging.LogRecord:
        return logging.LogRecord("x", logging.WARNING, "x", 1, message, (7,), None)

    passed = sum(quiet.filter(line("refused %d")) for _ in range(1000))
    assert passed == BURST and quiet.filter(line("other %d"))

    now[0] += 1 / RATE
    last = line("refused %d")
    assert quiet.filter(last)
    assert last.getMessage() == f"refused 7 ({1000 - int(BURST)} lines like this kept back)"
