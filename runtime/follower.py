# SPDX-License-Identifier: Apache-2.0
"""A device that does not train but wants the newest model to infer with."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from edgefl.bundle import Bundle
from edgefl.bundle.publisher import Publishers
from edgefl.errors import BundleError
from edgefl.files import write_atomically
from edgefl.options import BUNDLE_BYTES
from edgefl.runtime.backends import Backend
from edgefl.runtime.cache import BundleCache, targets_for
from edgefl.runtime.lock import only_one
from edgefl.runtime.remote import Remote
from edgefl.runtime.transport import Transport


class Follower:
    """Keeps a bundle at the server's promoted version, or its newest, at about a byte per parameter."""

    def __init__(
        self,
        transport: Transport,
        workdir: str | os.PathLike[str],
        *,
        form: str = "int8",
        backend: str | Backend = "auto",
        bundle_bytes: int = BUNDLE_BYTES,
        publishers: Iterable[str] = (),
    ) -> None:
        """
        Args:
            workdir: folder that keeps the bundle and its newest weights; for this follower alone.
            form: `int8` rows or `float16`.
            backend: what will run the model; only what it needs is downloaded.
            bundle_bytes: the longest bundle to accept from the server.
            publishers: see `DeviceClient`; they vouch for the bundle, not for the weights of its versions.
        """
        self._home, self._form = Path(workdir), form
        self._remote = Remote(transport, bundle_bytes, Publishers(publishers))
        self._home.mkdir(parents=True, exist_ok=True)
        self._cache = BundleCache(self._home, targets_for(backend))
        self._file = self._home / "newest.edgefl"

    def refresh(self) -> Bundle:
        """The model at the promoted version, or the newest.

        Raises:
            OptionError: another process uses the folder.
            Refused: the server does not have what is asked for.
            ServerUnreachable, ServerNonsense: worth a retry; `kept` still has the model from before.
        """
        with only_one(self._home):
            status, kept = self._remote.status(), self.kept()
            now = status.schema, status.offered
            if kept is not None and (kept.schema().id.hex(), kept.manifest.model_version) == now:
                return kept
            bundle = self._cache.fetch(self._remote)
            if bundle.manifest.model_version != status.offered:
                values = self._remote.weights(status.offered, self._form, bundle.schema())
                bundle = bundle.with_parameters(values, status.offered)
            write_atomically(self._file, bundle.to_bytes())
            return bundle

    def kept(self) -> Bundle | None:
        """The model of the last refresh, None before the first."""
        try:
            return Bundle.open(self._file.read_bytes())
        except (OSError, BundleError):
            return None
