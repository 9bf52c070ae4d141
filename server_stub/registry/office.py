# SPDX-License-Identifier: Apache-2.0
"""Where administrators decide about versions, and where rounds are held when a version turns out worse."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from edgefl.errors import Refused
from edgefl.lineage import VersionInfo
from edgefl.server_stub.evaluation.state import Found
from edgefl.server_stub.present import Present
from edgefl.server_stub.settings import Settings
from edgefl.server_stub.shelf import Shelf
from edgefl.server_stub.storage import Storage
from edgefl.server_stub.values import Version

log = logging.getLogger("edgefl.server")


class Registry:
    """Decisions about the versions of one server. On return they are on disk, and all servers know them."""

    def __init__(
        self,
        store: Storage,
        present: Present,
        shelf: Shelf,
        settings: Settings,
        end_on: Callable[[Version, str, float], None],
        open_next: Callable[[float], None],
    ) -> None:
        """
        Args:
            end_on: within an event, ends what is under way on a version, for a reason.
            open_next: within an event, opens a round where one is due.
        """
        self._store, self._present, self._shelf, self._settings = store, present, shelf, settings
        self._records = store.registry()
        self._end_on, self._open_next = end_on, open_next

    def infos(self) -> list[VersionInfo]:
        """Every version there ever was, oldest first."""
        rounds = {info.version: info for info in self._store.round_infos() if info.version is not None}
        measured = {info.version: info for info in self._store.evaluations().infos()}
        promoted = self._records.standing().promoted
        return [
            VersionInfo(
                **vars(entry),
                round=led.round if led else None,
                updates=led.updates if led else 0,
                loss=led.loss if led else None,
                evaluation=measured.get(entry.version),
                promoted=entry.version == promoted,
            )
            for entry in self._records.entries()
            for led in [rounds.get(entry.version)]
        ]

    def promote(self, version: int) -> None:
        """Have a version pulled by default; Refused (`unknown-version`) where its parameters are not kept."""
        with self._present.event():
            self._shelf.parameters(version)
            self._put(promoted=version)
        log.warning("version %d promoted", version)

    def pin(self, version: int, pinned: bool) -> None:
        """Keep a version whatever is pruned, or no longer; Refused (`unknown-version`) as `promote`."""
        with self._present.event():
            self._shelf.parameters(version)
            self._records.pin(version, pinned)
        log.warning("version %d %s", version, "pinned" if pinned else "no longer pinned")

    def restore(self, version: int) -> int:
        """Make a new version that has the parameters of an old one, where the newest is not that already.

        The round that is open ends on it. What was accepted there does not count, as `participants` says.

        Returns:
            The new version's number, the same where it is asked for again before another one was made.

        Raises:
            Refused: `unknown-version` where its parameters are not kept, `newest-version` where it is that.
        """
        with self._present.event() as at:
            old, newest = self._shelf.parameters(version), self._store.newest_version()
            if version == newest.restores:
                return newest.number
            if version == newest.number:
                raise Refused(409, "newest-version", f"version {version} is the newest: nothing is undone")
            made = self._shelf.line.restored(newest, version, old)
            self._end_on(made, f"the model was rolled back to version {version}", at)
        log.warning("version %d has the parameters of version %d again", made.number, version)
        return made.number

    def hold(self, reason: str) -> None:
        """Begin no rounds. The one that is open goes on to its end."""
        with self._present.event():
            self._hold(reason or "an administrator holds the rounds")

    def resume(self) -> None:
        """Begin rounds again."""
        with self._present.event() as at:
            self._put(held="")
            self._open_next(at)
        log.warning("rounds go on")

    # -- within an event

    def judge(self, version: int, result: Found) -> None:
        """Hold the rounds where a version that was measured is much worse than the best before it."""
        rise, window = self._settings.hold_rise, self._settings.hold_window
        if not rise or result.median_loss is None or self._present.standing.held:
            return
        earlier = [
            info.median_loss
            for info in self._store.evaluations().infos()
            if info.version < version and info.state == "closed" and info.median_loss is not None
        ]
        if not earlier:
            return
        best = min(earlier[-window:])
        if result.median_loss > best + rise * abs(best):
            self._hold(
                f"version {version} has a median loss of {result.median_loss:.4g} on examples held out, "
                f"the best of the last {len(earlier[-window:])} has {best:.4g}"
            )

    def _hold(self, reason: str) -> None:
        self._put(held=reason)
        log.warning("rounds are held: %s", reason)

    def _put(self, **changed: object) -> None:
        standing = replace(self._present.standing, **changed)  # type: ignore[arg-type]
        self._records.put_standing(standing)
        self._present.standing = standing
