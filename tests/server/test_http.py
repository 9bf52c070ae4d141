# SPDX-License-Identifier: Apache-2.0
"""A real server process over real HTTP and SQLite: whole rounds, refusals, caching, bytes."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.delta import encode
from edgefl.errors import Refused, ServerUnreachable
from edgefl.runtime.transport import HttpTransport
from edgefl.server_stub import aggregate
from edgefl.wire import CheckIn, CheckInAnswer, Failure


def reason_of(answer) -> str:
    return Failure.from_bytes(answer.body).reason


def test_two_devices_make_the_version_that_aggregate_makes(serve, bundle, make_frame, hello):
    server = serve()
    remote = server.remote()
    tasks = [remote.check_in(hello("a", 10)).task, remote.check_in(hello("b", 30)).task]
    frames = [make_frame(1), make_frame(2)]

    for task, frame in zip(tasks, frames, strict=True):
        remote.upload(task.round, task.assignment, frame)
    server.wait_for_version(1)

    schema = bundle.schema()
    expected = schema.flatten(aggregate(bundle, frames, [10, 30]).parameters())
    np.testing.assert_array_equal(schema.flatten(remote.parameters(1, schema)), expected)


def test_rounds_follow_one_another_until_all_are_done(serve, make_frame, hello):
    server = serve(rounds=2, goal=1)
    remote = server.remote()

    for version in range(2):
        task = remote.check_in(hello("a")).task
        assert (task.round, task.base_version) == (version + 1, version)
        remote.upload(task.round, task.assignment, make_frame(version, version))
        server.wait_for_version(version + 1)

    answer = remote.check_in(hello("a"))
    assert answer.finished and answer.task is None
    assert [r.state for r in server.rounds().rounds] == ["closed", "closed"]
    assert server.status().finished


def test_seed_counts_up_with_the_rounds(serve, make_frame, hello):
    server = serve(goal=1, training={"seed": 40, "epochs": 3, "mode": "ternary"})
    remote = server.remote()

    first = remote.check_in(hello("a")).task
    remote.upload(1, first.assignment, make_frame(1))
    server.wait_for_version(1)
    second = remote.check_in(hello("a")).task

    assert (first.training.fit.seed, second.training.fit.seed) == (40, 41)
    assert second.training.fit.epochs == 3 and second.training.coding.mode == "ternary"


def test_asking_again_gives_the_same_task(serve, hello):
    remote = serve().remote()

    assert remote.check_in(hello("a")).task.assignment == remote.check_in(hello("a")).task.assignment


def test_same_bytes_again_are_acknowledged_and_count_once(serve, make_frame, hello):
    server = serve(goal=1)
    remote = server.remote()
    task = remote.check_in(hello("a")).task

    first = remote.upload(1, task.assignment, make_frame(1))
    second = remote.upload(1, task.assignment, make_frame(1))
    server.wait_for_version(1)
    third = remote.upload(1, task.assignment, make_frame(1))

    assert (first.duplicate, second.duplicate, third.duplicate) == (False, True, True)
    assert server.rounds().rounds[0].updates == 1


def refused(call, *arguments) -> str:
    with pytest.raises(Refused) as failure:
        call(*arguments)
    return failure.value.reason


def test_refusals_name_their_reason_and_leave_the_round_unharmed(serve, bundle, make_frame, hello):
    server = serve(goal=2, max_norm=1000.0)
    remote = server.remote()
    a, b = remote.check_in(hello("a")).task, remote.check_in(hello("b")).task
    good, name = make_frame(1), a.assignment
    huge = make_frame(1, density=1.0)
    loud = _loud_frame(bundle)

    assert refused(remote.upload, 7, name, good) == "unknown-round"
    assert refused(remote.upload, 1, "f" * 32, good) == "unknown-assignment"
    assert refused(remote.upload, 1, name, make_frame(1, version=5)) == "stale-version"
    assert refused(remote.upload, 1, name, make_frame(1, schema_id=b"12345678")) == "wrong-schema"
    assert refused(remote.upload, 1, name, b"EFLU" + bytes(100)) == "malformed-frame"
    assert refused(remote.upload, 1, name, b"") == "malformed-frame"
    assert refused(remote.upload, 1, name, good[:-1]) == "malformed-frame"
    assert refused(remote.upload, 1, name, huge) == "too-large"
    assert refused(remote.upload, 1, name, loud) == "norm-exceeded"
    remote.upload(1, name, good)
    assert refused(remote.upload, 1, name, make_frame(2)) == "already-sent-different"

    remote.upload(1, b.assignment, make_frame(3))
    server.wait_for_version(1)
    assert refused(remote.upload, 1, "f" * 32, good) == "unknown-assignment"
    assert server.rounds().rounds[0].updates == 2


def _loud_frame(bundle) -> bytes:
    schema = bundle.schema()
    vector = np.zeros(schema.size, np.float32)
    vector[3] = 1e30
    return encode(vector, schema_id=schema.id, base_version=0, k=1).frame


def test_late_update_is_refused_as_closed(serve, make_frame, hello):
    server = serve(goal=1, surplus=1.0)
    remote = server.remote()
    a, b = remote.check_in(hello("a")).task, remote.check_in(hello("b")).task
    remote.upload(1, a.assignment, make_frame(1))
    server.wait_for_version(1)

    assert refused(remote.upload, 1, b.assignment, make_frame(2)) == "round-closed"


def test_device_with_another_schema_is_refused(serve):
    assert refused(serve().remote().check_in, CheckIn("a", "0" * 16, "test", 1)) == "wrong-schema"


def test_declined_place_is_not_offered_again(serve, hello):
    server = serve(goal=2)
    remote = server.remote()
    task = remote.check_in(hello("a")).task

    remote.decline(task.round, task.assignment, "NaN in the loss")

    assert remote.check_in(hello("a")).task is None
    assert server.rounds().rounds[0].declined == 1


@pytest.mark.parametrize("declared", [True, False])
def test_body_over_the_limit_is_refused_before_it_is_read(serve, hello, declared):
    server = serve(max_update_bytes=2000)
    task = server.remote().check_in(hello("a")).task
    assert task.max_bytes == 2000
    path = f"/v1/rounds/1/updates/{task.assignment}"

    answer = _send_slowly(server.port, path, declared)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"reason":"too-large"' in answer


def _send_slowly(port: int, path: str, declared: bool) -> bytes:
    """Announce or begin a large body, and read what the server says before the rest of it."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        how = "content-length: 1000000000" if declared else "transfer-encoding: chunked"
        sock.sendall(f"PUT {path} HTTP/1.1\r\nhost: a\r\n{how}\r\n\r\n".encode())
        if not declared:
            sock.sendall(b"".join(b"400\r\n" + bytes(1024) + b"\r\n" for _ in range(3)))
        answer = b""
        while b"}" not in answer:
            answer += sock.recv(65536)
        return answer


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("POST", "/v1/check-in", b"nonsense", 400, "malformed-request"),
        ("POST", "/v1/check-in", b'{"device": "a"}', 400, "malformed-request"),
        ("POST", "/v1/check-in", b" " * 70000, 413, "too-large"),
        ("GET", "/v1/parameters/99", b"", 404, "unknown-version"),
        ("GET", "/v1/parameters/new", b"", 400, "malformed-request"),
        ("GET", "/v1/parameters/99/from/0", b"", 404, "unknown-version"),
        ("GET", "/v1/parameters/0/from/0", b"", 404, "unknown-version"),
        ("GET", "/v1/parameters/1/from/-1", b"", 400, "malformed-request"),
        ("GET", "/v1/weights/99", b"", 404, "unknown-version"),
        ("GET", "/v1/control/99", b"", 404, "unknown-version"),
        ("GET", "/v1/weights/0?form=int4", b"", 400, "malformed-request"),
        ("GET", "/v1/bundle?target=toaster", b"", 404, "unknown-target"),
        ("PUT", "/v1/rounds/0/updates/" + "0" * 32, b"", 400, "malformed-request"),
        ("PUT", "/v1/rounds/1/updates/short", b"", 400, "malformed-request"),
        ("PUT", "/v1/rounds/1/declines/" + "0" * 32, b'{"reason": ""}', 404, "unknown-assignment"),
        ("GET", "/v1/rounds/1", b"", 404, "unknown-path"),
        ("DELETE", "/v1/rounds", b"", 405, "wrong-method"),
    ],
)
def test_bad_requests_get_a_reason(shared, method, path, body, status, reason):
    answer = shared.transport().request(method, path, body, limit=1 << 20)

    assert (answer.status, reason_of(answer)) == (status, reason)


