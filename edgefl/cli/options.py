# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands share, and the files they name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefl.errors import BundleError, OptionError

if TYPE_CHECKING:
    from edgefl.bundle import Bundle
    from edgefl.options import ReachOptions
    from edgefl.runtime.administration import Administration
    from edgefl.runtime.transport import Transport

BundlePath = Annotated[Path, typer.Argument(help="A bundle, MODEL.edgefl.", show_default=False)]
DataPath = Annotated[
    Path,
    typer.Option(
        "--data",
        "-d",
        help="Examples: .npz with x and y or one array per input, CSV, Parquet, or a folder (docs/data.md).",
        show_default=False,
    ),
]
ServerUrl = Annotated[
    str, typer.Argument(help="The server's URL, such as http://127.0.0.1:8017.", show_default=False)
]
AdminFile = Annotated[
    Path | None,
    typer.Option(
        help="File of the admin token, for a server that knows its devices.",
        envvar="EDGEFL_ADMIN_FILE",
        show_default=False,
    ),
]
PublisherKey = Annotated[
    str | None,
    typer.Option(
        help="Public key that must have signed the model, as `edgefl keys new` prints it.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


def open_bundle(path: Path) -> Bundle:
    """The bundle in a file, which the error names where it cannot be used."""
    from edgefl.bundle import Bundle

    try:
        return Bundle.open(path)
    except BundleError as exc:
        raise type(exc)(_placed(path, str(exc))) from exc


def admin_token(file: Path | None) -> str | None:
    """The admin token in a file, None where no file is named."""
    if file is None:
        return None
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise OptionError(f"cannot read the admin token in {file}: {exc}") from exc


@contextlib.contextmanager
def reached(server: str, options: ReachOptions, admin_file: Path | None) -> Iterator[Transport]:
    """A transport to a server; where there is an admin token, requests carry it.

    Raises:
        OptionError: it would go over plain http to another machine, or cannot be read.
    """
    from edgefl.runtime.administration import AdminTransport
    from edgefl.runtime.reach import check_private, reach

    secret = admin_token(admin_file)
    if secret is not None:
        check_private(server, options, "the admin token")
    with reach(server, options) as transport:
        yield transport if secret is None else AdminTransport(transport, secret)


@contextlib.contextmanager
def administration(
    server: str, options: ReachOptions, admin_file: Path | None, *, required: bool = False
) -> Iterator[Administration]:
    """A server's routes for administrators.

    Args:
        required: it can only be a server that knows its devices; an open one lets anybody administer.

    Raises:
        OptionError: as `reached`, or an admin token is required and no file is named.
    """
    from edgefl.runtime.administration import Administration

    if required and admin_file is None:
        raise OptionError("--admin-file or EDGEFL_ADMIN_FILE is to name the file of the admin token")
    with reached(server, options, admin_file) as transport:
        yield Administration(transport)


def check_folder(*outputs: Path | None) -> None:
    """Refuse to write into folders that do not exist before hours of work are done, not after.

    Raises:
        OptionError: a path's folder does not exist.
    """
    for path in outputs:
        if path is not None and not path.parent.is_dir():
            raise OptionError(f"cannot write {path}: there is no folder {path.parent}")


def _placed(path: Path, message: str) -> str:
    return message if str(path) in message else f"{path}: {message}"
