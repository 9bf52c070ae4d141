# SPDX-License-Identifier: Apache-2.0
"""Versions as devices measured them, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgefl.cli.output import print_rows

if TYPE_CHECKING:
    from edgefl.wire import EvaluationInfo

_SHOWN = 10


def print_evaluations(found: Sequence[EvaluationInfo]) -> None:
    """The last ones; nothing where there are none."""
    if found:
        more = f", the last {_SHOWN} of {len(found)}" if len(found) > _SHOWN else ""
        columns = ["version", "devices", "examples", "loss", "median loss", "accuracy"]
        print_rows(
            f"On examples that devices hold out{more}", columns, [_row(info) for info in found[-_SHOWN:]]
        )


def _row(info: EvaluationInfo) -> tuple[object, ...]:
    accuracy = "-" if info.accuracy is None else f"{info.accuracy:.1%}"
    devices = f"{info.devices} of {info.wanted}"
    return info.version, devices, info.examples, _loss(info.loss), _loss(info.median_loss), accuracy


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
