# SPDX-License-Identifier: Apache-2.0
"""The trained model out of real servers, running, finished and started again; and from what is no server."""

from __future__ import annotations

import http.server
import threading

import numpy as np
import pytest

import edgefl
from edgefl.bundle import Bundle
from edgefl.delta import encode
from edgefl.errors import OptionError, Refused, ServerNonsense, ServerUnreachable
from edgefl.runtime.transport import LoopbackTransport, Response
from edgefl.tensorfile import read_tensors, write_tensors
from edgefl.wire import CheckIn
from tests.fixtures.small import small


def work(server, hello, make_frame, rounds):
    """Rounds of one device each."""
    remote = server.remote()
    for version in range(rounds):
        task = remote.check_in(hello("a")).task
        remote.upload(task.round, task.assignment, make_frame(version, version))
        server.wait_for_version(version + 1)
    return remote


@pytest.mark.parametrize("downlink", [0.0, 0.03], ids=["whole", "steps"])
def test_a_finished_server_hands_over_the_model(serve, bundle, make_frame, hello, downlink):
    server = serve(goal=1, rounds=2, downlink=downlink)
    remote = work(server, hello, make_frame, 2)
    assert server.status().finished

    pulled = edgefl.pull(server.url)

    assert pulled.manifest.model_version == 2
    assert pulled.manifest.targets == bundle.manifest.targets
    trained = remote.parameters(2, bundle.schema())
    assert any(not np.array_equal(trained[n], v) for n, v in bundle.parameters().items() if n in trained)
    for name, value in pulled.parameters().items():
        np.testing.assert_array_equal(value, trained[name])
    assert Bundle.open(pulled.to_bytes()).to_bytes() == pulled.to_bytes()


def test_versions_in_between_and_after_a_restart(serve, bundle, make_frame, hello):
    server = serve(goal=1, rounds=2)
    work(server, hello, make_frame, 1)
    running = edgefl.pull(server.url)
    server.kill()
    server.start()

    again, first = edgefl.pull(server.url), edgefl.pull(server.url, 0)

    assert running.to_bytes() == again.to_bytes() and again.manifest.model_version == 1
    assert first.manifest.model_version == 0
    for name, value in bundle.parameters().items():
        np.testing.assert_array_equal(first.parameters()[name], value)


def test_what_devices_keep_stays_as_it_was(serve, tmp_path):
    small().save(tmp_path / "small.edgefl")
    server = serve(bundle=str(tmp_path / "small.edgefl"), goal=1, rounds=1)
    remote, schema = server.remote(), small().schema()
    task = remote.check_in(CheckIn("a", schema.id.hex(), "test", 4)).task
    frame = encode(np.ones(schema.size, np.float32), schema_id=schema.id, base_version=0, k=1).frame
    remote.upload(1, task.assignment, frame)
    server.wait_for_version(1)

    before, after = small().parameters(), edgefl.pull(server.url).parameters()

    assert not np.array_equal(before.pop("w"), after.pop("w"))
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_a_version_there_is_not(shared):
    with pytest.raises(Refused, match=r"no version 7 of the parameters; there are 0 to 0"):
        edgefl.pull(shared.url, 7)
    with pytest.raises(OptionError, match="version -1"):
        edgefl.pull(shared.url, -1)


class Page(http.server.BaseHTTPRequestHandler):
    """A server that answers everything with a page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_: object) -> None:
        pass


def test_what_is_no_edgefl_server(shared):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(ServerNonsense, match="no edgefl server"):
            edgefl.pull(f"http://127.0.0.1:{other.server_port}")
        other.shutdown()
    with pytest.raises(ServerUnreachable, match="refused"):
        edgefl.pull("http://127.0.0.1:9")
    with pytest.raises(ServerNonsense, match="no edgefl server, or its URL"):
        edgefl.pull(f"{shared.url}/v1")
    with pytest.raises(OptionError, match="ftp"):
        edgefl.pull("ftp://example.org")


def tampering(server, change):
    """A transport to a server, whose answers a function may change."""
    inner = server.transport()

    def handle(method, path, body, headers):
        return change(path, inner.request(method, path, body, headers, limit=1 << 24))

    return LoopbackTransport(handle)


def test_two_deployments_behind_one_url(shared, bundle):
    own = bundle.schema().id.hex()

    def other_rounds(path, answer):
        changed = answer.body.replace(own.encode(), b"0" * 16) if path == "/v1/status" else answer.body
        return Response(answer.status, answer.headers, changed)

    with pytest.raises(ServerNonsense, match="two deployments"):
        edgefl.pull(tampering(shared, other_rounds))


def test_parameters_that_are_not_those_of_their_tag(shared):
    def moved(path, answer):
        if not path.startswith("/v1/parameters/"):
            return answer
        values = {name: value + 1 for name, value in read_tensors(answer.body).items()}
        return Response(answer.status, answer.headers, write_tensors(values))

    with pytest.raises(ServerNonsense, match=r"version 0 .* entity tag"):
        edgefl.pull(tampering(shared, moved))
