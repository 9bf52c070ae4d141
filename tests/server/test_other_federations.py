# SPDX-License-Identifier: Apache-2.0
"""Updates of one federation that find their way to another of the same model, on servers open to all."""

from __future__ import annotations

import pytest

from edgefl.data import load_examples
from edgefl.delta.origin import UNKNOWN, stamp_of
from edgefl.errors import Refused
from edgefl.runtime.client import DeviceClient
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.memory import MemoryStore
from edgefl.server_stub.settings import Settings
from edgefl.wire import CheckIn, Training
from tests.cli.commands import save_examples
from tests.server.conftest import MODEL


class Watched:
    """A transport that keeps the frames it carries, and leads them elsewhere once it is told to."""

    def __init__(self, transport):
        self.transport, self.elsewhere, self.frames = transport, None, []

    def request(self, method, path, body=b"", headers=None, *, limit):
        way = self.transport
        if method == "PUT" and "/updates/" in path:
            self.frames.append(body)
            way = self.elsewhere or way
        return way.request(method, path, body, headers, limit=limit)


@pytest.fixture
def examples(tmp_path):
    return load_examples(save_examples(tmp_path / "mine.npz"))


def other(bundle, hello, make_frame, downlink):
    """Another federation of the same model, one version further."""
    settings = Settings(
        bundle=MODEL, database="", goal=1, rounds=3, downlink=downlink, training=Training.of(density=0.2)
    )
    made = Coordinator(settings, store=MemoryStore())
    task = made.check_in(hello("x")).task
    made.accept(1, task.assignment, make_frame(9))
    made.tick()
    return made


@pytest.mark.parametrize("downlink", [0.0, 0.03], ids=["whole", "steps"])
def test_a_frame_of_another_federation_is_refused(
    serve, bundle, examples, hello, make_frame, tmp_path, downlink
):
    server = serve(goal=1, rounds=2, downlink=downlink)
    way = Watched(server.transport())
    device = DeviceClient(way, examples, tmp_path / "a", backend="numpy")
    assert [report.accepted for report in device.run()] == [True, True]
    first, second = way.frames

    there = other(bundle, hello, make_frame, downlink)
    task = there.check_in(hello("b")).task
    assert task.base_version == 1, "the second frame starts from a version of this number too"
    with pytest.raises(Refused, match="made for another federation") as caught:
        there.accept(2, task.assignment, second)

    assert caught.value.reason == "other-base" and there.rounds()[1].updates == 0
    assert UNKNOWN not in (stamp_of(first), stamp_of(second)) and stamp_of(first) != stamp_of(second)
    # The bundle itself is where both began: what was learned from it is as good here.
    fresh = Coordinator(
        Settings(
            bundle=MODEL, database="", goal=1, rounds=1, downlink=downlink, training=Training.of(density=0.2)
        ),
        store=MemoryStore(),
    )
    place = fresh.check_in(CheckIn("c", bundle.schema().id.hex(), "test", 10)).task
    assert fresh.accept(1, place.assignment, first).accepted


def test_an_update_that_is_led_to_another_server_counts_nowhere(
    serve, examples, hello, make_frame, bundle, tmp_path
):
    server = serve(goal=1, rounds=2)
    there = other(bundle, hello, make_frame, 0.0)
    way = Watched(server.transport())
    asked = []

    class Elsewhere:
        def request(self, method, path, body=b"", headers=None, *, limit):
            from edgefl.runtime.transport import Response
            from edgefl.wire import Failure

            _, _, _, number, _, assignment = path.split("/")
            asked.append(assignment)
            with pytest.raises(Refused) as caught:
                there.accept(int(number), assignment, body)
            refusal = caught.value
            return Response(refusal.status, {}, Failure(refusal.reason, refusal.detail).to_bytes())

    way.elsewhere = Elsewhere()
    report = next(DeviceClient(way, examples, tmp_path / "a", backend="numpy").run(max_rounds=1))

    assert not report.accepted and "unknown-assignment" in report.error and len(asked) == 1
    assert [info.updates for info in there.rounds()] == [1, 0]
