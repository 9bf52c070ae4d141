# SPDX-License-Identifier: Apache-2.0
"""The state of a device as far as it matters to whether it may train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Readings:
    """What was read at one moment; None is what cannot be read here.

    Attributes:
        charging: external power, which a machine without a battery always has.
        battery: percent, 0 to 100; 100 without a battery.
        metered: somebody pays for the network by the byte.
        power_save: somebody asked the system to save power.
        busy: part of all processors' time that other work takes, 0 to 1.
        temperature: of the hottest part, degrees Celsius.
        hot: the system slows itself down for heat, or is about to.
        free_storage: bytes, where the client's folder lies.
        free_memory: bytes a process can have without others being swapped out.
    """

    charging: bool | None = None
    battery: float | None = None
    metered: bool | None = None
    power_save: bool | None = None
    busy: float | None = None
    temperature: float | None = None
    hot: bool | None = None
    free_storage: int | None = None
    free_memory: int | None = None


class Conditions(Protocol):
    """Where readings come from: a system, a phone's bridge, a script."""

    def read(self) -> Readings:
        """The state now. Asked between steps, so it takes a millisecond at most, or is kept for a while."""
        ...


class Scripted:
    """Readings as a script has them, one after another, the last one for ever."""

    def __init__(self, *script: Readings) -> None:
        self._script = list(script) or [Readings()]

    def read(self) -> Readings:
        return self._script.pop(0) if len(self._script) > 1 else self._script[0]

    def set(self, *script: Readings) -> None:
        """Go on with other readings."""
        self._script = list(script)
