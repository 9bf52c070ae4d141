# SPDX-License-Identifier: Apache-2.0
"""The values the server works with and the database keeps."""

from __future__ import annotations

from dataclasses import dataclass

from edgefl.server_stub.downlink import Link


@dataclass(frozen=True)
class Publication:
    """How devices get to a version.

    Attributes:
        link: the step that leads there.
        fingerprint: of the flat parameters devices hold then.
        standing: encoded `publish.Standing`, None where it is no longer kept.
    """

    link: Link
    fingerprint: str
    standing: bytes | None


@dataclass(frozen=True)
class Version:
    """One version of the parameters.

    Attributes:
        number: counts up by one.
        parameters: what devices hold, as encoded tensors.
        optimizer: what the server optimizer remembers, as encoded tensors.
        publication: how devices get there; None for the first version, and for those fetched whole.
        parent: the version before it, None for the first.
        restores: the version whose parameters it has again, None where it is no way back.
        bundle: `Bundle.digest` of what the server was started with.
    """

    number: int
    parameters: bytes
    optimizer: bytes
    publication: Publication | None = None
    parent: int | None = None
    restores: int | None = None
    bundle: str = ""


@dataclass(frozen=True)
class Update:
    """An accepted update of the current round.

    Attributes:
        assignment: the place it came from.
        base: the version it starts from.
    """

    digest: str
    weight: float
    assignment: str
    base: int


@dataclass(frozen=True)
class Head:
    """What tells whether the current round has changed.

    Attributes:
        revision: counts its changes, whoever made them.
        at: the server's time of the last one.
    """

    revision: int = 0
    at: float = 0.0


@dataclass(frozen=True)
class Closing:
    """A round that was closed.

    Attributes:
        version: what it led to.
        seconds: it took to get there from a full round.
    """

    round: int
    version: int
    updates: int
    seconds: float


@dataclass(frozen=True)
class Traffic:
    """Bytes of requests and answers: `up` towards the server, `down` towards devices."""

    up: int = 0
    down: int = 0


def became(accepted: bool, declined: bool, refused: bool, closed: bool) -> str:
    """The `state` of a participant, by what is known of its update and whether its round is closed."""
    if accepted or declined or refused:
        return "accepted" if accepted else "declined" if declined else "refused"
    return "absent" if closed else "working"


def came_to(closed_at: float | None, version: int | None) -> str:
    """The `state` of a round as it is stored."""
    if closed_at is None:
        return "open"
    return "abandoned" if version is None else "closed"
