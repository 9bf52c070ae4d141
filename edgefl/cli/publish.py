# SPDX-License-Identifier: Apache-2.0
"""`edgefl keys new` and `edgefl sign`: vouching for a bundle, so that devices take no other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefl.cli.options import AsJson, BundlePath, check_folder, open_bundle
from edgefl.cli.output import print_json, print_line
from edgefl.errors import OptionError


def new(
    name: Annotated[Path, typer.Argument(help="The files' name: NAME.key and NAME.pub.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Make a publisher's key. NAME.key signs and is for you alone; the line in NAME.pub is for devices."""
    from edgefl.bundle.publisher import key_id, key_line
    from edgefl.files import write_atomically
    from edgefl.identity import ed25519

    private, public = Path(f"{name}.key"), Path(f"{name}.pub")
    check_folder(private)
    for path in (private, public):
        if path.exists():
            raise OptionError(f"{path} is there already, and what it signs is lost with it: name another")
    secret = ed25519.new_private()
    key = ed25519.public_of(secret)
    write_atomically(private, ed25519.to_pem(secret), private=True)
    write_atomically(public, f"{key_line(key)}\n".encode())
    if as_json:
        print_json({"id": key_id(key), "key": key_line(key), "private": str(private), "public": str(public)})
        return
    print_line(key_line(key))


def sign(
    bundle: BundlePath,
    key: Annotated[
        Path,
        typer.Option(help="Private key as `edgefl keys new` writes it: PEM of Ed25519.", show_default=False),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The signed bundle. Default: in its place.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign a bundle, and every slice of it that a server gives to devices.

    A device that is started with --publisher-key runs no bundle but one so signed.
    """
    from edgefl.identity import ed25519
    from edgefl.identity.keys import Ed25519Signer

    check_folder(output)
    opened = open_bundle(bundle)
    try:
        signer = Ed25519Signer(ed25519.from_pem(key.read_bytes()))
    except (OSError, ValueError) as exc:
        raise OptionError(f"--key {key} cannot be used: {exc}") from exc
    signed = opened.signed(signer)
    written = output or bundle
    signed.save(written)
    made = signed.signature
    assert made is not None
    if as_json:
        print_json({"bundle": str(written), "signed_by": made.key_id, "digests": dict(made.digests)})
        return
    print_line(f"{written}: signed by {made.key_id}, for {', '.join(made.digests)}")
