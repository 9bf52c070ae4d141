# SPDX-License-Identifier: Apache-2.0
"""How often someone may ask: token buckets, of which only so many are kept."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

MOST = 50_000


class Buckets:
    """A bucket per name. Each fills at a rate up to its size and starts full."""

    def __init__(self, rate: float, size: float, most: int = MOST) -> None:
        """
        Args:
            rate: requests a second; 0 lets everything pass.
            size: requests at once.
            most: names to remember. Those longest unseen are forgotten first, and are full when they return.
        """
        self._rate, self._size, self._most = rate, size, most
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, at: float) -> float:
        """Take one request's worth; the seconds until there is one, 0 where there was.

        Args:
            at: seconds on a clock that only runs forward.
        """
        if not self._rate:
            return 0.0
        level, since = self._levels.pop(name, (self._size, at))
        level = min(self._size, level + (at - since) * self._rate)
        enough = level >= 1.0
        self._levels[name] = (level - 1.0 if enough else level, at)
        if len(self._levels) > self._most:
            self._levels.popitem(last=False)
        return 0.0 if enough else (1.0 - level) / self._rate

    def give_back(self, name: str) -> None:
        """Undo a `take`."""
        if name in self._levels:
            level, since = self._levels[name]
            self._levels[name] = (min(self._size, level + 1.0), since)

    def __len__(self) -> int:
        return len(self._levels)


def network_of(address: str) -> str:
    """What an address counts as: itself, or of IPv6 its /64, which one machine may have all of."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
