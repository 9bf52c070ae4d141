# SPDX-License-Identifier: Apache-2.0
"""A way to a server that cuts, trickles, floods and talks nonsense."""

from __future__ import annotations

import random
import select
import socket
import threading
from types import TracebackType

NONSENSE = (
    b"",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\nContent-Length: 0\r\n\r\n",
    b'HTTP/1.1 400 Bad Request\r\nContent-Length: 20\r\n\r\n{"reason": "\\ud800"}',
    b"HTTP/1.1 502 Bad Gateway\r\nX: \x1b[2J\nforged\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
)
_PIECE = 65536


class HostileWay:
    """Listens on a port of its own. What becomes of a connection is drawn from a seed.

    Attributes:
        url: of the way.
        spoiled: connections that did not end well.
    """

    def __init__(self, port: int, seed: int) -> None:
        self._port, self._dice = port, random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.spoiled = 0

    def __enter__(self) -> HostileWay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: object, trace: TracebackType | None) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            fate, where = self._dice.random(), self._dice.randrange(4000)
            threading.Thread(target=self._serve, args=(sock, fate, where), daemon=True).start()

    def _serve(self, sock: socket.socket, fate: float, where: int) -> None:
        self.spoiled += fate < 0.5
        try:
            with sock:
                if fate < 0.25:
                    sock.recv(_PIECE)
                    sock.sendall(NONSENSE[where % len(NONSENSE)])
                elif fate < 0.3:
                    self._trickle(sock)
                else:
                    # Cut somewhere on the way up or down, or not at all.
                    self._pass_on(sock, where if fate < 0.5 else None)
        except OSError:
            return

    def _trickle(self, sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nX-A: ")
        while not self._over.wait(0.05):
            sock.sendall(b"a")

    def _pass_on(self, sock: socket.socket, most: int | None) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as server:
            while not self._over.is_set():
                for one in select.select([sock, server], [], [], 0.5)[0]:
                    data = one.recv(_PIECE)
                    if not data:
                        return
                    cut = data if most is None else data[:most]
                    (server if one is sock else sock).sendall(cut)
                    if most is not None:
                        most -= len(cut)
                        if most <= 0:
                            return
