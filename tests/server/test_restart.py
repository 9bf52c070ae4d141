# SPDX-License-Identifier: Apache-2.0
"""Killing the server process while devices work: no accepted update is lost and none counts twice."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping

import numpy as np
import pytest

from edgefl.runtime.client import DeviceClient
from edgefl.runtime.learner import Learned
from edgefl.runtime.patience import Patience
from edgefl.runtime.transport import HttpTransport, Response
from edgefl.server_stub import aggregate

pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)


def test_kill_between_two_updates(serve, bundle, make_frame, hello):
    frames = [make_frame(1), make_frame(2)]
    server = serve(goal=2)
    remote = server.remote()
    a, b = remote.check_in(hello("a")).task, remote.check_in(hello("b")).task
    remote.upload(1, a.assignment, frames[0])

    server.kill()
    server.start()

    remote = server.remote()
    assert server.rounds().rounds[0].updates == 1
    assert remote.check_in(hello("b")).task.assignment == b.assignment
    assert remote.upload(1, a.assignment, frames[0]).duplicate
    assert not remote.upload(1, b.assignment, frames[1]).duplicate
    server.wait_for_version(1)
    schema = bundle.schema()
    expected = schema.flatten(aggregate(bundle, frames).parameters())
    np.testing.assert_array_equal(schema.flatten(remote.parameters(1, schema)), expected)


class RandomLearner:
    """Stands in for training: a random update, after a short while."""

    engine, examples = "random", 7

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._random = size, np.random.default_rng(seed)

    def learn(self, parameters, training, stint) -> Learned:
        time.sleep(0.05)
        return Learned(self._random.normal(size=self._size).astype(np.float32), 1.0)


class Network:
    """HTTP to wherever the server is now, remembering every frame that was acknowledged."""

    def __init__(self, server, acknowledged: dict[str, bytes], fetched: set[str]) -> None:
        self._server, self._acknowledged, self._fetched = server, acknowledged, fetched

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        limit: int,
    ) -> Response:
        with HttpTransport(self._server.url, timeout_s=10) as transport:
            answer = transport.request(method, path, body, headers, limit=limit)
        if method == "PUT" and answer.status == 200:
            assert self._acknowledged.setdefault(path, body) == body
        if path.startswith("/v1/parameters") and answer.status == 200:
            self._fetched.add(path)
        return answer


@pytest.mark.parametrize("downlink", [0.0, 0.05])
def test_rounds_survive_a_server_that_is_killed_again_and_again(serve, bundle, tmp_path, downlink):
    rounds, devices, kills = 8, 4, 0
    server = serve(goal=3, rounds=rounds, surplus=1.0, deadline_s=60, downlink=downlink)
    acknowledged: dict[str, bytes] = {}
    fetched: set[str] = set()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            client = DeviceClient(
                Network(server, acknowledged, fetched),
                None,
                tmp_path / f"device-{number}",
                backend="numpy",
                device=f"device-{number}",
                learner=lambda b: RandomLearner(b.schema().size, number),
                patience=Patience(first_s=0.02, longest_s=0.1, random=random.Random(number)),
            )
            for _ in client.run():
                pass
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(devices)]
    for thread in threads:
        thread.start()
    dice = random.Random(5)
    while kills < 8 and any(t.is_alive() for t in threads):
        time.sleep(dice.uniform(0.05, 0.3))
        server.kill()
        kills += 1
        server.start()
    for thread in threads:
        thread.join(timeout=60)

    assert kills > 1 and not failures and not any(t.is_alive() for t in threads)
    schema, expected, before = bundle.schema(), bundle, bundle
    for info in server.rounds().rounds:
        frames = [
            f for path, f in acknowledged.items() if path.startswith(f"/v1/rounds/{info.round}/updates/")
        ]
        assert info.updates == len(frames) >= info.minimum
        expected, before = aggregate(expected, frames), expected
    final = schema.flatten(server.remote().parameters(rounds, schema))
    wanted = schema.flatten(expected.parameters())
    if not downlink:
        np.testing.assert_array_equal(final, wanted)
        return
    # What the server wants and what devices hold differ by what waits for the next version.
    last = wanted - schema.flatten(before.parameters())
    assert np.linalg.norm(final - wanted) < 2 * downlink**0.5 * np.linalg.norm(last)
    assert fetched and all("/from/" in path for path in fetched)
