# SPDX-License-Identifier: Apache-2.0
"""`edgefl pull`: the trained model out of a federation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefl.cli.options import AdminFile, AsJson, PublisherKey, ServerUrl, check_folder, reached
from edgefl.cli.output import err, print_json, print_line, size
from edgefl.options import ReachOptions, keys_in

if TYPE_CHECKING:
    from edgefl.bundle import Bundle

_SHOWN = 4


def pull(
    server: ServerUrl,
    reach: ReachOptions,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write.", show_default=False)],
    version: Annotated[
        int | None,
        typer.Option(help="Version of the parameters. Default: the promoted, or newest, one.", min=0),
    ] = None,
    publisher_key: PublisherKey = None,
    admin_file: AdminFile = None,
    as_json: AsJson = False,
) -> None:
    """Fetch the trained model from a server, finished or not, as a bundle to evaluate, export or train on.

    It is the bundle the server was started with, with the parameters of a version in it. Personal parameters
    and statistics that devices keep to themselves never reach a server: they stay as they were.
    """
    import edgefl

    check_folder(output)
    with reached(server, reach, admin_file) as transport, err.status("fetching the bundle ..."):
        pulled = edgefl.pull(transport, version, keys_in(publisher_key))
    pulled.save(output)
    manifest, kept = pulled.manifest, _kept(pulled)
    signer = manifest.provenance.get("trained_from_signed_by")
    if as_json:
        print_json(
            {
                "bundle": str(output),
                "bytes": output.stat().st_size,
                "model": manifest.name,
                "version": manifest.model_version,
                "as_they_were": kept,
                "trained_from": manifest.provenance["trained_from"],
                "trained_from_signed_by": signer,
            }
        )
        return
    print_line(f"{output}: {manifest.name}, version {manifest.model_version}, {size(output.stat().st_size)}")
    if signer:
        print_line(f"a new bundle, so not signed; the one it was trained from was, by {signer}")
    if kept:
        more = f" and {len(kept) - _SHOWN} more" if len(kept) > _SHOWN else ""
        print_line(f"never sent by devices, so as in the first bundle: {', '.join(kept[:_SHOWN])}{more}")


def _kept(bundle: Bundle) -> list[str]:
    """What devices train or update but do not send."""
    personal = [p.name for p in bundle.manifest.parameters if p.role == "personal"]
    return [*personal, *bundle.manifest.updated]
