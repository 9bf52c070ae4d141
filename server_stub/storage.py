# SPDX-License-Identifier: Apache-2.0
"""What the server remembers, as the coordinator asks for it: the seam between rounds and their storage.

A method returns only once a restart, where the storage survives one, can go on from what it left.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from edgefl.errors import StoreError
from edgefl.server_stub.aggregators import Verdict
from edgefl.server_stub.clock import Moment
from edgefl.server_stub.downlink import Link
from edgefl.server_stub.evaluation.records import Records
from edgefl.server_stub.identity.register import Register
from edgefl.server_stub.registry.records import Records as Decisions
from edgefl.server_stub.rounds import Place, Round
from edgefl.server_stub.selection import Candidate
from edgefl.server_stub.terms import Terms
from edgefl.server_stub.values import Head, Publication, Traffic, Update, Version
from edgefl.wire import CheckIn, Participant, RoundInfo


class Storage(Protocol):
    """The memory of one server."""

    @property
    def shared(self) -> bool:
        """Whether other servers may work on it at the same time."""
        ...

    def close(self) -> None: ...

    def found(self, schema_id: str, model: str, first: Version, at: float) -> None:
        """Make an empty storage that of a model, or check that it is; StoreError in another model's."""
        ...

    def federation(self) -> str:
        """16 hexadecimal digits that tell the rounds of this storage from all others; drawn once."""
        ...

    def register(self) -> Register:
        """Who is enrolled."""
        ...

    def evaluations(self) -> Records:
        """Versions that devices measured."""
        ...

    def registry(self) -> Decisions:
        """What was decided about versions."""
        ...

    def put_version(self, made: Version, at: float) -> None:
        """Store a version that no round led to."""
        ...

    def own(self) -> None:
        """Be the server of this storage, where only one can be; StoreError where another one is."""
        ...

    def event(self) -> AbstractContextManager[Head]:
        """One transaction for all that this thread does within, one after the other of all servers.

        Raises:
            StoreLost: the storage is gone or another server's; nothing that was done within counts.
        """
        ...

    def head(self) -> Head:
        """What `event` would begin with."""
        ...

    def put_head(self, head: Head, moment: Moment) -> None:
        """Store that the current round has changed, or only that the server is alive."""
        ...

    def last_alive(self) -> Moment | None:
        """When a server last said so, None where none ever did."""
        ...

    def closing(self, number: int) -> AbstractContextManager[bool]:
        """Whether this server is the one to close a round; until the end no other is."""
        ...

    def put_device(self, message: CheckIn, at: float) -> None:
        """Note that a device was here."""
        ...

    def candidates(self, since: float) -> list[Candidate]:
        """Devices that checked in since a moment."""
        ...

    def put_place(self, number: int, device: str, place: Place, examples: int) -> None:
        """Store a new or renewed place."""
        ...

    def give_back(self, assignment: str, reason: str) -> None:
        """Note that a device declined its place."""
        ...

    def put_update(
        self,
        number: int,
        assignment: str,
        digest: str,
        frame: bytes,
        loss: float | None,
        at: float,
        t: Traffic,
    ) -> None:
        """Store an update; it survives anything from here on."""
        ...

    def digest_of(self, number: int, assignment: str) -> str | None:
        """Digest of the update a place of any round sent, if it did."""
        ...

    def owner_of(self, number: int, assignment: str) -> str | None:
        """The device a round gave a place to, None where it gave no such place."""
        ...

    def has_round(self, number: int) -> bool:
        """Whether there is such a round, closed or not."""
        ...

    def updates_of(self, number: int) -> list[Update]:
        """The updates of a round that is not closed, by digest, weight and assignment."""
        ...

    def frame(self, assignment: str) -> bytes:
        """The frame a place of a round that is not closed has sent."""
        ...

    def put_refusal(self, number: int, assignment: str, reason: str) -> str:
        """Count an update that was refused; the name of the device that sent it, empty where unknown."""
        ...

    def open_round(self, state: Round, at: float) -> None:
        """Store a round that has just begun."""
        ...

    def put_deadline(self, state: Round) -> None:
        """Store a deadline that was put off."""
        ...

    def close_round(
        self,
        number: int,
        made: Version | None,
        verdicts: Mapping[str, Verdict],
        following: Round | None,
        at: float,
        t: Traffic,
    ) -> None:
        """In one transaction: the new version, the round closed on it and emptied, the next round open.

        Args:
            made: None where the round is abandoned.
            verdicts: by assignment, of updates that do not count as they are.
        """
        ...

    def current_round(self) -> Round | None:
        """The round that is not closed, as it was when the last answer about it was given."""
        ...

    def rounds_done(self) -> int:
        """Rounds closed."""
        ...

    def terms(self, number: int) -> Terms | None:
        """What the devices of a round were told and held to, None where it is not known."""
        ...

    def closed_terms(self) -> list[Terms]:
        """The terms of rounds that made versions, where they are known, oldest first."""
        ...

    def put_draw(self, state: Round) -> None:
        """Within an event: store plan and terms of a round that devices were drawn for."""
        ...

    def round_infos(self, number: int | None = None) -> list[RoundInfo]:
        """Every round with what became of it, oldest first; or only one."""
        ...

    def participants(self, number: int) -> tuple[Participant, ...]:
        """Every device that was given a place in a round, in the order they came."""
        ...

    def count_devices(self) -> int:
        """Devices that ever checked in."""
        ...

    def prune(self, keep: int) -> None:
        """Forget versions nobody needs: all but the first, the newest `keep`, what leads to them, and what
        was pinned or promoted."""
        ...

    def newest_version(self) -> Version: ...

    def newest_number(self) -> int:
        """Number of the newest version, without its parameters."""
        ...

    def first_version(self) -> int:
        """Number of the version the rounds began with."""
        ...

    def publication(self, version: int) -> Publication | None:
        """How devices get to a version, None where they fetch it whole or there is no such version."""
        ...

    def links(self, after: int, upto: int) -> list[Link]:
        """The steps published after one version up to another, oldest first."""
        ...

    def parameters(self, version: int) -> bytes | None:
        """Encoded parameters of a version, None where there is no such version."""
        ...


def other_model(model: str, schema_id: str, new: str, new_id: str) -> StoreError:
    """What a storage of one model says to the bundle of another."""
    return StoreError(
        f"the database holds model {model!r} with parameter schema {schema_id}, the bundle is {new!r} with "
        f"{new_id}; give each model its own database"
    )
