# SPDX-License-Identifier: Apache-2.0
"""`edgefl serve` and `edgefl device`: the two ends of a federation."""

from __future__ import annotations

import contextlib
import logging
import signal
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgefl.cli.options import BundlePath
from edgefl.options import (
    CodingOptions,
    DataOptions,
    DeviceOptions,
    EngineOptions,
    FitOptions,
    LimitOptions,
    ServerOptions,
    WhenOptions,
)
from edgefl.plain import start_log


class LogFormat(str, Enum):
    """One of `edgefl.plain.LOG_FORMATS`."""

    text = "text"
    json = "json"


def serve(
    bundle: BundlePath,
    server: ServerOptions,
    fit: FitOptions,
    coding: CodingOptions,
    when: WhenOptions,
    database: Annotated[
        str,
        typer.Option(
            "--database", "--db", help="SQLite file, or postgresql:// URL for more than one server; kept on."
        ),
    ] = "edgefl.db",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.", min=0, max=65535)] = 8017,
    port_file: Annotated[Path | None, typer.Option(help="Write the port here once ready.")] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(help="PEM file; with it the server speaks HTTPS.", exists=True, dir_okay=False),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="PEM file of the certificate's key.", exists=True, dir_okay=False)
    ] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of an authority; only who shows a certificate of it is served.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    admin_file: Annotated[
        Path | None,
        typer.Option(help="Where the admin token is. Default: the database's path with .admin."),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write rounds and evaluations for TensorBoard into this folder.")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="Write them to the MLflow server at this address too.", metavar="URI")
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="The log as lines for people, or one JSON object a line.")
    ] = LogFormat.text,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve anyone, on an address that other machines reach.")
    ] = False,
) -> None:
    """Run the reference server: rounds, weighted averaging, a database. OpenAPI is at /docs.

    It goes on answering after the last round, so that late devices learn that it is over and `edgefl pull`
    can fetch the trained model; SIGINT or SIGTERM ends it. Started again on the same database it goes on
    where it was, with every update it had accepted.
    """
    from edgefl.errors import OptionError
    from edgefl.server_stub.serve import run_server
    from edgefl.server_stub.settings import Settings
    from edgefl.wire import Training

    if key and not certificate:
        raise OptionError(f"--key {key} without --certificate: HTTPS needs the certificate too")

    settings = Settings(
        bundle, database, training=Training(fit, coding, when), admin_file=admin_file, **vars(server)
    )
    if settings.private and not settings.enrolled and not insecure:
        raise OptionError(
            "a device that checks in under a hundred names is as private as a hundred devices: not at all; "
            "private rounds want --enrolled, or --insecure for a trial",
            {"privacy": settings.privacy},
        )
    start_log(logging.INFO, log_format.value)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        run_server(
            settings,
            host=host,
            port=port,
            port_file=port_file,
            certificate=certificate,
            key=key,
            client_ca=client_ca,
            insecure=insecure,
            tensorboard=tensorboard,
            mlflow=mlflow,
        )


def device(
    device: DeviceOptions,
    engine: EngineOptions,
    when: WhenOptions,
    limits: LimitOptions,
    reading: DataOptions,
) -> None:
    from edgefl.runtime.command import run

    run(device, engine, when, limits, reading)


device.__doc__ = DeviceOptions.__doc__
