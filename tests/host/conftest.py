# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.conftest import Server


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A function that starts a server process with given settings, each with a folder of its own."""
    yield from servers(tmp_path_factory)


def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The same for other folders of tests."""
    running: list[Server] = []

    def start(**options: Any) -> Server:
        fixed = {"long_poll_s": 0.2, "retry_after_s": 0.05, "downlink": 0.0}
        running.append(Server(tmp_path_factory.mktemp("server"), {**fixed, **options}))
        return running[-1].start()

    yield start
    for one in running:
        one.stop()
