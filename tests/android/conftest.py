# SPDX-License-Identifier: Apache-2.0
"""The Android bridge's own classes on a JVM, with this Python and its engines behind them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.android.host import Host, sources, started
from tests.host.conftest import servers

BRIDGE = Path(__file__).parents[2] / "android_bridge"
NEVER_ON_A_JVM = "KeystoreCipher.java"
"""Android's keystore has no double: what it would answer, only a phone can."""


def javac(out: Path, files: list[str], *path: Path) -> None:
    """Compile as strictly as the compiler can; a warning is an error."""
    command = [
        "javac",
        "--release",
        "8",
        "-Xlint:all,-options",
        "-Werror",
        "-encoding",
        "UTF-8",
        "-d",
        str(out),
    ]
    if path:
        command += ["-cp", ":".join(map(str, path))]
    done = subprocess.run([*command, *files], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `compiled`."""
    return compiled(tmp_path_factory.mktemp("classes"))


def compiled(out: Path) -> Path:
    """The bridge, its doubles and the tests' own classes in a folder; skips where there is no compiler."""
    if shutil.which("javac") is None:
        pytest.skip("no javac here: scripts/android.sh installs one on Debian")
    javac(out, sources(BRIDGE / "host" / "java"))
    main = [file for file in sources(BRIDGE / "src" / "main") if not file.endswith(NEVER_ON_A_JVM)]
    javac(out, main, out)
    javac(out, sources(Path(__file__).parent / "java"), out)
    return out


@pytest.fixture(scope="session")
def jvm(classes: Path) -> Iterator[Any]:
    """`jpype` with the JVM running; it can run once per process, so it is never shut down."""
    jpype = pytest.importorskip("jpype")
    if not jpype.isJVMStarted():
        jpype.startJVM("-Xmx512m", classpath=[str(classes)], convertStrings=False)
    yield jpype


@pytest.fixture(scope="session")
def host(jvm: Any) -> Host:
    """The Python behind the doubles, in place."""
    return started(jvm)


@pytest.fixture(scope="session")
def dev(jvm: Any, host: Host) -> Any:
    """The package dev.edgefl."""
    return jvm.JPackage("dev").edgefl


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """See tests/host."""
    yield from servers(tmp_path_factory)
