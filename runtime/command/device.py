# SPDX-License-Identifier: Apache-2.0
"""The device's command: takes part in a federation, a line per round."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

from edgefl.data import Examples
from edgefl.errors import OptionError
from edgefl.options import DataOptions, DeviceOptions, EngineOptions, LimitOptions, WhenOptions, keys_in
from edgefl.plain import print_json_line, print_line, size, start_log
from edgefl.readers import read
from edgefl.runtime.client import DeviceClient, Reader
from edgefl.runtime.command.look import show_history, show_status
from edgefl.runtime.conditions import Guard, conditions_here
from edgefl.runtime.identity import joined
from edgefl.runtime.reach import reach
from edgefl.runtime.report import RoundReport
from edgefl.runtime.store.source import Source


def serve_owner(
    device: DeviceOptions,
    engine: EngineOptions,
    when: WhenOptions,
    limits: LimitOptions,
    reading: DataOptions,
) -> None:
    """Do what the options ask for.

    Raises:
        OptionError: nothing is asked for that could be done.
        EdgeflError: see `DeviceClient.run`.
    """
    folder = Path(device.workdir)
    if device.status or device.history:
        if device.status:
            show_status(folder, conditions_here(folder), device.json)
        if device.history:
            show_history(folder, device.json)
        return
    if device.server is None or (device.data is None) == (device.store is None):
        raise OptionError(
            "give --server and either --data or --store to take part, or --status or --history to look"
        )
    os.nice(limits.nice)
    start_log(logging.WARNING)
    with reach(device.server, device) as transport:
        client = DeviceClient(
            joined(
                transport,
                folder,
                device.server,
                device,
                device.token,
                scheme=device.scheme,
                label=device.id or "",
            ),
            _examples(device, reading),
            folder,
            device=device.id,
            labels=device.labels,
            backend=engine.backend,
            delegate=engine.delegate,
            guard=Guard(folder, when, conditions_here(folder)),
            limits=limits,
            holdout=device.holdout,
            bundle_bytes=device.bundle_bytes,
            publishers=keys_in(device.publisher_key),
        )
        told: set[str] = set()
        for report in client.run(max_rounds=device.max_rounds):
            _tell(report, device.json, told)


def _examples(device: DeviceOptions, reading: DataOptions) -> Examples | Source | Reader:
    if device.data is not None:
        # Only the model says what a table or a folder is to become; an .npz that is none fails at once.
        late = partial(read, Path(device.data), how=reading)
        npz = Path(device.data).suffix == ".npz"
        return late() if npz else lambda bundle: late(bundle.manifest)
    from edgefl.runtime.store import ExampleStore, cipher_from

    return ExampleStore(
        str(device.store), cipher=cipher_from(Path(device.store_key) if device.store_key else None)
    )


def _tell(report: RoundReport, as_json: bool, told: set[str]) -> None:
    """One round; where graphs ran is said once, and again when it changes."""
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
