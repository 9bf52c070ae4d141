# SPDX-License-Identifier: Apache-2.0
"""Devices hold the same bits on every machine: golden steps and weights, here and on an emulated aarch64."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHECK = ROOT / "tests" / "aarch64" / "check.py"


@pytest.mark.device
def test_this_machine_decodes_to_the_bits_of_every_other() -> None:
    ran = subprocess.run([sys.executable, str(CHECK)], capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.slow
def test_aarch64_decodes_to_the_same_bits(tmp_path: Path) -> None:
    for tool in ("qemu-aarch64-static", "apt-get", "dpkg-deb", "unzip"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: no emulated aarch64")

    ran = subprocess.run(
        [str(ROOT / "scripts" / "aarch64.sh"), str(tmp_path)], capture_output=True, text=True
    )

    if ran.returncode and "every bit" not in ran.stdout and _offline(ran.stderr):
        pytest.skip("Debian's arm64 packages or NumPy's aarch64 wheels cannot be downloaded here")
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert ran.stdout.count("every bit is the same") == 2


def _offline(text: str) -> bool:
    return "Temporary failure resolving" in text or "Failed to fetch" in text or "Connection" in text
