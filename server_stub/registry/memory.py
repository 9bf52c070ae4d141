# SPDX-License-Identifier: Apache-2.0
"""Decisions about versions of a server that lasts as long as its process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgefl.server_stub.registry.records import Entry, Standing
from edgefl.server_stub.values import Version


class MemoryRecords:
    """See `Records`."""

    def __init__(self, versions: Mapping[int, Version]) -> None:
        """
        Args:
            versions: those that are kept.
        """
        self._versions, self._entries = versions, dict[int, Entry]()
        self._standing, self._pinned = Standing(), set[int]()

    def standing(self) -> Standing:
        return self._standing

    def put_standing(self, standing: Standing) -> None:
        self._standing = standing

    def pin(self, version: int, pinned: bool) -> None:
        (self._pinned.add if pinned else self._pinned.discard)(version)

    def entries(self) -> list[Entry]:
        return [
            replace(entry, pinned=number in self._pinned, kept=number in self._versions)
            for number, entry in sorted(self._entries.items())
        ]

    def add(self, made: Version, at: float) -> None:
        """Note a new version."""
        self._entries[made.number] = Entry(
            made.number, made.parent, made.restores, made.bundle, at, False, True
        )

    def stays(self, version: int) -> bool:
        """Whether a version is kept, however many newer ones there are."""
        return version in self._pinned or version == self._standing.promoted
