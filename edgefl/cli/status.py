# SPDX-License-Identifier: Apache-2.0
"""`edgefl status`: how a server's rounds go, who takes part, and which updates were refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from edgefl.cli.evaluations import print_evaluations
from edgefl.cli.options import AdminFile, AsJson, ServerUrl, reached
from edgefl.cli.output import print_json, print_line, print_rows, size
from edgefl.options import ReachOptions

if TYPE_CHECKING:
    from edgefl.wire import Participant, RoundInfo, Status

_SHOWN = 10


def status(
    server: ServerUrl,
    reach: ReachOptions,
    round_number: Annotated[
        int | None, typer.Option("--round", help="Whose devices to list. Default: the newest.", min=1)
    ] = None,
    admin_file: AdminFile = None,
    as_json: AsJson = False,
) -> None:
    """Rounds of a server, devices of one of them, and updates it refused."""
    from edgefl.runtime.download import server_status
    from edgefl.runtime.remote import Remote

    with reached(server, reach, admin_file) as transport:
        remote = Remote(transport)
        now, rounds = server_status(remote), remote.rounds()
        evaluations = remote.evaluations() if now.evaluation else ()
        shown = round_number or (rounds[-1].round if rounds else None)
        devices = () if shown is None else remote.participants(shown)
    if as_json:
        print_json(
            {
                "status": now.to_json(),
                "rounds": [info.to_json() for info in rounds],
                "evaluations": [info.to_json() for info in evaluations],
                "participants": {"round": shown, "devices": [device.to_json() for device in devices]},
            }
        )
        return
    print_line(_glance(now))
    if now.held:
        print_line(f"no rounds begin: {now.held}")
    _print_rounds(rounds)
    print_evaluations(evaluations)
    if shown is not None:
        columns = ["device", "engine", "examples", "state", "sent", "loss", "reason"]
        print_rows(f"Round {shown}", columns, [_device(device) for device in devices])


def _glance(now: Status) -> str:
    private = "" if now.epsilon is None else f"; epsilon {now.epsilon:.3g} at delta {now.delta:g}"
    finished = ", finished" if now.finished else ""
    return (
        f"{now.model}: version {now.version}, {now.rounds_done} of {now.rounds_total} rounds{finished}, "
        f"{now.devices} devices; since its start {size(now.bytes_up)} received, {size(now.bytes_down)} sent"
        f"{private}"
    )


def _print_rounds(rounds: Sequence[RoundInfo]) -> None:
    if not rounds:
        return
    columns = ["round", "state", "updates", "declined", "refused", "loss", "received", "sent"]
    title = f"The last {_SHOWN} of {len(rounds)} rounds" if len(rounds) > _SHOWN else "Rounds"
    print_rows(title, columns, [_round(info) for info in rounds[-_SHOWN:]])


def _round(info: RoundInfo) -> tuple[object, ...]:
    bounded = [f"{info.bounded} bounded"] if info.bounded else []
    refused = ", ".join([*(f"{each.count} {each.reason}" for each in info.refused), *bounded]) or "-"
    counts = f"{info.updates} of {info.goal}", info.declined
    traffic = size(info.bytes_up), size(info.bytes_down)
    lacks = (
        f" without {info.missing.replace(',', ', ')}" if info.missing and info.state == "abandoned" else ""
    )
    waits = f", waits for {info.missing.replace(',', ', ')}" if info.missing and info.state == "open" else ""
    return info.round, f"{info.state}{lacks}{waits}", *counts, refused, _loss(info.loss), *traffic


def _device(one: Participant) -> tuple[object, ...]:
    sent = size(one.bytes) if one.bytes else "-"
    return one.device, one.engine, one.examples, one.state, sent, _loss(one.loss), one.reason


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
