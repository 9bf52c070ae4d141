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
