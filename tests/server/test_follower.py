# SPDX-License-Identifier: Apache-2.0
"""Devices that only infer, against a real server."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.runtime.follower import Follower


@pytest.mark.parametrize("form", ["int8", "float16"])
def test_follower_has_the_newest_model_in_few_bytes(serve, bundle, make_frame, hello, tmp_path, form):
    server = serve(goal=1, rounds=3, downlink=0.03)
    follower = Follower(server.transport(), tmp_path / "follower", form=form, backend="numpy")
    assert follower.kept() is None
    first = follower.refresh()
    remote = server.remote()
    task = remote.check_in(hello("a")).task
    remote.upload(1, task.assignment, make_frame(1))
    server.wait_for_version(1)

    newest = follower.refresh()

    schema = bundle.schema()
    expected = schema.flatten(remote.parameters(1, schema))
    found = schema.flatten({p.name: newest.parameters()[p.name] for p in schema.parameters})
    assert (first.manifest.model_version, newest.manifest.model_version) == (0, 1)
    np.testing.assert_allclose(found, expected, atol=np.abs(expected).max() / 127)
    assert not np.array_equal(found, expected)
    before = server.status().bytes_down
    assert follower.refresh().to_bytes() == newest.to_bytes() == follower.kept().to_bytes()
    assert server.status().bytes_down - before < 3000


@pytest.mark.parametrize("path", ["/v1/parameters/1/from/0", "/v1/weights/1", "/v1/weights/1?form=float16"])
def test_what_is_made_once_has_a_tag_and_never_changes(serve, make_frame, hello, path):
    server = serve(goal=1, rounds=3, downlink=0.03)
    remote = server.remote()
    remote.upload(1, remote.check_in(hello("a")).task.assignment, make_frame(1))
    server.wait_for_version(1)
    transport = server.transport()

    first = transport.request("GET", path, limit=1 << 20)
    again = transport.request("GET", path, headers={"if-none-match": first.headers["etag"]}, limit=1 << 20)
    server.kill()
    server.start()
    later = server.transport().request("GET", path, limit=1 << 20)

    assert (first.status, again.status, later.status) == (200, 304, 200)
    assert first.headers["content-type"] == "application/vnd.edgefl.update"
    assert first.headers["cache-control"] == "no-cache"
    assert later.body == first.body and later.headers["etag"] == first.headers["etag"]
