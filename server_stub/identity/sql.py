# SPDX-License-Identifier: Apache-2.0
"""The register in the server's database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from edgefl.server_stub.database import Database
from edgefl.server_stub.identity.register import Device, Token, check_again, unusable
from edgefl.server_stub.tables import admins, devices, identities, tokens


def _last_seen(name: ColumnElement[str]) -> ScalarSelect[float]:
    query = select(devices.c.last_seen).where(devices.c.device == name)
    return query.correlate(identities, tokens).scalar_subquery()


# Rounds of named parties know a device by its token's label.
_SEEN = func.coalesce(_last_seen(identities.c.identity), _last_seen(tokens.c.label)).label("last_seen")
_DEVICES = select(identities, _SEEN).select_from(
    identities.outerjoin(tokens, tokens.c.digest == identities.c.token)
)


class SqlRegister:
    """See `Register`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put_token(self, token: Token) -> None:
        with self._database.writing() as c:
            c.execute(insert(tokens).values(vars(token)))

    def tokens(self) -> list[Token]:
        with self._database.reading() as c:
            rows = c.execute(select(tokens).order_by(tokens.c.made_at, tokens.c.digest)).mappings()
            return [Token(**row) for row in rows]

    def enrol(self, device: Device) -> None:
        try:
            self._enrol(device)
        except IntegrityError:
            # The same request came by two ways at once, and the other one was first.
            self._enrol(device)

    def find(self, identity: str) -> Device | None:
        with self._database.reading() as c:
            return _find(c, identity)

    def devices(self) -> list[Device]:
        query = _DEVICES.order_by(identities.c.enrolled_at, identities.c.identity)
        with self._database.reading() as c:
            return [Device(**row) for row in c.execute(query).mappings()]

    def revoke(self, identity: str, at: float) -> bool:
        mine = identities.c.identity == identity
        with self._database.writing() as c:
            c.execute(update(identities).where(mine, identities.c.revoked_at.is_(None)).values(revoked_at=at))
            return c.execute(select(identities.c.identity).where(mine)).first() is not None

    def admin(self) -> str | None:
        with self._database.reading() as c:
            return c.execute(select(admins.c.digest)).scalar()

    def put_admin(self, digest: str) -> None:
        with self._database.writing() as c:
            c.execute(delete(admins))
            c.execute(insert(admins).values(digest=digest))

    def _enrol(self, device: Device) -> None:
        with self._database.writing() as c:
            row, at = tokens.c, device.enrolled_at
            # Written before anything is read: of two that want the last use, one waits for the other here.
            good = (row.digest == device.token) & (row.used < row.uses) & (row.expires_at > at)
            used = c.execute(update(tokens).where(good).values(used=row.used + 1)).rowcount
            known = _find(c, device.identity)
            if known is not None:
                check_again(known, device)
                if used:
                    c.execute(update(tokens).where(row.digest == device.token).values(used=row.used - 1))
                return
            if not used:
                refusal = unusable(None, at)
                assert refusal is not None
                raise refusal
            c.execute(insert(identities).values({k: v for k, v in vars(device).items() if k != "last_seen"}))


def _find(c: Connection, identity: str) -> Device | None:
    row: Any = c.execute(_DEVICES.where(identities.c.identity == identity)).mappings().first()
    return None if row is None else Device(**row)