def test_bundle_is_cut_to_the_target_and_downloaded_once(shared, bundle):
    transport = shared.transport()

    first = transport.request("GET", "/v1/bundle?target=onnx", limit=1 << 24)
    tag = first.headers["etag"]
    again = transport.request("GET", "/v1/bundle?target=onnx", headers={"if-none-match": tag}, limit=1 << 24)
    other = transport.request(
        "GET", "/v1/bundle?target=tflite", headers={"if-none-match": tag}, limit=1 << 24
    )

    assert Bundle.open(first.body).manifest.targets == ("onnx",)
    assert first.body == bundle.slice("onnx").to_bytes()
    assert (again.status, again.body) == (304, b"")
    assert other.status == 200


def test_parameters_have_a_tag_and_never_change(shared, bundle):
    transport = shared.transport()

    first = transport.request("GET", "/v1/parameters/0", limit=1 << 24)
    again = transport.request(
        "GET", "/v1/parameters/0", headers={"if-none-match": first.headers["etag"]}, limit=1 << 24
    )

    assert first.headers["cache-control"] == "no-cache"
    assert again.status == 304


def test_openapi_describes_every_route(shared):
    answer = shared.transport().request("GET", "/openapi.json", limit=1 << 20)
    paths = json.loads(answer.body)["paths"]

    assert set(paths) == {
        "/v1/enrol",
        "/v1/admin/tokens",
        "/v1/admin/devices",
        "/v1/admin/devices/{identity}/revoked",
        "/v1/check-in",
        "/v1/bundle",
        "/v1/parameters/{version}",
        "/v1/parameters/{version}/from/{held}",
        "/v1/weights/{version}",
        "/v1/control/{version}",
        "/v1/rounds/{round}/updates/{assignment}",
        "/v1/rounds/{round}/declines/{assignment}",
        "/v1/rounds/{round}/participants",
        "/v1/evaluations",
        "/v1/evaluations/{version}/{assignment}",
        "/v1/versions",
        "/v1/admin/versions/{version}/promoted",
        "/v1/admin/versions/{version}/pinned",
        "/v1/admin/versions/{version}/restored",
        "/v1/admin/hold",
        "/v1/status",
        "/v1/rounds",
    }
    body = paths["/v1/check-in"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["required"]) == {"device", "schema", "engine", "examples"}


