# SPDX-License-Identifier: Apache-2.0
"""The Swift package, built and tested by Swift itself, with CPython embedded and a real server."""

from __future__ import annotations

import os
import plistlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefl.data import load_examples
from edgefl.runtime.client import DeviceClient
from tests.host.conftest import servers
from tests.host.doubles import fill

ROOT = Path(__file__).parents[2]


def swift(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command where Swift is; skips where it is not."""
    made = [str(ROOT / "scripts" / "swift.sh"), "env", *(f"{k}={v}" for k, v in variables.items()), *command]
    done = subprocess.run(made, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode == 2 and done.stderr.startswith("no Swift here"):
        pytest.skip(done.stderr.strip())
    return done


@pytest.fixture(scope="module")
def package() -> str:
    """The folder, inside, where the package is built; warnings are looked at too."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgefl" / "swift"
    folder = Path(os.environ.get("EDGEFL_SWIFT", cache))
    if not (folder / ".ready").exists():
        pytest.skip("no Swift here yet: scripts/swift.sh fetches it, as root, once")
    scratch = "/var/tmp/edgefl-ios"
    shutil.rmtree(folder / scratch.lstrip("/"), ignore_errors=True)
    done = swift("swift", "build", "--build-tests", "--package-path", "ios_bridge", "--scratch-path", scratch)
    assert done.returncode == 0, done.stdout + done.stderr
    own = [line for line in (done.stdout + done.stderr).splitlines() if "/ios_bridge/" in line]
    assert not [line for line in own if re.search(r"\b(error|warning):", line)], "\n".join(own)
    return scratch


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """See tests/host."""
    yield from servers(tmp_path_factory)


def test_the_package_passes_its_own_tests_and_a_round(
    package: str, server: Callable[..., Any], tmp_path: Path
) -> None:
    """An iPhone's seam and an ordinary device meet in one round of one server."""
    running = server(rounds=1, goal=2, training={"epochs": 1, "lr": 0.1, "density": 0.5})
    fill(str(tmp_path), seed=9)
    client = DeviceClient(
        running.transport(), load_examples(tmp_path / "examples.npz"), tmp_path, backend="numpy"
    )
    reports = client.run()
    tests = subprocess.Popen(
        [str(ROOT / "scripts" / "swift.sh"), "env", "EDGEFL_ROOT=/edgefl", f"EDGEFL_SERVER={running.url}",
         "swift", "test", "--skip-build", "--package-path", "ios_bridge", "--scratch-path", package],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert [report.accepted for report in reports] == [True]
    output, _ = tests.communicate(timeout=900)
    assert tests.returncode == 0, output
    assert re.search(r"Executed 12 tests, with 0 failures", output), output
    assert "skipped" not in output
    engines = {row.engine for row in running.remote().participants(1)}
    assert "host-numpy 1" in engines and len(engines) == 2


def test_the_lists_of_the_sample_are_property_lists() -> None:
    app = ROOT / "ios_bridge" / "App"
    info = plistlib.loads((app / "Info.plist").read_bytes())
    (identifier,) = info["BGTaskSchedulerPermittedIdentifiers"]
    assert f'"{identifier}"' in (app / "ActivityTraining.swift").read_text()
    privacy = plistlib.loads((app / "PrivacyInfo.xcprivacy").read_bytes())
    assert privacy["NSPrivacyTracking"] is False
