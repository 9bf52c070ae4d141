# SPDX-License-Identifier: Apache-2.0
"""What devices made of a store's examples, and how forgetting reaches it.

Acts of forgetting are numbered. Whoever forgets purges at once; a device purges again before each round what
it may have written meanwhile, and only then the notes about it go. So no crash and no race leaves anything.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from edgefl.errors import StoreError
from edgefl.runtime.feature_cache import FeatureCache
from edgefl.runtime.store.database import Database

_FEATURES, _CHECKPOINTS = "features", "checkpoints"


class Derived:
    """Feature caches and checkpoints of the devices that train from one store."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._own: tuple[str, ...] = ()

    def forgettings(self) -> int:
        """How often something was forgotten."""
        return int(self._db.fact("forgettings") or 0)

    def count_forgetting(self) -> None:
        """One more; within the transaction that deletes."""
        self._db.keep("forgettings", b"%d" % (self.forgettings() + 1))

    def register(self, features: Path | None, checkpoints: Path | None) -> None:
        """Remember where this device keeps what it makes of examples."""
        rows = [
            (str(path.resolve()), kind)
            for path, kind in ((features, _FEATURES), (checkpoints, _CHECKPOINTS))
            if path is not None
        ]
        self._own = tuple(path for path, _ in rows)
        with self._db.writing():
            latest = self.forgettings()
            for path, kind in rows:
                self._db.change("INSERT OR IGNORE INTO derived VALUES (?, ?, ?)", (path, kind, latest))

    def has_features(self) -> bool:
        """Whether deleted examples have to be noted."""
        return bool(self._feature_folders())

    def note(self, digests: Sequence[bytes]) -> None:
        """Features of these examples are to go; within the transaction that deletes them."""
        for path in self._feature_folders():
            for digest in digests:
                self._db.change("INSERT OR IGNORE INTO gone VALUES (?, ?)", (path, digest))

    def purge(self, only: Sequence[str] | None = None) -> None:
        """Delete features that are noted, and checkpoints made before the latest act of forgetting.

        Args:
            only: paths of one device; those of all by default.

        Raises:
            StoreError: something cannot be deleted; it is tried again before the device's next round.
        """
        latest = self.forgettings()
        try:
            for path, kind, seen in self._db.rows("SELECT path, kind, seen FROM derived"):
                if only is not None and path not in only:
                    continue
                if kind == _CHECKPOINTS and seen < latest:
                    _remove(Path(path))
                elif kind == _FEATURES and (gone := self._gone(path)):
                    FeatureCache(path).forget(gone)
        except OSError as exc:
            raise StoreError(f"what was made of forgotten examples cannot be deleted: {exc}") from exc

    def settle(self) -> int:
        """Purge before this device's round, when it writes nothing; the number of the latest forgetting."""
        latest = self.forgettings()
        noted = [(path, digest) for path in self._own for digest in self._gone(path)]
        seen = self._db.rows("SELECT path, seen FROM derived")
        if noted or any(path in self._own and number < latest for path, number in seen):
            self.purge(self._own)
            with self._db.writing():
                for row in noted:
                    self._db.change("DELETE FROM gone WHERE path = ? AND digest = ?", row)
                for path in self._own:
                    self._db.change("UPDATE derived SET seen = ? WHERE path = ?", (latest, path))
        return latest

    def _gone(self, path: str) -> set[bytes]:
        return {bytes(row[0]) for row in self._db.rows("SELECT digest FROM gone WHERE path = ?", (path,))}

    def _feature_folders(self) -> list[str]:
        return [row[0] for row in self._db.rows("SELECT path FROM derived WHERE kind = ?", (_FEATURES,))]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        # A writer that was killed may have left its temporary file.
        for file in (path, *path.parent.glob(f".{path.name}.*")):
            file.unlink(missing_ok=True)
