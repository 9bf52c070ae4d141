# SPDX-License-Identifier: Apache-2.0
"""All commands in one application."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from edgefl import __version__
from edgefl.cli import (
    adapters,
    admin,
    aggregate,
    anatomy,
    bench,
    convert,
    coreml,
    demo_command,
    doctor,
    export,
    history,
    inspect,
    merge,
    publish,
    pull,
    selftest,
    serve,
    simulate,
    status,
    store,
    train,
    verify,
    versions,
)
from edgefl.cli.expand import expanded
from edgefl.cli.output import err, print_error
from edgefl.cli.payload import command as payload
from edgefl.errors import EdgeflError, MissingDependency
from edgefl.plain import message_of, print_failure

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Turn a model into something that trains on the device, and sends home kilobytes.",
)
delta = typer.Typer(no_args_is_help=True, help="Look into payloads.")
store_app = typer.Typer(no_args_is_help=True, help="Keep examples for a device, and forget them.")
adapters_app = typer.Typer(no_args_is_help=True, help="LoRA factors to and from Hugging Face's PEFT.")
admin_app = typer.Typer(
    no_args_is_help=True, help="Who may take part in a server's rounds, and which versions hold."
)
keys_app = typer.Typer(no_args_is_help=True, help="A publisher's keys, which sign bundles.")
bench_app = typer.Typer(no_args_is_help=True, help="Measure payload sizes and step times of your own model.")

# Panel of the help, command, and an example for its own help.
COMMANDS = (
    ("Workstation", convert.convert, "convert model.keras --trainable last:2 -o watch.edgefl"),
    ("Workstation", inspect.inspect, "inspect watch.edgefl"),
    ("Workstation", verify.verify, "verify watch.edgefl"),
    ("Workstation", publish.sign, "sign watch.edgefl --key acme.key"),
    ("Workstation", pull.pull, "pull https://fl.example.org:8017 -o final.edgefl"),
    ("Workstation", export.export, "export final.edgefl --form float16,int8 -d examples.npz -o app/assets"),
    ("Workstation", merge.merge, "merge trained.edgefl -o merged.edgefl"),
    ("Workstation", coreml.coreml, "coreml watch.edgefl"),
    ("Device", train.train, "train watch.edgefl -d mine.npz --epochs 3 --delta update.eflu"),
    ("Device", train.evaluate, "evaluate watch.edgefl -d test.npz"),
    ("Device", serve.device, "device -s https://fl.example.org:8017 -d mine.npz"),
    ("Device", admin.enrol, "enrol https://fl.example.org:8017 --token TOKEN"),
    ("Device", doctor.doctor, "doctor"),
    ("Device", selftest.selftest, "selftest tests/conformance/vectors"),
    ("Server", serve.serve, "serve watch.edgefl --rounds 20 --goal 8 --lr 0.05"),
    ("Server", status.status, "status https://fl.example.org:8017"),
    ("Server", versions.versions, "versions https://fl.example.org:8017"),
    ("Server", history.history, "history https://fl.example.org:8017 --csv rounds.csv"),
    ("Server", aggregate.aggregate, "aggregate watch.edgefl a.eflu b.eflu --weights 120,80 -o next.edgefl"),
    ("Try it", simulate.simulate, "simulate watch.edgefl -d all.npz --devices 20 --partition dirichlet:0.3"),
    ("Try it", demo_command.demo, "demo"),
)


ADMIN_COMMANDS: tuple[tuple[Callable[..., None], str], ...] = (
    (admin.token, "admin token https://fl.example.org:8017 --uses 20"),
    (admin.tokens, "admin tokens https://fl.example.org:8017"),
    (admin.devices, "admin devices https://fl.example.org:8017"),
    (admin.revoke, "admin revoke https://fl.example.org:8017 0123456789abcdef"),
    (versions.promote, "admin promote https://fl.example.org:8017 12"),
    (versions.rollback, "admin rollback https://fl.example.org:8017 12"),
    (versions.pin, "admin pin https://fl.example.org:8017 12"),
    (versions.unpin, "admin unpin https://fl.example.org:8017 12"),
    (versions.hold, "admin hold https://fl.example.org:8017 --reason maintenance"),
    (versions.resume, "admin resume https://fl.example.org:8017"),
)


def _help(command: Callable[..., None]) -> str:
    """The docstring with its paragraphs on one line each, so that they wrap with the terminal."""
    return "\n\n".join(" ".join(part.split()) for part in (command.__doc__ or "").split("\n\n"))


for panel, command, example in COMMANDS:
    register = app.command(
        command.__name__, help=_help(command), rich_help_panel=panel, epilog=f"Example: edgefl {example}"
    )
    register(expanded(command))
for administering, example in ADMIN_COMMANDS:
    register = admin_app.command(
        administering.__name__, help=_help(administering), epilog=f"Example: edgefl {example}"
    )
    register(expanded(administering))
delta.command("inspect", epilog="Example: edgefl delta inspect update.eflu")(anatomy.inspect_delta)
bench_app.command(
    "payload", help=_help(payload.payload), epilog="Example: edgefl bench payload watch.edgefl -d mine.npz"
)(expanded(payload.payload))
bench_app.command("step", epilog="Example: edgefl bench step watch.edgefl")(bench.step)
adapters_app.command(
    "export",
    help=_help(adapters.export_adapters),
    epilog="Example: edgefl adapters export trained.edgefl -o adapter",
)(adapters.export_adapters)
adapters_app.command(
    "import",
    help=_help(adapters.import_adapters),
    epilog="Example: edgefl adapters import bert.edgefl adapter -o b.edgefl",
)(adapters.import_adapters)
for action, example in (
    (store.add, "add mine.db --bundle watch.edgefl -d today.npz --key today --keep-days 30"),
    (store.info, "info mine.db"),
    (store.forget, "forget mine.db --key today"),
    (store.export, "export mine.db -o mine.npz"),
):
    store_app.command(action.__name__, help=_help(action), epilog=f"Example: edgefl store {example}")(
        expanded(action)
    )
keys_app.command("new", help=_help(publish.new), epilog="Example: edgefl keys new acme")(publish.new)
app.add_typer(keys_app, name="keys", rich_help_panel="Workstation")
app.add_typer(store_app, name="store", rich_help_panel="Device")
app.add_typer(adapters_app, name="adapters", rich_help_panel="Workstation")
app.add_typer(admin_app, name="admin", rich_help_panel="Server")
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
    except (EdgeflError, ImportError, OSError) as exc:
        _report(_missing(exc) or exc)
        return 1
    except KeyboardInterrupt:
        err.print("interrupted")
        return 130
    return 0


def _report(exc: Exception) -> None:
    if "--json" in sys.argv:
        print_failure(exc)
    print_error(type(exc).__name__, message_of(exc))


def _missing(exc: Exception) -> MissingDependency | None:
    """The package whose absence is behind an error, where an extra brings it."""
    if isinstance(exc, MissingDependency):
        return exc
    for cause in _causes(exc):
        package = str(cause.name).partition(".")[0] if isinstance(cause, ModuleNotFoundError) else ""
        if package in doctor.EXTRAS:
            command = " ".join(["edgefl", *sys.argv[1:2]])
            return MissingDependency(package, doctor.EXTRAS[package], command)
    if isinstance(exc, ImportError):
        raise exc
    return None


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__
