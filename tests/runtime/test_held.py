# SPDX-License-Identifier: Apache-2.0
"""A device against a server in memory that answers with chains, sums, whole states and nonsense."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl.bundle import Bundle
from edgefl.delta import lattice
from edgefl.errors import Refused, ServerNonsense
from edgefl.runtime.held import HeldVersion
from edgefl.runtime.remote import Remote
from edgefl.runtime.transport import LoopbackTransport, Response
from edgefl.tensorfile import read_metadata, read_tensors, write_tensors
from edgefl.wire import Failure, Task, Training

pytestmark = pytest.mark.device

MODEL = Bundle.open(Path(__file__).parent.parent / "fixtures" / "mlp.edgefl")
SCHEMA = MODEL.schema()
START = SCHEMA.flatten({p.name: MODEL.parameters()[p.name] for p in SCHEMA.parameters})
VERSIONS = 10


def _history() -> tuple[list[np.ndarray], list[float]]:
    """Steps of very different units, the sum of which needs more than float32 in places."""
    random, steps, units = np.random.default_rng(4), [np.zeros(SCHEMA.size)], [1.0]
    for n in range(1, VERSIONS):
        units.append(2.0 ** -[3, 20, 9, 30][n % 4])
        whole = random.integers(-9000, 9000, SCHEMA.size) * (random.random(SCHEMA.size) < 0.4)
        steps.append(whole * units[-1])
    return steps, units


STEPS, UNITS = _history()
MOVED = np.cumsum(STEPS, axis=0)


def weights(version: int) -> np.ndarray:
    return lattice.weights(START, MOVED[version])


def body(first: int, last: int) -> bytes:
    """The sum of the steps after one version up to another."""
    moves, unit = MOVED[last] - MOVED[first], min(UNITS[first + 1 : last + 1])
    return lattice.encode_moves(moves, unit, schema_id=SCHEMA.id, base_version=first)


class FakeServer:
    """Answers `from` with what `ways` says: the versions at which the way is cut, or from the first on."""

    def __init__(self) -> None:
        self.cuts: set[int] = set()
        self.whole = False
        self.paths: list[str] = []
        self.damage = lambda path, body: body

    def __call__(self, method, path, request, headers) -> Response:
        self.paths.append(path)
        words = path.split("/")
        version = int(words[3])
        if "from" not in words:
            return Response(200, {}, self.damage(path, write_tensors(SCHEMA.unflatten(weights(version)))))
        held = 0 if self.whole else int(words[5])
        stops = [held, *sorted(cut for cut in self.cuts if held < cut < version), version]
        found = b"".join(body(a, b) for a, b in pairwise(stops))
        return Response(200, {}, self.damage(path, found))


def task(version: int, fingerprint: str | None = None) -> Task:
    found = lattice.fingerprint(weights(version)) if fingerprint is None else fingerprint
    return Task("a" * 32, version + 1, version, SCHEMA.id.hex(), Training(), 2, 1000, 60.0, found)


def fetch(device: HeldVersion, server: FakeServer, version: int) -> np.ndarray:
    return SCHEMA.flatten(device.fetch(Remote(LoopbackTransport(server)), task(version)))


def same(found: np.ndarray, version: int) -> None:
    np.testing.assert_array_equal(found.view(np.uint32), weights(version).view(np.uint32))


@given(
    st.lists(
        st.tuples(
            st.integers(0, VERSIONS - 1), st.sets(st.integers(1, VERSIONS)), st.booleans(), st.booleans()
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_path_the_bits_are_the_same(tmp_path_factory, visits):
    file, server = tmp_path_factory.mktemp("device") / "held", FakeServer()
    device = HeldVersion(file, MODEL)
    for version, server.cuts, server.whole, restarts in sorted(visits, key=lambda visit: visit[0]):
        same(fetch(device, server, version), version)
        if restarts:
            device = HeldVersion(file, MODEL)

    assert all("/from/" in path for path in server.paths)


def test_what_is_held_already_is_not_fetched(tmp_path):
    server, device = FakeServer(), HeldVersion(tmp_path / "held", MODEL)

    same(fetch(device, server, 0), 0)
    same(fetch(device, server, 3), 3)
    same(fetch(device, server, 3), 3)

    assert server.paths == ["/v1/parameters/3/from/0"]


def test_restart_goes_on_from_what_was_held(tmp_path):
    server = FakeServer()
    fetch(HeldVersion(tmp_path / "held", MODEL), server, 4)

    same(fetch(HeldVersion(tmp_path / "held", MODEL), server, 6), 6)

    assert server.paths[-1] == "/v1/parameters/6/from/4"


def test_other_model_starts_anew(tmp_path):
    server = FakeServer()
    fetch(HeldVersion(tmp_path / "held", MODEL), server, 4)
    other = MODEL.with_parameters(SCHEMA.unflatten(START * 2), 0)

    HeldVersion(tmp_path / "held", other).fetch(
        Remote(LoopbackTransport(server)),
        task(0, lattice.fingerprint(lattice.weights(START * 2, np.zeros(1)))),
    )

    assert server.paths == ["/v1/parameters/4/from/0"]


def test_wrong_position_on_disk_is_found_out(tmp_path):
    server, file = FakeServer(), tmp_path / "held"
    fetch(HeldVersion(file, MODEL), server, 4)
    data = file.read_bytes()
    file.write_bytes(write_tensors({"moved": read_tensors(data)["moved"] + 1}, read_metadata(data)))

    same(fetch(HeldVersion(file, MODEL), server, 5), 5)

    assert server.paths[-2:] == ["/v1/parameters/5/from/4", "/v1/parameters/5/from/0"]
    same(fetch(HeldVersion(file, MODEL), server, 6), 6)
    assert server.paths[-1] == "/v1/parameters/6/from/5"


def test_whole_parameters_are_the_last_resort(tmp_path):
    server, device = FakeServer(), HeldVersion(tmp_path / "held", MODEL)
    server.damage = lambda path, found: body(0, 2) if "from" in path else found

    same(fetch(device, server, 5), 5)

    assert server.paths[-1] == "/v1/parameters/5"


def test_server_without_the_way_is_asked_for_the_whole(tmp_path):
    server = FakeServer()

    def refuse(method, path, request, headers) -> Response:
        if "from" in path:
            return Response(404, {}, Failure("unknown-version", "gone").to_bytes())
        return server(method, path, request, headers)

    found = HeldVersion(tmp_path / "held", MODEL).fetch(Remote(LoopbackTransport(refuse)), task(5))

    same(SCHEMA.flatten(found), 5)


def test_task_without_a_fingerprint_fetches_whole(tmp_path):
    server, device = FakeServer(), HeldVersion(tmp_path / "held", MODEL)

    device.fetch(Remote(LoopbackTransport(server)), task(5, ""))

    assert server.paths == ["/v1/parameters/5"] and not (tmp_path / "held").exists()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"EFLU",
        body(0, 5)[:-1],
        body(0, 5) + b"\0",
        body(0, 5)[:40] + b"\xff" + body(0, 5)[41:],
        lattice.encode_moves(MOVED[5], min(UNITS), schema_id=b"12345678", base_version=0),
        lattice.encode_moves(MOVED[5], min(UNITS), schema_id=SCHEMA.id, base_version=5),
        lattice.encode_moves(np.ones(SCHEMA.size + 1), 1.0, schema_id=SCHEMA.id, base_version=0),
    ],
    ids=["empty", "short", "truncated", "trailing", "damaged", "schema", "from the future", "larger"],
)
def test_nonsense_is_worth_a_retry_and_changes_nothing(tmp_path, answer):
    server, device = FakeServer(), HeldVersion(tmp_path / "held", MODEL)
    fetch(device, server, 2)
    before = (tmp_path / "held").read_bytes()
    server.damage = lambda path, body: answer

    with pytest.raises(ServerNonsense):
        fetch(device, server, 5)

    assert (tmp_path / "held").read_bytes() == before
    server.damage = lambda path, body: body
    same(fetch(device, server, 5), 5)


def test_parameters_that_are_not_the_task_s_are_refused(tmp_path):
    server, device = FakeServer(), HeldVersion(tmp_path / "held", MODEL)

    with pytest.raises(ServerNonsense, match="not the task's"):
        device.fetch(Remote(LoopbackTransport(server)), task(5, "0" * 32))


def test_refusal_of_the_whole_ends_the_round(tmp_path):
    def refuse(method, path, request, headers) -> Response:
        return Response(404, {}, Failure("unknown-version", "gone").to_bytes())

    with pytest.raises(Refused):
        HeldVersion(tmp_path / "held", MODEL).fetch(Remote(LoopbackTransport(refuse)), task(5))
