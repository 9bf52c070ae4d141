# SPDX-License-Identifier: Apache-2.0
"""A server in memory that can be made to fail in every way, and a learner that gives what it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefl.bundle import Bundle
from edgefl.delta import Limits, decode
from edgefl.runtime.learner import Learned
from edgefl.runtime.transport import Response
from edgefl.tensorfile import write_tensors
from edgefl.wire import Accepted, CheckIn, CheckInAnswer, Failure, Status, Task, Training

MODEL = Bundle.open(Path(__file__).parent.parent / "fixtures" / "mlp.edgefl")
SCHEMA = MODEL.schema()


class FakeServer:
    """One device, `rounds` rounds; `before` and `after` may raise or answer in place of the server."""

    def __init__(self, rounds: int = 3, bundle: Bundle = MODEL, **training) -> None:
        self.rounds, self.bundle = rounds, bundle
        self.training = Training.of(**{"density": 0.1, "lr": 0.1, **training})
        self.frames: dict[int, bytes] = {}
        self.uploads: list[bytes] = []
        self.requests: list[str] = []
        self.declines: list[str] = []
        self.before: Callable[[str, str], Response | None] = lambda method, path: None
        self.after: Callable[[str, str, Response], Response] = lambda method, path, answer: answer
        self.max_bytes = 10_000
        self.federation = ""
        self.over = 0

    def __call__(self, method, path, body, headers) -> Response:
        self.requests.append(f"{method} {path}")
        return self.before(method, path) or self.after(method, path, self.answer(method, path, body, headers))

    def answer(self, method, path, body, headers) -> Response:
        schema = self.bundle.schema()
        if path == "/v1/check-in":
            if CheckIn.from_bytes(body).schema != schema.id.hex():
                return failure(409, "wrong-schema")
            return Response(200, {}, self.next_task().to_bytes())
        if path.startswith("/v1/bundle"):
            tag = self.bundle.manifest.files["parameters"].sha256 + self.bundle.manifest.name
            if headers.get("if-none-match") == tag:
                return Response(304)
            return Response(200, {"etag": tag}, self.bundle.slice(path.partition("=")[2]).to_bytes())
        if path == "/v1/status":
            return Response(200, {}, self.status().to_bytes())
        if path.startswith("/v1/parameters/"):
            shared = {p.name: self.bundle.parameters()[p.name] for p in schema.parameters}
            return Response(200, {}, write_tensors(shared))
        number = int(path.split("/")[3])
        if "/declines/" in path:
            self.declines.append(json.loads(body)["reason"])
            self.over = number
            return Response(204)
        self.uploads.append(body)
        duplicate = self.frames.setdefault(number, body) == body and self.uploads.count(body) > 1
        if self.frames[number] != body:
            return failure(409, "already-sent-different")
        self.over = number
        return Response(200, {}, Accepted(True, duplicate).to_bytes())

    def next_task(self) -> CheckInAnswer:
        number = self.over + 1
        if number > self.rounds:
            return CheckInAnswer(None, 1.0, finished=True)
        name = f"{number:032x}"
        schema = self.bundle.schema().id.hex()
        task = Task(name, number, number - 1, schema, self.training, 5, self.max_bytes, 60.0)
        return CheckInAnswer(replace(task, federation=self.federation))

    def status(self) -> Status:
        schema = self.bundle.schema().id.hex()
        return Status("m", schema, 0, 0, self.rounds, False, None, 1, 0, 0, self.federation)

    def deltas(self) -> list[np.ndarray]:
        schema = self.bundle.schema()
        return [decode(f, Limits(schema.id, schema.size)).dense() for f in self.frames.values()]


def failure(status: int, reason: str) -> Response:
    return Response(status, {}, Failure(reason, "because").to_bytes())


class ScriptedLearner:
    """Gives updates drawn from a seed, or raises what it is told."""

    engine, examples = "scripted", 12

    def __init__(self, size: int = SCHEMA.size) -> None:
        self.random, self.given, self.size = np.random.default_rng(3), [], size
        self.error: Exception | None = None

    def learn(self, parameters, training, stint) -> Learned:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.given.append(self.random.normal(size=self.size).astype(np.float32))
        return Learned(self.given[-1], 0.5)
