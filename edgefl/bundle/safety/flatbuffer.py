# SPDX-License-Identifier: Apache-2.0
"""As much of FlatBuffers as it takes to look into a file without trust: tables, vectors, numbers, strings.

Follows https://flatbuffers.dev/internals. Every offset is checked against the file before it is followed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from edgefl.errors import BundleUnsafe

MAX_VECTOR = 1 << 20


@dataclass(frozen=True)
class Table:
    """A table at a place in a file."""

    data: memoryview
    at: int
    where: str

    def integer(self, field: int, layout: str) -> int:
        """A number of a `struct` layout, 0 where the table has none."""
        place = self._field(field)
        return 0 if place is None else self._read(layout, place)

    def text(self, field: int) -> str:
        """A string, empty where the table has none; bytes that are no UTF-8 are replaced."""
        place = self._field(field)
        if place is None:
            return ""
        start, count = self._vector(place, 1)
        return bytes(self.data[start : start + count]).decode("utf-8", "replace")

    def tables(self, field: int) -> list[Table]:
        """A vector of tables, empty where the table has none."""
        place = self._field(field)
        if place is None:
            return []
        start, count = self._vector(place, 4)
        return [self._table(start + 4 * i) for i in range(count)]

    def _table(self, place: int) -> Table:
        return Table(self.data, place + self._read("<I", place), self.where)

    def _vector(self, place: int, width: int) -> tuple[int, int]:
        start = place + self._read("<I", place)
        count = self._read("<I", start)
        if start + 4 + width * count > len(self.data) or (width > 1 and count > MAX_VECTOR):
            raise BundleUnsafe(f"{self.where}: a vector of {count} at byte {start} does not fit the file")
        return start + 4, count

    def _field(self, number: int) -> int | None:
        table = self.at - self._read("<i", self.at)
        if 4 + 2 * number >= self._read("<H", table):
            return None
        offset = self._read("<H", table + 4 + 2 * number)
        return self.at + offset if offset else None

    def _read(self, layout: str, place: int) -> int:
        if not 0 <= place <= len(self.data) - struct.calcsize(layout):
            raise BundleUnsafe(f"{self.where}: an offset points to byte {place} of {len(self.data)}")
        value: int = struct.unpack_from(layout, self.data, place)[0]
        return value


def root(data: memoryview, identifier: bytes, where: str) -> Table:
    """The root table; raises BundleUnsafe where the file lacks the identifier."""
    if bytes(data[4:8]) != identifier:
        raise BundleUnsafe(f"{where} does not begin as {identifier.decode()} files do")
    return Table(data, 0, where)._table(0)
