# SPDX-License-Identifier: Apache-2.0
"""What a device installs: a wheel and one file, beside NumPy and nothing else."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.cli.test_federation import start

ROOT = Path(__file__).parents[2]
FOREIGN = (
    "edgefl/cli",
    "edgefl/simulation",
    "edgefl/privacy",
    "edgefl/converters",
    "edgefl/server_stub",
    "benchmarks",
    "tests",
)
needs_server = pytest.mark.skipif(
    importlib.util.find_spec("uvicorn") is None, reason="the server's packages are not installed"
)


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("device_distribution", ROOT / "scripts" / "device.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD = builder()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with NumPy and nothing else, as a folder."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    home = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (home / name).exists():
            (packages(folder) / name).symlink_to(home / name)
    return folder


@pytest.fixture(scope="module")
def installed(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the device's wheel."""
    name, data = BUILD.wheel()
    wheel = tmp_path_factory.mktemp("dist") / name
    wheel.write_bytes(data)
    command = [sys.executable, "-m", "pip", "--python", bare / "bin" / "python", "install", "--no-index"]
    subprocess.run([*command, "--no-deps", "--quiet", wheel], check=True)
    return bare


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pyz") / "edgefl-device.pyz"
    file.write_bytes(BUILD.pyz())
    return file


@pytest.fixture
def server(mlp: Path, tmp_path: Path) -> Iterator[str]:
    """The URL of a server with two rounds of one device."""
    port = tmp_path / "port"
    options = ("--port", 0, "--port-file", port, "--rounds", 2, "--goal", 1, "--density", 0.1)
    process = start(tmp_path, "serve", mlp, *options)
    while not port.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    yield f"http://127.0.0.1:{int(port.read_text())}"
    process.kill()
    process.communicate()


def packages(folder: Path) -> Path:
    return next(folder.glob("lib/python*/site-packages"))


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """In an environment without this one's paths."""
    words = list(map(str, command))
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, env={"PATH": "/usr/bin:/bin"})


def reports(done: subprocess.CompletedProcess[str]) -> list[Any]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.device
def test_the_file_is_small_and_holds_what_a_device_runs(pyz: Path) -> None:
    names = zipfile.ZipFile(pyz).namelist()

    assert pyz.stat().st_size < 300_000
    assert [name for name in names if name.startswith(FOREIGN)] == []
    assert {"__main__.py", "edgefl/runtime/client.py", "edgefl/runtime/backends/numpy.py"} <= set(names)


@pytest.mark.device
def test_the_wheel_has_every_module_of_its_packages(tmp_path: Path) -> None:
    name, data = BUILD.wheel()
    (tmp_path / name).write_bytes(data)
    files = zipfile.ZipFile(tmp_path / name).namelist()

    assert [file for file in files if file.startswith(FOREIGN)] == []
    for top, folder in (("edgefl", ROOT / "edgefl"), ("edgefl/runtime", ROOT / "runtime")):
        found = {f"{top}/{path.name}" for path in folder.glob("*.py")}
        assert found <= set(files)


@pytest.mark.device
def test_the_same_tree_gives_the_same_bytes() -> None:
    assert BUILD.pyz() == BUILD.pyz() and BUILD.wheel() == BUILD.wheel()


SOURCE = """'''Doc
# no comment
'''
from __future__ import annotations

# why
X = '''
# text
'''
'''of X'''
class A:
    '''Doc.'''

    def f(self):
        '''Doc
        more'''

    def g(self): ...
"""


@pytest.mark.device
def test_what_is_left_out_of_the_file_is_for_readers_only() -> None:
    """Lines keep their numbers, so that a traceback names the right one."""
    source = SOURCE.encode()

    bare = BUILD.bare(source)

    assert bare.count(b"\n") == source.count(b"\n")
    names: dict[str, Any] = {}
    exec(compile(bare, "bare", "exec"), names)
    assert names["X"] == "\n# text\n" and names["A"]().f() is None and names["A"].__doc__ is None
    assert b"Doc" not in bare and b"why" not in bare


@needs_server
def test_a_round_with_one_file(bare: Path, pyz: Path, server: str, data: Path, tmp_path: Path) -> None:
    python = bare / "bin" / "python"

    done = run(python, "-I", pyz, "-s", server, "-d", data, "--workdir", "w", "--json", cwd=tmp_path)
    status = run(python, "-I", pyz, "device", "--status", "--workdir", "w", "--json", cwd=tmp_path)

    assert [(r["round"], r["accepted"]) for r in reports(done)] == [(1, True), (2, True)]
    assert json.loads(status.stdout)["accepted"] == 2


@needs_server
def test_a_round_with_the_wheel(installed: Path, server: str, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        f'[device]\nserver = "{server}"\ndata = "{data}"\nworkdir = "w"\n[limits]\nmax_steps = 2\n'
    )
    command = (installed / "bin" / "edgefl", "device", "--config", file)

    done = run(*command, "--json", "--max-rounds", 1, cwd=tmp_path)
    shown = run(*command, cwd=tmp_path)
    history = run(*command, "--history", cwd=tmp_path)

    assert [(r["round"], r["accepted"]) for r in reports(done)] == [(1, True)]
    assert re.search(r"^step on .*\nround 2 +loss .* accepted$", shown.stdout, re.M)
    assert [line.split()[2:4] for line in history.stdout.splitlines()] == [["round", "1"], ["round", "2"]]


def test_what_the_wheel_is_without_is_said(installed: Path, tmp_path: Path) -> None:
    python = installed / "bin" / "python"

    tried = run(python, "-I", "-c", "import edgefl; edgefl.convert", cwd=tmp_path)
    module = run(python, "-I", "-m", "edgefl", "device", "--status", "--json", cwd=tmp_path)
    engine = run(python, "-I", "-c", "import edgefl.runtime as r; print(r.Trainer, r.pull)", cwd=tmp_path)

    assert "edgefl.convert, which a device does without, needs the package 'edgefl-train'" in tried.stderr
    assert json.loads(module.stdout)["error"] == "OptionError"
    assert engine.returncode == 0, engine.stderr


@pytest.mark.device
def test_wrong_usage_of_the_plain_command(pyz: Path, tmp_path: Path) -> None:
    def plain(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run(sys.executable, pyz, *arguments, cwd=tmp_path)

    (tmp_path / "run.toml").write_text("[limits]\nduty = 0\n")
    out_of_range, unknown = plain("--battery", "400"), plain("--bat", "4")
    in_file, nothing = plain("--config", "run.toml"), plain("--max-payload", "many")

    assert out_of_range.returncode == unknown.returncode == nothing.returncode == 2
    assert "--battery: 400, allowed is an integer from 0 to 100" in out_of_range.stderr
    assert "20kB" in nothing.stderr
    assert in_file.returncode == 1 and in_file.stderr.startswith(
        "error (OptionError) limits.duty = 0 in run.toml"
    )


@pytest.mark.device
def test_both_command_lines_have_the_same_options(pyz: Path, call: Any, tmp_path: Path) -> None:
    plain = run(sys.executable, pyz, "--help", cwd=tmp_path).stdout
    rich = call("device", "--help", columns=200).out

    def flags(text: str) -> set[str]:
        return {f for f in re.findall(r"--[a-z][a-z-]*", text) if not f.startswith("--no-")}

    assert flags(plain) - {"--version"} == flags(rich)
