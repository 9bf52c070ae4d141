# SPDX-License-Identifier: Apache-2.0
"""The systemd unit is one that systemd takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.device

UNIT = Path(__file__).parents[2] / "scripts" / "edgefl-device.service"


def setting(name: str) -> str:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.M)[0]


def test_it_is_no_root_and_everything_else_goes_first() -> None:
    assert setting("User") == "edgefl" and setting("NoNewPrivileges") == "yes"
    assert setting("CapabilityBoundingSet") == "" and setting("ProtectSystem") == "strict"
    assert int(setting("Nice")) >= 10 and setting("Restart") == "on-failure"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_it(tmp_path: Path) -> None:
    # The interpreter's place is the system's; what is checked is the unit.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/python3", "/bin/sh"))

    ran = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)

    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")
