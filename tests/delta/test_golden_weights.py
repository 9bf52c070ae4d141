# SPDX-License-Identifier: Apache-2.0
"""Devices hold the same bits on every machine: golden steps and weights, here and on emulated ARM."""

from __future__ import annotations

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
def test_arm_decodes_to_the_same_bits(tmp_path: Path) -> None:
    ran = subprocess.run(
        [str(ROOT / "scripts" / "aarch64.sh"), str(tmp_path)], capture_output=True, text=True
    )

    if ran.returncode == 2:
        pytest.skip(ran.stderr.strip().splitlines()[-1])
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert ran.stdout.count("every bit is the same") == 4
