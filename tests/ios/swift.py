# SPDX-License-Identifier: Apache-2.0
"""Swift in its folder, and the package built there once for everyone who asks."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ios_bridge"
SCRATCH = "var/tmp/edgefl-ios"
"""Where the package is built, below Swift's own folder."""


def swift(*command: str, **variables: str) -> list[str]:
    """The command line that runs a command where Swift is."""
    assigned = (f"{name}={value}" for name, value in variables.items())
    return [str(ROOT / "scripts" / "swift.sh"), "env", "EDGEFL_ROOT=/edgefl", *assigned, *command]


def own_tests(*options: str, **variables: str) -> list[str]:
    """The same for the package's own tests, while it is `built`."""
    place = ("--package-path", "ios_bridge", "--scratch-path", f"/{SCRATCH}")
    return swift("swift", "test", "--skip-build", *place, *options, **variables)


@contextmanager
def built() -> Iterator[None]:
    """The package is built without a warning, and stays so until the end; skips where there is no Swift.

    Test processes share one build. Those of other checkouts wait until nobody uses it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgefl" / "swift"
    folder = Path(os.environ.get("EDGEFL_SWIFT", cache))
    if not (folder / ".ready").exists():
        pytest.skip("no Swift here yet: scripts/swift.sh fetches it, as root, once")
    scratch, wanted = folder / SCRATCH, _digest()
    stamp = scratch / "edgefl-sources"
    with (folder / f"{SCRATCH}.lock").open("w") as lock:
        while True:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (stamp.exists() and stamp.read_text() == wanted):
                shutil.rmtree(scratch, ignore_errors=True)
                _build()
                stamp.write_text(wanted)
            # Between the two locks another checkout may have built: then this one builds again.
            fcntl.flock(lock, fcntl.LOCK_SH)
            if stamp.exists() and stamp.read_text() == wanted:
                break
        yield


def _build() -> None:
    command = swift(
        "swift", "build", "--build-tests", "--package-path", "ios_bridge", "--scratch-path", f"/{SCRATCH}"
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode == 2 and done.stderr.startswith("no Swift here"):
        pytest.skip(done.stderr.strip())
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    own = [line for line in said.splitlines() if "/ios_bridge/" in line]
    assert not [line for line in own if re.search(r"\b(error|warning):", line)], "\n".join(own)


def _digest() -> str:
    """Of every file the build reads."""
    found = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*")):
        if file.is_file() and file.suffix != ".md" and ".build" not in file.parts:
            found.update(f"{file.relative_to(PACKAGE)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return found.hexdigest()
