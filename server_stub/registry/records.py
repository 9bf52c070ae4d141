# SPDX-License-Identifier: Apache-2.0
"""What the server remembers of decisions about versions: the seam to its storage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Standing:
    """What holds for all versions.

    Attributes:
        promoted: the version that is pulled by default, None where none was promoted.
        held: why no rounds begin; empty where they do.
    """

    promoted: int | None = None
    held: str = ""


@dataclass(frozen=True)
class Entry:
    """A version without its parameters; see `lineage.VersionInfo`."""

    version: int
    parent: int | None
    restores: int | None
    bundle: str
    made_at: float
    pinned: bool
    kept: bool


class Records(Protocol):
    """Within an event of the storage, methods are part of its transaction."""

    def standing(self) -> Standing: ...

    def put_standing(self, standing: Standing) -> None: ...

    def pin(self, version: int, pinned: bool) -> None:
        """Keep a version whatever is pruned, or no longer."""
        ...

    def entries(self) -> list[Entry]:
        """Every version there ever was, oldest first."""
        ...
