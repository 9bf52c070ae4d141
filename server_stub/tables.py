# SPDX-License-Identifier: Apache-2.0
"""The server's tables, in terms any SQL database has. Moments are seconds since the epoch."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    func,
    select,
    union_all,
)

metadata = MetaData()

# One row. A change of any table is a step in `migrations`.
schema_version = Table(
    "schema_version",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)

deployment = Table(
    "deployment",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("schema_id", String(16), nullable=False),
    Column("model", Text, nullable=False),
    # Counts the changes of the current round, so that a server sees what another one did.
    Column("revision", BigInteger, nullable=False, server_default="0"),
    # Which server's turn it is, where only one may work on the database.
    Column("owner", String(32), nullable=True),
    # The server's time and the wall clock's when a server was last alive.
    Column("clock", Double, nullable=True),
    Column("wall", Double, nullable=True),
)

# What tells the rounds of this database from those of any other, for devices.
federation = Table(
    "federation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(16), nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("parameters", LargeBinary, nullable=False),
    Column("optimizer", LargeBinary, nullable=False),
    Column("made_at", Double, nullable=False),
    # Where it comes from; empty where a release before these made it.
    Column("parent", BigInteger, nullable=True),
    Column("restores", BigInteger, nullable=True),
    Column("bundle", String(64), nullable=True),
    Column("pinned", Boolean, nullable=False, server_default=false()),
)

# One row, once something was decided.
registry = Table(
    "registry",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("promoted", ForeignKey("versions.version"), nullable=True),
    # Why no rounds begin; empty where they do.
    Column("held", Text, nullable=False),
)

# How devices get to a version from the one before; versions without a row are fetched whole.
publications = Table(
    "publications",
    metadata,
    Column("version", ForeignKey("versions.version"), primary_key=True, autoincrement=False),
    Column("base", BigInteger, nullable=False),
    Column("frame", LargeBinary, nullable=False),
    Column("unit", Double, nullable=False),
    Column("fingerprint", String(32), nullable=False),
    # Where devices stand and what is still to come. Only that of the newest versions is of use.
    Column("standing", LargeBinary, nullable=True),
)

rounds = Table(
    "rounds",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("base_version", ForeignKey("versions.version"), nullable=False),
    Column("version", ForeignKey("versions.version"), nullable=True),
    Column("goal", Integer, nullable=False),
    Column("minimum", Integer, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("places", Integer, nullable=False),
    # What the plan has besides; empty where a release before these wrote the round.
    Column("staleness", Integer, nullable=True),
    Column("patience", Integer, nullable=True),
    # Names with commas between them; empty where anybody took part.
    Column("parties", Text, nullable=False, server_default=""),
    Column("opened_at", Double, nullable=False),
    Column("deadline", Double, nullable=False),
    Column("extensions", Integer, nullable=False),
    Column("closed_at", Double, nullable=True),
    Column("bytes_up", BigInteger, nullable=False),
    Column("bytes_down", BigInteger, nullable=False),
    # `terms.Terms` as JSON; empty in rounds that began before they were kept.
    Column("terms", Text, nullable=True),
)

devices = Table(
    "devices",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("engine", String(64), nullable=False),
    Column("examples", BigInteger, nullable=False),
    Column("labels", Text, nullable=False, server_default=""),
    Column("first_seen", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
)

assignments = Table(
    "assignments",
    metadata,
    Column("assignment", String(32), primary_key=True),
    Column("round", ForeignKey("rounds.number"), nullable=False, index=True),
    Column("device", ForeignKey("devices.device"), nullable=False),
    Column("examples", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Column("declined", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    UniqueConstraint("round", "device"),
)

updates = Table(
    "updates",
    metadata,
    Column("assignment", ForeignKey("assignments.assignment"), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("loss", Double, nullable=True),
    Column("at", Double, nullable=False),
    # The round it counts in, where that is another one than its place's.
    Column("round", Integer, nullable=True),
    # Emptied when the round closes: what a device sent is kept no longer than it is needed.
    Column("frame", LargeBinary, nullable=True),
)

COUNTS_IN: Any = func.coalesce(updates.c.round, assignments.c.round)
"""The round an update counts in, of updates joined with assignments."""


def counts_in(number: int) -> Any:
    """That an update, of updates joined with assignments, counts in a round; without a look at all others."""
    place, sent = assignments.alias(), updates.alias()
    given = select(place.c.assignment).where(place.c.round == number)
    late = select(sent.c.assignment).where(sent.c.round == number)
    return assignments.c.assignment.in_(union_all(given, late)) & (number == COUNTS_IN)


# Updates that were refused, counted. Of what was in them nothing is kept.
refusals = Table(
    "refusals",
    metadata,
    Column("round", ForeignKey("rounds.number"), primary_key=True, autoincrement=False),
    # Empty where no device was given the assignment.
    Column("device", String(64), primary_key=True),
    Column("reason", String(64), primary_key=True),
    Column("count", BigInteger, nullable=False),
)

# What became of accepted updates that do not count as they are: shortened, or set aside (0 counted).
verdicts = Table(
    "verdicts",
    metadata,
    Column("assignment", ForeignKey("updates.assignment"), primary_key=True),
    Column("counted", Double, nullable=False),
    Column("reason", Text, nullable=False),
)

# Permission to enrol.
tokens = Table(
    "tokens",
    metadata,
    # SHA-256 of the token.
    Column("digest", String(64), primary_key=True),
    Column("label", String(64), nullable=False),
    Column("uses", Integer, nullable=False),
    Column("used", Integer, nullable=False),
    Column("made_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)

identities = Table(
    "identities",
    metadata,
    Column("identity", String(16), primary_key=True),
    Column("label", String(64), nullable=False),
    Column("scheme", String(16), nullable=False),
    # A public key of Ed25519; of HMAC the secret itself, which has to be here to check with.
    Column("key", LargeBinary, nullable=False),
    Column("token", String(64), nullable=False),
    Column("enrolled_at", Double, nullable=False),
    Column("revoked_at", Double, nullable=True),
)

admins = Table(
    "admins",
    metadata,
    # SHA-256 of the admin token.
    Column("digest", String(64), primary_key=True),
)

# Versions measured by devices. What was found is here once an evaluation is closed.
evaluations = Table(
    "evaluations",
    metadata,
    Column("version", ForeignKey("versions.version"), primary_key=True, autoincrement=False),
    Column("places", Integer, nullable=False),
    Column("most", BigInteger, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("until", Double, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("devices", Integer, nullable=True),
    Column("examples", BigInteger, nullable=True),
    Column("loss", Double, nullable=True),
    Column("median_loss", Double, nullable=True),
    Column("accuracy", Double, nullable=True),
)

evaluators = Table(
    "evaluators",
    metadata,
    Column("assignment", String(32), primary_key=True),
    Column("version", ForeignKey("evaluations.version"), nullable=False, index=True),
    Column("device", ForeignKey("devices.device"), nullable=False),
    Column("at", Double, nullable=False),
    # Of the answer; empty before it came.
    Column("digest", String(64), nullable=False),
    # 0 where the device could measure nothing.
    Column("examples", BigInteger, nullable=True),
    # Emptied when the evaluation closes: who found what is kept no longer than it is needed.
    Column("loss", Double, nullable=True),
    Column("accuracy", Double, nullable=True),
    UniqueConstraint("version", "device"),
)
