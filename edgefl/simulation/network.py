# SPDX-License-Identifier: Apache-2.0
"""The server in this process: the real coordinator behind the protocol's routes, with its bytes counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from edgefl.errors import BundleEntry, Refused
from edgefl.parameters import Arrays
from edgefl.privacy.entropy import SYSTEM, Entropy
from edgefl.runtime.remote import Remote
from edgefl.runtime.transport import LoopbackTransport, Response, request_size
from edgefl.server_stub.answers import BYTES, JSON, REVALIDATE, UPDATE, answer_size, etag
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.memory import MemoryStore
from edgefl.server_stub.settings import Settings
from edgefl.server_stub.values import Traffic
from edgefl.tensorfile import read_tensors
from edgefl.wire import MAX_TEXT, CheckIn, Decline, Evaluated, EvaluationInfo, Failure, RoundInfo

T = TypeVar("T")
HOST = "127.0.0.1:40000"
"""Whom requests are addressed to; a longer name takes its length more, in every request."""


class Network:
    """One server, and the only way to it.

    Attributes:
        remote: the server as devices see it.
    """

    def __init__(self, settings: Settings, entropy: Entropy = SYSTEM) -> None:
        """
        Args:
            entropy: what draws and noise of private rounds come from.
        """
        self._up, self._down, self._now = 0, 0, 0.0
        self._coordinator = Coordinator(
            settings, store=MemoryStore(), traffic=self.traffic, clock=lambda: self._now, entropy=entropy
        )
        self.remote = Remote(LoopbackTransport(self._request))
        self._routes: list[tuple[re.Pattern[str], Callable[..., Response]]] = [
            (re.compile(r"POST /v1/check-in"), self._check_in),
            (re.compile(r"GET /v1/bundle\?target=(.+)"), self._bundle),
            (re.compile(r"GET /v1/parameters/(\d+)"), self._parameters),
            (re.compile(r"GET /v1/parameters/(\d+)/from/(\d+)"), self._moves),
            (re.compile(r"GET /v1/control/(\d+)"), self._control),
            (re.compile(r"PUT /v1/rounds/(\d+)/updates/([0-9a-f]{32})"), self._update),
            (re.compile(r"PUT /v1/rounds/(\d+)/declines/([0-9a-f]{32})"), self._decline),
            (re.compile(r"PUT /v1/evaluations/(\d+)/([0-9a-f]{32})"), self._evaluated),
        ]

    def traffic(self) -> Traffic:
        """Bytes at the socket so far."""
        return Traffic(self._up, self._down)

    def aside(self, call: Callable[[], T]) -> tuple[T, Traffic]:
        """What a call gives, and the bytes of its requests and answers, which do not count yet."""
        before = self.traffic()
        made, after = call(), self.traffic()
        self._up, self._down = before.up, before.down
        return made, Traffic(after.up - before.up, after.down - before.down)

    def count(self, exchange: Traffic) -> None:
        """Count requests and answers that were made aside, once for every device that makes them."""
        self._up, self._down = self._up + exchange.up, self._down + exchange.down

    @property
    def now(self) -> float:
        """Seconds since the first round opened."""
        return self._now

    def pass_time(self, until: float) -> None:
        """Let time pass."""
        self._now = max(self._now, until)

    @property
    def places(self) -> int:
        """Devices that may start now."""
        return self._coordinator.places or 0

    @property
    def finished(self) -> bool:
        """Whether there are no more rounds."""
        return self._coordinator.round_number is None

    def draw(self) -> None:
        """Let the window pass in which devices check in, and places be drawn among them."""
        while self._coordinator.offer == (self._coordinator.round_number, False):
            self._now += self._coordinator.due()
            self._coordinator.tick()

    @property
    def epsilon(self) -> float | None:
        """Of all versions so far, None where rounds are not private."""
        return self._coordinator.status().epsilon

    @property
    def waiting(self) -> bool:
        """Whether the current round waits for updates."""
        return self._coordinator.due() > 0

    @property
    def seats(self) -> int:
        """Devices that may measure the newest version."""
        return self._coordinator.evaluations.room

    def evaluations(self) -> list[EvaluationInfo]:
        """Every version that was measured, oldest first."""
        return self._coordinator.evaluations.infos()

    def close_round(self) -> RoundInfo:
        """Close the current round, at its deadline where updates are still to come.

        The round comes back open where it has too few of them to close at all.
        """
        number = self._coordinator.round_number
        assert number is not None
        if self.waiting:
            self._now += self._coordinator.due()
        self._coordinator.tick()
        return self._coordinator.rounds()[number - 1]

    def parameters(self, version: int) -> Arrays:
        """The shared parameters of a version."""
        return read_tensors(self._coordinator.shelf.parameters(version))

    # -- inside

    def _request(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Response:
        self._up += request_size(method, path, body, headers, HOST)
        answer = self._answer(f"{method} {path}", body)
        self._down += answer_size(answer.status, answer.headers, answer.body)
        return answer

    def _answer(self, asked: str, body: bytes) -> Response:
        for pattern, route in self._routes:
            if found := pattern.fullmatch(asked):
                try:
                    return route(body, *found.groups())
                except Refused as exc:
                    said = Failure(exc.reason, exc.detail[:MAX_TEXT])
                    return Response(exc.status, {"content-type": JSON}, said.to_bytes())
        raise AssertionError(f"devices ask for nothing such as {asked}")

    def _check_in(self, body: bytes) -> Response:
        answer = self._coordinator.check_in(CheckIn.from_bytes(body))
        return Response(200, {"content-type": JSON}, answer.to_bytes())

    def _bundle(self, body: bytes, target: str) -> Response:
        try:
            data = self._coordinator.bundle.slice(target).to_bytes()
        except BundleEntry as exc:
            raise Refused(404, "unknown-target", str(exc)) from exc
        return _entity(data, BYTES)

    def _parameters(self, body: bytes, version: str) -> Response:
        return _entity(self._coordinator.shelf.parameters(int(version)), BYTES)

    def _moves(self, body: bytes, version: str, held: str) -> Response:
        return _entity(self._coordinator.shelf.moves(int(version), int(held)), UPDATE)

    def _control(self, body: bytes, version: str) -> Response:
        return _entity(self._coordinator.shelf.control(int(version)), UPDATE)

    def _update(self, body: bytes, number: str, assignment: str) -> Response:
        answer = self._coordinator.accept(int(number), assignment, body)
        return Response(200, {"content-type": JSON}, answer.to_bytes())

    def _evaluated(self, body: bytes, version: str, assignment: str) -> Response:
        found = Evaluated.from_bytes(body)
        answer = self._coordinator.evaluations.accept(int(version), assignment, found)
        return Response(200, {"content-type": JSON}, answer.to_bytes())

    def _decline(self, body: bytes, number: str, assignment: str) -> Response:
        self._coordinator.give_back(int(number), assignment, Decline.from_bytes(body).reason)
        return Response(204)


def _entity(data: bytes, kind: str) -> Response:
    return Response(200, {"content-type": kind, "etag": etag(data), **REVALIDATE}, data)
