# SPDX-License-Identifier: Apache-2.0
"""An app's view of its phone, as the conditions every device is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

from edgefl.errors import DataError, ProtocolError
from edgefl.message import Message
from edgefl.rules import flag, integer, number, one_of, optional
from edgefl.runtime.conditions import Readings

HOT = {
    # PowerManager's thermal statuses; from `moderate` on Android throttles.
    "none": False,
    "light": False,
    "moderate": True,
    "severe": True,
    "critical": True,
    "emergency": True,
    "shutdown": True,
    # ProcessInfo's; from `serious` on iOS does. Its `critical` is Android's too.
    "nominal": False,
    "fair": False,
    "serious": True,
}
"""Whether a phone that says so slows itself down for heat."""

_BYTES = integer(0, 1 << 50)


class HostDevice(Protocol):
    """What an app implements. Results may be of its language's own types; `str` and `bool` are applied."""

    def reading(self) -> str:
        """JSON with whatever can be read, see `Reading`."""
        ...

    def stopped(self) -> bool:
        """Whether training must stop now."""
        ...

    def notify(self, event: str) -> None:
        """Told what happens, as JSON with an `event`."""
        ...


@dataclass(frozen=True)
class Reading(Message):
    """The state of a phone as its system says it; None is what cannot be read.

    Attributes:
        charging: external power.
        battery: percent.
        metered: somebody pays for the network by the byte, or asked for little traffic.
        power_save: the user asked the system to save power.
        thermal: one of `HOT`.
        free_storage, free_memory: bytes.
    """

    charging: Annotated[bool | None, optional(flag)] = None
    battery: Annotated[float | None, optional(number(0.0, 100.0))] = None
    metered: Annotated[bool | None, optional(flag)] = None
    power_save: Annotated[bool | None, optional(flag)] = None
    thermal: Annotated[str | None, optional(one_of(*HOT))] = None
    free_storage: Annotated[int | None, optional(_BYTES)] = None
    free_memory: Annotated[int | None, optional(_BYTES)] = None


class HostConditions:
    """Readings by way of an app."""

    def __init__(self, device: HostDevice) -> None:
        self._device = device

    def read(self) -> Readings:
        """See `Conditions`; raises DataError where the app's answer is no reading."""
        try:
            said = Reading.from_bytes(str(self._device.reading()).encode())
        except ProtocolError as exc:
            raise DataError(f"the app gives no reading of its device: {exc}") from exc
        return Readings(
            charging=said.charging,
            battery=said.battery,
            metered=said.metered,
            power_save=said.power_save,
            hot=None if said.thermal is None else HOT[said.thermal],
            free_storage=said.free_storage,
            free_memory=said.free_memory,
        )
