# SPDX-License-Identifier: Apache-2.0
"""`edgefl simulate`: how a model would learn over many devices, without deploying anything."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefl.cli.evaluations import print_evaluations
from edgefl.cli.options import AsJson, BundlePath, DataPath, check_folder, open_bundle
from edgefl.cli.output import print_json, print_line, print_rows, progress, size
from edgefl.options import (
    AttackOptions,
    CodingOptions,
    DataOptions,
    EngineOptions,
    FederationOptions,
    FitOptions,
    HoldoutOptions,
    PersonalOptions,
    TimeOptions,
)

if TYPE_CHECKING:
    from edgefl.simulation import DeviceRow, RoundRow, Simulated


def simulate(
    bundle: BundlePath,
    data: DataPath,
    reading: DataOptions,
    server: FederationOptions,
    fit: FitOptions,
    coding: CodingOptions,
    engine: EngineOptions,
    attack: AttackOptions,
    time: TimeOptions,
    holdout: HoldoutOptions,
    personal: PersonalOptions,
    test: Annotated[Path | None, typer.Option(help="Held-out examples, in any form --data takes.")] = None,
    devices: Annotated[int, typer.Option(help="Devices to divide the examples among.", min=1)] = 10,
    partition: Annotated[
        str, typer.Option(help="iid, or dirichlet:ALPHA for devices with few classes each.")
    ] = "iid",
    cohort: Annotated[int | None, typer.Option(help="Devices drawn per round. Default: all.", min=1)] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the final bundle.")] = None,
    table: Annotated[Path | None, typer.Option("--csv", help="Write the rounds as a table, .csv.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw loss and accuracy by round and by bytes, .png.")
    ] = None,
    per_device: Annotated[
        bool, typer.Option("--per-device", help="Show how good the final model is on each device.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train over simulated devices: what real devices and a real server would do, bit by bit, in one process.

    Bytes are counted as at a server's socket, HTTP included. docs/simulation.md has more.
    """
    from edgefl.cli.figures import new_figure
    from edgefl.readers import read
    from edgefl.simulation import Plan, divide
    from edgefl.simulation import simulate as run
    from edgefl.wire import Training

    check_folder(output, table, plot)
    figure = None if plot is None else new_figure((10, 6.6))
    opened = open_bundle(bundle)
    plan = Plan(
        training=Training(fit, coding),
        cohort=cohort,
        seed=fit.seed,
        **vars(server),
        **vars(attack),
        **vars(time),
        **vars(holdout),
        **vars(personal),
    )
    parts = divide(read(data, opened.manifest, reading), devices, partition, fit.seed)
    held_out = None if test is None else read(test, opened.manifest, reading)
    with progress("rounds", plan.rounds, quiet=as_json) as advance:
        done = run(
            opened,
            parts,
            plan,
            test=held_out,
            backend=engine.backend,
            delegate=engine.delegate,
            on_round=lambda row, values: advance(1, _note(row)),
            measure_devices=per_device or as_json,
        )
    if output:
        done.bundle.save(output)
    if table:
        _write(done, table)
    if plot:
        from edgefl.cli.simulate_picture import draw

        draw(figure, done, plot)
    settings = {
        "bundle": str(bundle),
        "data": str(data),
        "test": test,
        "devices": len(parts),
        "partition": partition,
        "engine": asdict(engine),
        **asdict(plan),
    }
    if as_json:
        print_json(_document(done, settings, {"bundle": output, "csv": table, "plot": plot}))
        return
    _show(done, per_device, plan.privacy_delta)
    for label, path in (("bundle", output), ("rounds", table), ("picture", plot)):
        if path:
            print_line(f"{label:<9}{path}")


def _note(row: RoundRow) -> str:
    loss = "" if row.loss is None else f"loss {row.loss:.4f}"
    return loss if row.accuracy is None else f"{loss} accuracy {row.accuracy:.1%}"


def _row(row: RoundRow, dense: int) -> dict[str, Any]:
    return {**asdict(row), "times_smaller": round(row.times_smaller(dense), 1)}


def _document(
    done: Simulated, settings: Mapping[str, Any], files: Mapping[str, Path | None]
) -> dict[str, Any]:
    import platform

    import numpy as np

    from edgefl import __version__

    return {
        "settings": settings,
        "versions": {
            "edgefl": __version__,
            "engine": done.engine,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "dense_bytes": done.dense_bytes,
        "epsilon": done.epsilon,
        "rounds": [_row(row, done.dense_bytes) for row in done.rounds],
        "devices": [asdict(row) for row in done.devices],
        "evaluations": [info.to_json() for info in done.evaluations],
        "bytes_up": sum(row.bytes_up for row in done.rounds),
        "bytes_down": sum(row.bytes_down for row in done.rounds),
        "times_smaller": round(done.times_smaller(), 1),
        **{name: str(path or "") for name, path in files.items()},
    }


def _write(done: Simulated, path: Path) -> None:
    """One row per round, columns as in the JSON."""
    from edgefl.simulation import RoundRow

    names = [*(f.name for f in fields(RoundRow)), "times_smaller"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_row(row, done.dense_bytes) for row in done.rounds)


def _show(done: Simulated, per_device: bool, delta: float) -> None:
    columns = ["round", "devices", "loss", "accuracy", "bytes up", "x smaller", "bytes down"]
    print_rows("", columns, [_cells(row, done.dense_bytes) for row in done.rounds])
    print_evaluations(done.evaluations)
    if per_device:
        rows = [(d.device, d.examples, d.rounds, d.loss, _percent(d.accuracy)) for d in done.devices]
        print_rows(
            "The final model on every device", ["device", "examples", "rounds", "loss", "accuracy"], rows
        )
    if any(d.personal for d in done.devices):
        print_rows("Models of their own, on examples held out", OWN, [_own(d) for d in done.devices])
    up, down = (sum(getattr(row, name) for row in done.rounds) for name in ("bytes_up", "bytes_down"))
    print_line(f"sent     {size(up)}, HTTP included, {done.times_smaller():,.3g} x less than dense float32")
    print_line(f"fetched  {size(down)}")
    if done.epsilon is not None:
        print_line(f"privacy  epsilon {done.epsilon:.3g} for every device, at delta {delta:g}")


def _cells(row: RoundRow, dense: int) -> list[object]:
    return [
        row.round,
        row.devices,
        "-" if row.loss is None else row.loss,
        _percent(row.accuracy),
        row.bytes_up,
        f"{row.times_smaller(dense):.3g}",
        row.bytes_down,
    ]


OWN = ["device", "examples", "chosen", "its own part", "accuracy", "global", "loss", "global loss"]


def _own(device: DeviceRow) -> list[object]:
    found = device.personal
    if found is None:
        return [device.device, "-", "global", *["-"] * 5]
    chosen, whole = found.chosen.metrics, found.tried[0].metrics
    return [
        device.device,
        chosen.examples,
        found.kind,
        f"{found.share:.0%}",
        _percent(chosen.accuracy),
        _percent(whole.accuracy),
        chosen.loss,
        whole.loss,
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
