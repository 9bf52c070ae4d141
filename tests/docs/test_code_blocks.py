# SPDX-License-Identifier: Apache-2.0
"""Every code block of the README and docs runs, in order, in one empty folder per document.

`bash` and `python` blocks are executed; a `make` line is checked with `make -n` in the repository, since
running the test suite inside the test suite would not end. Blocks of output are marked `text`.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md"))]
RUNNABLE = ("bash", "python")
QUIET = ("text", "json", "")
PORT = "8017"
"""The server's in the documents; each run takes a free one, since two may run on one machine."""


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    code: str


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    return [Block(text[: m.start()].count("\n") + 1, m[1], m[2]) for m in found]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_says_what_it_is(document: str) -> None:
    strange = [b for b in blocks(document) if b.language not in (*RUNNABLE, *QUIET)]

    assert strange == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_runs(document: str, tmp_path: Path) -> None:
    port = str(free_port())
    for block in blocks(document):
        if block.language not in RUNNABLE:
            continue
        done = run(replace(block, code=re.sub(rf"\b{PORT}\b", port, block.code)), tmp_path)
        assert done.returncode == 0, f"{document}:{block.line}\n{block.code}\n{done.stdout}\n{done.stderr}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONWARNINGS": "ignore", "EDGEFL_ROOT": str(ROOT)}
    if block.language == "python":
        command = [sys.executable, "-c", block.code]
    elif all(line.startswith(("make ", "#")) for line in block.code.splitlines() if line.strip()):
        command = ["bash", "-euc", re.sub(r"^make ", f"make -n -C {ROOT} ", block.code, flags=re.M)]
    else:
        command = ["bash", "-euc", block.code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
