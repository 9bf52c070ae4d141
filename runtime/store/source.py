# SPDX-License-Identifier: Apache-2.0
"""What a device trains from where its examples change meanwhile: the seam between the client and a store."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from edgefl.data import Examples
from edgefl.runtime.rows import Rows


class Source(Protocol):
    """Examples that come and go. `ExampleStore` is one."""

    def __len__(self) -> int:
        """How many there are now."""
        ...

    def ever_added(self) -> int:
        """How many there have ever been, so that new ones show where old ones make room for them."""
        ...

    def take(self, seed: int) -> Examples:
        """What one round trains on; DataError where there is nothing.

        What was derived from examples that have been forgotten meanwhile is gone when this returns.
        """
        ...

    def stream(self) -> Rows | None:
        """All examples to be read batch by batch, where they are more than `take` gives; else None.

        What was derived from examples that have been forgotten is gone then too.
        """
        ...

    def forgotten_since(self) -> bool:
        """Whether something was forgotten since the latest `take` or `stream`.

        Cheap, for it is asked at every step.
        """
        ...

    def derives(self, features: Path | None, checkpoints: Path | None) -> None:
        """Remember where a device keeps what it makes of the examples, so that forgetting reaches it."""
        ...

    @property
    def sealed(self) -> bool:
        """Whether the examples are encrypted where they lie, so that their features stay off the disk."""
        ...


class Fixed:
    """Examples that stay as they are."""

    sealed = False

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def ever_added(self) -> int:
        return len(self._examples)

    def take(self, seed: int) -> Examples:
        return self._examples

    def stream(self) -> None:
        return None

    def forgotten_since(self) -> bool:
        return False

    def derives(self, features: Path | None, checkpoints: Path | None) -> None:
        pass
