# SPDX-License-Identifier: Apache-2.0
"""The Swift package, built and tested by Swift itself, with CPython embedded and a real server."""

from __future__ import annotations

import plistlib
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefl.data import load_examples
from edgefl.runtime.client import DeviceClient
from tests.host.conftest import servers
from tests.host.doubles import fill
from tests.ios.swift import PACKAGE, built, own_tests, swift


@pytest.fixture
def package() -> Iterator[None]:
    """The package, built."""
    with built():
        yield


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """See tests/host."""
    yield from servers(tmp_path_factory)


def test_the_package_passes_its_own_tests_and_a_round(
    package: None, server: Callable[..., Any], tmp_path: Path
) -> None:
    """An iPhone's seam and an ordinary device meet in one round of one server."""
    running = server(rounds=1, goal=2, training={"epochs": 1, "lr": 0.1, "density": 0.5})
    fill(str(tmp_path), seed=9)
    client = DeviceClient(
        running.transport(), load_examples(tmp_path / "examples.npz"), tmp_path, backend="numpy"
    )
    reports = client.run()
    xctest = subprocess.Popen(
        own_tests(EDGEFL_SERVER=running.url), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert [report.accepted for report in reports] == [True]
    output, _ = xctest.communicate(timeout=900)
    assert xctest.returncode == 0, output
    assert re.search(r"Executed 15 tests, with 0 failures", output), output
    assert "skipped" not in output
    engines = {row.engine for row in running.remote().participants(1)}
    assert "host-numpy 1" in engines and len(engines) == 2


@pytest.mark.parametrize("system", ["iphone", "mac"])
def test_the_bridge_compiles_as_the_macs_job_compiles_it(package: None, system: str) -> None:
    """A Mac has neither UIKit nor background tasks, and there the sample is no part of it."""
    command = swift("sh", "tests/ios/typecheck.sh", system)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_lists_of_the_sample_are_property_lists() -> None:
    app = PACKAGE / "App"
    info = plistlib.loads((app / "Info.plist").read_bytes())
    (identifier,) = info["BGTaskSchedulerPermittedIdentifiers"]
    assert f'"{identifier}"' in (app / "ActivityTraining.swift").read_text()
    privacy = plistlib.loads((app / "PrivacyInfo.xcprivacy").read_bytes())
    assert privacy["NSPrivacyTracking"] is False
