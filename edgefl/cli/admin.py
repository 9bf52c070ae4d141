# SPDX-License-Identifier: Apache-2.0
"""`edgefl enrol` and `edgefl admin ...`: who is to take part, and who may no longer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefl.cli.options import AdminFile, AsJson, ServerUrl, administration, reached
from edgefl.cli.output import print_json, print_line, print_rows
from edgefl.options import ReachOptions
from edgefl.plain import moment


def enrol(
    server: ServerUrl,
    reach: ReachOptions,
    token: Annotated[str, typer.Option(help="What `edgefl admin token` gave.", show_default=False)],
    workdir: Annotated[Path, typer.Option(help="The device's folder, which keeps its key.")] = Path(
        "edgefl-device"
    ),
    label: Annotated[str, typer.Option("--id", help="What people call it. Nothing depends on it.")] = "",
    scheme: Annotated[
        str, typer.Option(help="hmac: a secret shared with the server; ed25519: a key pair.")
    ] = "hmac",
    as_json: AsJson = False,
) -> None:
    """Make this device known to a server, by a key that it makes and keeps.

    `edgefl device` on the same --workdir signs with it from then on. Where the device is known already, the
    same token changes nothing.
    """
    from edgefl.runtime.identity import enrol as enrolled
    from edgefl.runtime.lock import only_one
    from edgefl.runtime.reach import check_private

    check_private(server, reach, "the token")
    workdir.mkdir(parents=True, exist_ok=True)
    with reached(server, reach, None) as transport, only_one(workdir):
        made = enrolled(transport, token, workdir, scheme=scheme, label=label, again=True)
    if as_json:
        print_json({"identity": made.identity, "federation": made.federation, "scheme": made.scheme})
        return
    print_line(f"{workdir}: enrolled as {made.identity}, by a key of scheme {made.scheme}")


def token(
    server: ServerUrl,
    reach: ReachOptions,
    admin_file: AdminFile = None,
    uses: Annotated[int, typer.Option(help="Devices it is for.", min=1)] = 1,
    days: Annotated[float, typer.Option(help="How long it is good for.", min=0.0)] = 7.0,
    label: Annotated[str, typer.Option(help="What people call it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a token that enrols devices. It is shown once; the server keeps only its digest."""
    from edgefl.identity.messages import NewToken

    with administration(server, reach, admin_file, required=True) as admin:
        made = admin.make_token(NewToken(uses, days, label))
    if as_json:
        print_json(made.to_json())
        return
    print_line(made.token)


def tokens(
    server: ServerUrl, reach: ReachOptions, admin_file: AdminFile = None, as_json: AsJson = False
) -> None:
    """Tokens, and what is left of them."""
    with administration(server, reach, admin_file, required=True) as admin:
        found = admin.tokens()
    if as_json:
        print_json({"tokens": [each.to_json() for each in found]})
        return
    rows = [(t.id, t.label, f"{t.used} of {t.uses}", _moment(t.expires_at)) for t in found]
    print_rows("Tokens", ["token", "label", "used", "until"], rows)


def devices(
    server: ServerUrl, reach: ReachOptions, admin_file: AdminFile = None, as_json: AsJson = False
) -> None:
    """Every device that was ever enrolled, and when it last asked for work."""
    with administration(server, reach, admin_file, required=True) as admin:
        found = admin.devices()
    if as_json:
        print_json({"devices": [each.to_json() for each in found]})
        return
    rows = [
        (d.identity, d.label, d.scheme, d.token, *map(_moment, (d.enrolled_at, d.last_seen, d.revoked_at)))
        for d in found
    ]
    columns = ["identity", "label", "key", "token", "enrolled", "last seen", "revoked"]
    print_rows("Devices", columns, rows)


def revoke(
    server: ServerUrl,
    identity: Annotated[str, typer.Argument(help="As `edgefl admin devices` lists it.", show_default=False)],
    reach: ReachOptions,
    admin_file: AdminFile = None,
    as_json: AsJson = False,
) -> None:
    """Let a device take part no more. What it sent and was acknowledged counts; its place is free."""
    with administration(server, reach, admin_file, required=True) as admin:
        admin.revoke(identity)
    if as_json:
        print_json({"revoked": identity})
        return
    print_line(f"{identity} takes part no more")


def _moment(at: float | None) -> str:
    """Local time, where there was such a moment."""
    return "-" if at is None else moment(at, seconds=False)
