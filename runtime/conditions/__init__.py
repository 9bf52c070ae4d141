# SPDX-License-Identifier: Apache-2.0
"""When a device may train: what its owner and the server ask for, against what the device reads of itself."""

from __future__ import annotations

import sys
from pathlib import Path

from edgefl.runtime.conditions.guard import Guard
from edgefl.runtime.conditions.policy import Past, Reason, eligible
from edgefl.runtime.conditions.readings import Conditions, Readings, Scripted

__all__ = ["Conditions", "Guard", "Past", "Readings", "Reason", "Scripted", "conditions_here", "eligible"]


def conditions_here(folder: Path) -> Conditions:
    """What reads the state of this machine; where that is not known, nothing can be read.

    Args:
        folder: the client's, whose disk has to have room.
    """
    if sys.platform == "linux":
        from edgefl.runtime.conditions.linux import LinuxConditions

        return LinuxConditions(folder)
    return Scripted()