def test_waiting_check_in_is_answered_as_soon_as_a_round_opens(serve, make_frame, hello):
    server = serve(goal=1, surplus=0.0, long_poll_s=60.0)
    remote = server.remote()
    task = remote.check_in(hello("a")).task
    waiting = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    waiting.request("POST", "/v1/check-in", hello("b").to_bytes())

    remote.upload(1, task.assignment, make_frame(1))
    answer = json.loads(waiting.getresponse().read())
    waiting.close()

    assert answer["task"]["round"] == 2


def test_deadline_closes_a_round_without_any_request(serve, make_frame, hello):
    server = serve(goal=2, minimum=1, deadline_s=1.0)
    remote = server.remote()
    task = remote.check_in(hello("a")).task
    remote.upload(1, task.assignment, make_frame(1))

    server.wait_for_version(1)

    assert server.rounds().rounds[0].updates == 1


def test_deadline_below_the_minimum_waits_on_and_keeps_what_it_has(serve, make_frame, hello):
    server = serve(goal=2, minimum=2, deadline_s=0.3)
    remote = server.remote()
    a = remote.check_in(hello("a")).task
    remote.upload(1, a.assignment, make_frame(1))
    until = time.monotonic() + 30
    while server.rounds().rounds[0].extensions == 0:
        assert time.monotonic() < until
        time.sleep(0.05)

    b = remote.check_in(hello("b")).task
    remote.upload(1, b.assignment, make_frame(2))
    server.wait_for_version(1)

    assert server.rounds().rounds[0].updates == 2


def test_every_byte_at_the_socket_is_counted(serve):
    server = serve()
    request = b"GET /v1/status HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    sent = received = 0
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
            sock.sendall(request)
            sent += len(request)
            answer = b"".join(iter(lambda s=sock: s.recv(65536), b""))
        # The counters in an answer were read before the answer itself was sent.
        status = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert (status["bytes_up"], status["bytes_down"]) == (sent, received)
        received += len(answer)


def test_bytes_are_attributed_to_rounds(serve, make_frame, hello):
    server = serve(goal=1, rounds=2)
    remote = server.remote()
    for version in range(2):
        task = remote.check_in(hello("a")).task
        remote.upload(task.round, task.assignment, make_frame(version, version))
        server.wait_for_version(version + 1)

    rounds = server.rounds().rounds
    status = server.status()

    assert all(r.bytes_up > r.frame_bytes > 0 and r.bytes_down > 0 for r in rounds)
    assert sum(r.bytes_up for r in rounds) <= status.bytes_up


def test_termination_lets_waiting_devices_go(serve, hello):
    server = serve(goal=1, surplus=0.0, long_poll_s=120.0)
    server.remote().check_in(hello("a"))
    waiting = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    waiting.request("POST", "/v1/check-in", hello("b").to_bytes())
    time.sleep(0.3)

    code = server.terminate()
    answer = CheckInAnswer.from_bytes(waiting.getresponse().read())
    waiting.close()

    assert answer.task is None and not answer.finished
    assert code in (0, -15)


def test_https_checks_the_certificate(serve, tls):
    server = serve(certificate=str(tls / "certificate.pem"), key=str(tls / "key.pem"))
    url = f"https://127.0.0.1:{server.port}"
    known = ssl.create_default_context(cafile=tls / "certificate.pem")

    with HttpTransport(url, context=known) as transport:
        assert transport.request("GET", "/v1/status", limit=1 << 16).status == 200
    with HttpTransport(url) as transport, pytest.raises(ServerUnreachable, match="certificate"):
        transport.request("GET", "/v1/status", limit=1 << 16)
