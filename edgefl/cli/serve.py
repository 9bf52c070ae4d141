# SPDX-License-Identifier: Apache-2.0
"""`edgefl serve` and `edgefl device`: the two ends of a federation."""

from __future__ import annotations

import contextlib
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefl.cli.options import BundlePath, DataPath
from edgefl.cli.output import print_json_line, print_line, size
from edgefl.options import CodingOptions, EngineOptions, FitOptions, ServerOptions

if TYPE_CHECKING:
    from edgefl.runtime.client import RoundReport

_LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def serve(
    bundle: BundlePath,
    server: ServerOptions,
    fit: FitOptions,
    coding: CodingOptions,
    database: Annotated[Path, typer.Option("--db", help="SQLite file; a restart goes on from it.")] = Path(
        "edgefl.db"
    ),
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
) -> None:
    """Run the reference server: rounds, weighted averaging, SQLite. OpenAPI is at /docs.

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

    settings = Settings(bundle, database, training=Training(fit, coding), **vars(server))
    logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        run_server(settings, host=host, port=port, port_file=port_file, certificate=certificate, key=key)


def device(
    server: Annotated[str, typer.Option("--server", "-s", help="The server's URL.", show_default=False)],
    data: DataPath,
    engine: EngineOptions,
    workdir: Annotated[Path, typer.Option(help="Kept between runs: model, residual, unsent update.")] = Path(
        "edgefl-device"
    ),
    device_id: Annotated[
        str | None, typer.Option("--id", help="This device's name; made once if absent.")
    ] = None,
    max_rounds: Annotated[int | None, typer.Option(help="Stop after this many rounds.", min=1)] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line and round (JSON Lines).")
    ] = False,
) -> None:
    """Join a federation: train on local examples whenever the server has a round, until it has finished.

    The examples stay here; what is sent is a coded update. A server that is down is waited for. Started again
    on the same --workdir it first sends what it had not sent.
    """
    from edgefl.data import load_examples
    from edgefl.runtime.client import DeviceClient
    from edgefl.runtime.transport import HttpTransport

    logging.basicConfig(level=logging.WARNING, format=_LOG_FORMAT)
    client = DeviceClient(
        HttpTransport(server),
        load_examples(data),
        workdir,
        device=device_id,
        backend=engine.backend,
        delegate=engine.delegate,
    )
    told: set[str] = set()
    for report in client.run(max_rounds=max_rounds):
        _tell(report, as_json, told)


def _tell(report: RoundReport, as_json: bool, told: set[str]) -> None:
    """One round; where graphs ran is said once, and again when it changes."""
    from dataclasses import asdict

    if as_json:
        print_json_line(asdict(report))
        return
    for place in map(str, report.placements):
        if place not in told:
            print_line(place)
            told.add(place)
    print_line(_line(report))


def _line(report: RoundReport) -> str:
    loss = "-" if report.loss is None else f"{report.loss:.4f}"
    outcome = "accepted" if report.accepted else f"not accepted: {report.error}"
    again = ", the server had it already" if report.duplicate else ""
    return (
        f"round {report.round:<4} loss {loss:<8} sent {size(report.bytes_up):<9} "
        f"received {size(report.bytes_down):<9} {report.seconds:6.2f} s  {outcome}{again}"
    )
