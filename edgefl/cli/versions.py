# SPDX-License-Identifier: Apache-2.0
"""`edgefl versions` and `edgefl admin promote`, `rollback`, `pin`, `unpin`, `hold`, `resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgefl.cli.options import AdminFile, AsJson, ServerUrl, administration, reached
from edgefl.cli.output import print_json, print_line, print_rows
from edgefl.options import ReachOptions
from edgefl.plain import moment

if TYPE_CHECKING:
    from edgefl.lineage import VersionInfo

Number = Annotated[int, typer.Argument(help="As `edgefl versions` lists it.", min=0, show_default=False)]


def versions(
    server: ServerUrl, reach: ReachOptions, admin_file: AdminFile = None, as_json: AsJson = False
) -> None:
    """Every version of a server's model: where it comes from, how good it is, what was decided about it."""
    from edgefl.runtime.download import server_status
    from edgefl.runtime.remote import Remote

    with reached(server, reach, admin_file) as transport:
        remote = Remote(transport)
        now, found = server_status(remote), remote.versions()
    if as_json:
        print_json(
            {"promoted": now.promoted, "held": now.held, "versions": [info.to_json() for info in found]}
        )
        return
    columns = ["version", "from", "round", "updates", "loss", "held-out loss", "accuracy", "made", "what"]
    print_rows(f"Versions of {now.model}", columns, [_row(info) for info in found])
    if now.held:
        print_line(f"no rounds begin: {now.held}")


def promote(
    server: ServerUrl,
    version: Number,
    reach: ReachOptions,
    admin_file: AdminFile = None,
    as_json: AsJson = False,
) -> None:
    """Have a version pulled by default, in place of the newest. It is kept until another one is promoted."""
    with administration(server, reach, admin_file) as admin:
        admin.promote(version)
    _say({"promoted": version}, f"version {version} is what is pulled by default", as_json)


def rollback(
    server: ServerUrl,
    version: Number,
    reach: ReachOptions,
    admin_file: AdminFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a new version that has the parameters of an old one, and go on from there.

    The round that is open ends on it; updates it had accepted do not count, and are named so.
    """
    with administration(server, reach, admin_file) as admin:
        made = admin.restore(version)
    said = f"version {made} has the parameters of version {version} again"
    _say({"version": made, "restores": version}, said, as_json)


def pin(
    server: ServerUrl,
    version: Number,
    reach: ReachOptions,
    admin_file: AdminFile = None,
    as_json: AsJson = False,
) -> None:
    """Keep a version, however many newer ones there are."""
    with administration(server, reach, admin_file) as admin:
        admin.pin(version)
    _say({"pinned": version}, f"version {version} is kept", as_json)


def unpin(
    server: ServerUrl,
    version: Number,
    reach: ReachOptions,
    admin_file: AdminFile = None,
    as_json: AsJson = False,
) -> None:
    """Keep a version no longer than others (`edgefl serve --keep-versions`)."""
    with administration(server, reach, admin_file) as admin:
        admin.pin(version, False)
    _say({"unpinned": version}, f"version {version} is kept no longer than others", as_json)


def hold(
    server: ServerUrl,
    reach: ReachOptions,
    reason: Annotated[str, typer.Option(help="For whoever looks at the status.")] = "",
    admin_file: AdminFile = None,
    as_json: AsJson = False,
) -> None:
    """Have no rounds begin. The one that is open goes on to its end, and devices are asked to come later."""
    with administration(server, reach, admin_file) as admin:
        admin.hold(reason)
    _say({"held": True}, "no rounds begin", as_json)


def resume(
    server: ServerUrl, reach: ReachOptions, admin_file: AdminFile = None, as_json: AsJson = False
) -> None:
    """Have rounds begin again."""
    with administration(server, reach, admin_file) as admin:
        admin.resume()
    _say({"held": False}, "rounds go on", as_json)


def _say(document: dict[str, object], line: str, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        print_line(line)


def _row(info: VersionInfo) -> tuple[object, ...]:
    marks = {
        "promoted": info.promoted,
        "pinned": info.pinned,
        f"as version {info.restores}": info.restores is not None,
        "not kept": not info.kept,
    }
    found = info.evaluation
    accuracy = None if found is None else found.accuracy
    return (
        info.version,
        "-" if info.parent is None else info.parent,
        "-" if info.round is None else info.round,
        info.updates,
        _loss(info.loss),
        _loss(None if found is None else found.loss),
        "-" if accuracy is None else f"{accuracy:.1%}",
        moment(info.made_at, seconds=False),
        ", ".join(mark for mark, holds in marks.items() if holds) or "-",
    )


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
