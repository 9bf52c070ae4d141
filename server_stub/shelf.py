# SPDX-License-Identifier: Apache-2.0
"""The published versions, in whatever form a device can use. Safe to call from many threads."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np

from edgefl.bundle import Bundle
from edgefl.delta import lattice
from edgefl.delta.origin import origin
from edgefl.delta.snapshot import encode_weights
from edgefl.errors import Refused
from edgefl.privacy.entropy import SYSTEM, Entropy
from edgefl.proof import renewed
from edgefl.server_stub.aggregators import aggregator
from edgefl.server_stub.aggregators.scaffold import CONTROL, published
from edgefl.server_stub.downlink import CHAIN, shortest, since_first
from edgefl.server_stub.publish import Standing
from edgefl.server_stub.settings import Settings
from edgefl.server_stub.storage import Storage
from edgefl.server_stub.values import Version
from edgefl.server_stub.versions import Line
from edgefl.tensorfile import read_tensors, write_tensors

log = logging.getLogger("edgefl.server")

_KEPT_BYTES = 64 << 20


@dataclass(frozen=True)
class _Ways:
    """Ways to one version by the version held before. They take a while to code, and devices share them."""

    version: int
    ways: dict[int, bytes] = field(default_factory=dict)

    def keep(self, held: int, found: bytes) -> None:
        if len(found) + sum(map(len, list(self.ways.values()))) <= _KEPT_BYTES:
            self.ways[held] = found


class Shelf:
    """The versions of one model in one store.

    Attributes:
        line: makes the next version of the newest one.
    """

    def __init__(
        self, store: Storage, bundle: Bundle, settings: Settings, at: float, entropy: Entropy = SYSTEM
    ) -> None:
        """Make the bundle's parameters the first version of an empty store; StoreError in another model's."""
        self._store, self._schema = store, bundle.schema()
        values = bundle.parameters()
        shared = {p.name: values[p.name] for p in self._schema.parameters}
        rule = aggregator(settings, settings.training, settings.goal, entropy)
        state = write_tensors(rule.init(self._schema.size))
        fresh = Version(bundle.manifest.model_version, write_tensors(shared), state, bundle=bundle.digest)
        store.found(self._schema.id.hex(), bundle.manifest.name, fresh, at)
        first = store.first_version()
        start = self._schema.flatten(read_tensors(self.parameters(first)))
        self.line = Line(self._schema, first, start, rule, settings.downlink, bundle.digest)
        self._fingerprint: tuple[int, str] = (-1, "")
        self._origin: tuple[int, str] = (-1, "")
        self._last = _Ways(-1)

    def as_founded(self, bundle: Bundle) -> Bundle:
        """The bundle with the parameters of the first version, from which devices count all steps."""
        version, values = bundle.manifest.model_version, bundle.parameters()
        own = self._schema.flatten({p.name: values[p.name] for p in self._schema.parameters})
        if version == self.line.first and np.array_equal(own, self.line.start):
            return bundle
        log.warning(
            "the bundle is version %d with parameters of its own; the database began with version %d, so "
            "that is what devices get%s",
            version,
            self.line.first,
            ", and nobody has signed it" if bundle.signature else "",
        )
        return renewed(bundle.with_parameters(self._schema.unflatten(self.line.start), self.line.first))

    def parameters(self, version: int) -> bytes:
        """Encoded shared parameters of a version; Refused (`unknown-version`) where there is none."""
        found = self._store.parameters(version)
        if found is None:
            newest = self._store.newest_number()
            raise Refused(
                404,
                "unknown-version",
                f"there is no version {version} of the parameters; there are {self.line.first} to {newest}, "
                "of which old ones are not kept",
            )
        return found

    def moves(self, version: int, held: int) -> bytes:
        """Frames that lead a device from one version to another; where it is too far behind, from the first.

        Raises:
            Refused: `unknown-version`: there is no such way, the version is to be fetched whole.
        """
        found = self._kept(version).ways.get(held)
        if found is not None:
            return found
        links = self._store.links(held, version) if 0 < version - held <= CHAIN else []
        found = shortest(links, held, version, self._schema, lambda: self._since_first(version))
        if found is None:
            raise Refused(404, "unknown-version", f"there are no steps from version {held} to {version}")
        self._kept(version).keep(held, found)
        return found

    def weights(self, version: int, form: str) -> bytes:
        """The shared parameters of a version in few bytes, for devices that only infer.

        Raises:
            Refused: `unknown-version`.
        """
        vector = self._schema.flatten(read_tensors(self.parameters(version)))
        return encode_weights(vector, self._schema, form, version)

    def control(self, version: int) -> bytes:
        """SCAFFOLD's control variate at the newest version, as a frame.

        Raises:
            Refused: `unknown-version`: another one is the newest now.
        """
        newest = self._store.newest_version()
        if version != newest.number:
            raise Refused(
                404, "unknown-version", f"version {version} is not the newest, which is {newest.number}"
            )
        kept = read_tensors(newest.optimizer).get(CONTROL)
        sent = published(np.zeros(self._schema.size, np.float32) if kept is None else kept)
        return encode_weights(sent, self._schema, "float16", version)

    def fingerprint(self, version: int) -> str:
        """Of the parameters devices hold at a version; empty where it is fetched whole."""
        known, found = self._fingerprint
        if known != version:
            published = self._store.publication(version)
            found = "" if published is None else published.fingerprint
            if version == self.line.first and self.line.error:
                found = lattice.fingerprint(Standing.first(self.line.start).weights())
            self._fingerprint = version, found
        return found

    def origin(self, version: int) -> str:
        """Of the parameters devices train from at a version, however they come by them."""
        if not (found := self.fingerprint(version)):
            known, found = self._origin
            if known != version:
                found = origin(self._schema.flatten(read_tensors(self.parameters(version))))
                self._origin = version, found
        return found

    def _since_first(self, version: int) -> bytes | None:
        """All steps since the first version as one, None where it is not known any more what they were."""
        # No device holds the version before the first, so this is the place of what all far behind share.
        place = self.line.first - 1
        if (found := self._kept(version).ways.get(place)) is not None:
            return found
        published = self._store.publication(version)
        if published is None or published.standing is None:
            return None
        standing = Standing.from_bytes(published.standing, self.line.start)
        made = since_first(standing, self._schema, self.line.first)
        self._kept(version).keep(place, made)
        return made

    def _kept(self, version: int) -> _Ways:
        """Those of the version that was asked for last: a round's devices all go there."""
        kept = self._last
        if kept.version != version:
            kept = self._last = _Ways(version)
        return kept
