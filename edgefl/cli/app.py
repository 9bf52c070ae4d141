# SPDX-License-Identifier: Apache-2.0
"""All commands in one application."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from edgefl import __version__
from edgefl.cli import aggregate, bench, convert, demo_command, doctor, inspect, serve, simulate, train
from edgefl.cli.output import err
from edgefl.errors import EdgeflError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Turn a model into something that trains on the device, and sends home kilobytes.",
)
delta = typer.Typer(no_args_is_help=True, help="Look into payloads.")
bench_app = typer.Typer(no_args_is_help=True, help="Measure payload sizes and step times of your own model.")

app.command("convert", rich_help_panel="Workstation")(convert.convert)
app.command("inspect", rich_help_panel="Workstation")(inspect.inspect)
app.command("verify", rich_help_panel="Workstation")(inspect.verify)
app.command("export", rich_help_panel="Workstation")(convert.export)
app.command("train", rich_help_panel="Device")(train.train)
app.command("evaluate", rich_help_panel="Device")(train.evaluate)
app.command("device", rich_help_panel="Device")(serve.device)
app.command("doctor", rich_help_panel="Device")(doctor.doctor)
app.command("serve", rich_help_panel="Server")(serve.serve)
app.command("aggregate", rich_help_panel="Server")(aggregate.aggregate)
app.command("simulate", rich_help_panel="Try it")(simulate.simulate)
app.command("demo", rich_help_panel="Try it")(demo_command.demo)
delta.command("inspect")(aggregate.inspect_delta)
bench_app.command("payload")(bench.payload)
bench_app.command("step")(bench.step)
app.add_typer(delta, name="delta", rich_help_panel="Server")
app.add_typer(bench_app, name="bench", rich_help_panel="Try it")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgefl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn a model into something that trains on the device, and sends home kilobytes."""


def run() -> int:
    """Exit status of one command line."""
    try:
        app()
    except EdgeflError as exc:
        _report(exc)
        return 1
    except KeyboardInterrupt:
        err.print("interrupted")
        return 130
    return 0


def _report(exc: EdgeflError) -> None:
    if "--json" in sys.argv:
        print(json.dumps({"error": type(exc).__name__, "message": str(exc)}))
    err.print(f"[bold red]error[/] [dim]({type(exc).__name__})[/]", end=" ")
    err.print(str(exc), markup=False)
