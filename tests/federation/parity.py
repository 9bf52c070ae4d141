# SPDX-License-Identifier: Apache-2.0
"""One federation twice: devices and a server over real sockets, and simulated."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.runtime import Trainer
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.remote import Remote
from edgefl.runtime.transport import HttpTransport, Response, request_size
from edgefl.runtime.update import encode_update
from edgefl.server_stub import serve
from edgefl.server_stub.answers import answer_size
from edgefl.server_stub.app import create_app
from edgefl.server_stub.meter import Meter
from edgefl.server_stub.settings import Settings
from edgefl.server_stub.values import Traffic
from edgefl.simulation import DeviceRow, Plan, RoundRow, simulate
from edgefl.simulation.network import HOST
from edgefl.tensorfile import read_tensors
from edgefl.wire import EvaluationInfo, RoundInfo, Rounds

Frames = dict[tuple[str, int], bytes]
"""Updates by device and base version."""


@dataclass
class Real:
    """What came of the federation over HTTP.

    Attributes:
        versions: shared parameters of every version, as bytes.
        losses: of the last version on each device's own examples, with what it kept to itself.
        traffic: bytes at the socket, from the first request to the last answer to a device.
        goodbyes: of these, what it took to tell every device that the rounds are over.
    """

    versions: list[bytes] = field(default_factory=list)
    frames: Frames = field(default_factory=dict)
    rounds: tuple[RoundInfo, ...] = ()
    losses: dict[str, float] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    goodbyes: Traffic = field(default_factory=Traffic)
    evaluations: tuple[EvaluationInfo, ...] = ()


@dataclass
class Virtual:
    """What came of the same federation, simulated."""

    versions: list[bytes] = field(default_factory=list)
    frames: Frames = field(default_factory=dict)
    rounds: tuple[RoundRow, ...] = ()
    devices: tuple[DeviceRow, ...] = ()
    bundle: Bundle | None = None
    evaluations: tuple[EvaluationInfo, ...] = ()


@dataclass
class Recorder:
    """A transport that keeps the updates it sends."""

    inner: HttpTransport
    sent: list[bytes] = field(default_factory=list)
    goodbye: Traffic = field(default_factory=Traffic)

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        limit: int,
    ) -> Response:
        if "/updates/" in path:
            self.sent.append(body)
        answer = self.inner.request(method, path, body, headers, limit=limit)
        if b'"finished":true' in answer.body:
            up = request_size(method, path, body, headers or {}, HOST)
            # The headers of the answer are those it came with.
            down = answer_size(answer.status, {"content-type": answer.headers["content-type"]}, answer.body)
            self.goodbye = Traffic(up, down)
        return answer


def coded_part(frame: bytes) -> bytes:
    """A frame without the byte that a device stamps on what was coded, and the checksum."""
    return frame[:5] + frame[6:-4]


def real(bundle: Bundle, devices: Mapping[str, Examples], plan: Plan, backend: str, folder: Path) -> Real:
    """Every device in a thread, over real sockets, with files of its own."""
    made = Real()
    first = bundle.manifest.model_version
    settings = Settings(
        bundle.to_bytes(),
        folder / "rounds.db",
        rounds=plan.rounds,
        goal=len(devices),
        surplus=0.0,
        training=plan.training,
        server_lr=plan.server_lr,
        server_momentum=plan.server_momentum,
        downlink=plan.downlink,
        evaluate_every=plan.evaluate_every,
        evaluators=plan.evaluators,
        # Nobody asks twice for the same round, so that bytes can be compared.
        long_poll_s=25.0,
    )
    with _serving(settings) as (url, meter):
        recorders = {name: Recorder(HttpTransport(url)) for name in devices}

        def take_part(name: str) -> None:
            recorder = recorders[name]
            client = DeviceClient(
                recorder, devices[name], folder / name, backend=backend, device=name, holdout=plan.holdout
            )
            for report in client.run():
                made.frames[name, report.base_version] = coded_part(recorder.sent[-1])
            recorder.inner.close()

        threads = [threading.Thread(target=take_part, args=(name,)) for name in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        made.traffic = meter.read()
        ended = [recorder.goodbye for recorder in recorders.values()]
        made.goodbyes = Traffic(sum(t.up for t in ended), sum(t.down for t in ended))
        with HttpTransport(url) as asking:
            made.rounds = Rounds.from_bytes(asking.request("GET", "/v1/rounds", limit=1 << 24).body).rounds
            made.evaluations = Remote(asking).evaluations()
            numbers = range(first + 1, first + plan.rounds + 1)
            made.versions = [_parameters(asking, bundle, number) for number in numbers]
    for name, examples in devices.items():
        own = folder / name / "personal.safetensors"
        trainer = Trainer(bundle, backend)
        trainer.load_parameters(read_tensors(own.read_bytes()) if own.exists() else {})
        trainer.rebase(bundle.schema().unflatten(np.frombuffer(made.versions[-1], np.float32)))
        made.losses[name] = trainer.evaluate(examples.x, examples.y, examples.weight).loss
    return made


def virtual(
    bundle: Bundle, devices: Mapping[str, Examples], plan: Plan, backend: str, test: Examples
) -> Virtual:
    """The same by `edgefl.simulation`."""
    made, schema = Virtual(), bundle.schema()

    def code(*arguments: Any, **options: Any) -> Any:
        coded, residual = encode_update(*arguments, **options)
        made.frames[options["device"], options["base_version"]] = coded_part(coded.frame)
        return coded, residual

    done = simulate(
        bundle,
        devices,
        plan,
        test=test,
        backend=backend,
        code=code,
        on_round=lambda row, values: made.versions.append(schema.flatten(values).tobytes()),
        measure_devices=True,
    )
    made.rounds, made.devices, made.bundle = done.rounds, done.devices, done.bundle
    made.evaluations = done.evaluations
    return made


def _parameters(asking: HttpTransport, bundle: Bundle, number: int) -> bytes:
    answer = asking.request("GET", f"/v1/parameters/{number}", limit=1 << 24)
    return bundle.schema().flatten(read_tensors(answer.body)).tobytes()


@contextlib.contextmanager
def _serving(settings: Settings) -> Iterator[tuple[str, Meter]]:
    """The server as `run_server` runs it, in a thread."""
    with serve._listen("127.0.0.1", 0) as listener:
        app = create_app(settings)
        config = uvicorn.Config(
            app, http="h11", ws="none", lifespan="on", log_config=None, server_header=False
        )
        server = serve._Server(config, app.state.service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.meter
        finally:
            server.should_exit = True
            thread.join(30)
