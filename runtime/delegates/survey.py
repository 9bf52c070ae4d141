# SPDX-License-Identifier: Apache-2.0
"""What this machine could run graphs on, each row loaded once in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgefl.errors import BackendUnavailable
from edgefl.runtime.delegates.backend import loads
from edgefl.runtime.delegates.choice import CPU, Choice
from edgefl.runtime.delegates.presence import absence, present
from edgefl.runtime.delegates.registry import ENGINES, Known, extra_libraries, known, library_choice
from edgefl.runtime.delegates.trial import open_choice


@dataclass(frozen=True)
class Row:
    """One way to run graphs on this machine.

    Attributes:
        engine: `onnx` or `tflite`.
        delegate: how to ask for it.
        drives: the hardware.
        state: `ready` it loads; `broken` it is here and does not; `absent` it is not here.
        why: what is loaded, or why it is not ready.
        advice: what would bring what is absent; empty where the engine itself is.
    """

    engine: str
    delegate: str
    drives: str
    state: Literal["ready", "broken", "absent"]
    why: str
    advice: str = ""


def survey() -> list[Row]:
    """Every row of the registry, and the libraries the environment names."""
    return [row for engine in ENGINES for row in _engine(engine)]


def _engine(engine: str) -> list[Row]:
    try:
        cpu = open_choice(Choice(engine), 1)
    except BackendUnavailable as exc:
        return [Row(engine, row.name, row.drives, "absent", str(exc)) for row in known(engine)]
    providers = cpu.providers
    mine = [library_choice(wish) for wish in extra_libraries() if engine in wish.engines]
    return [
        Row(engine, CPU, "the CPU, by the engine's own kernels", "ready", cpu.version),
        *(_loaded(choice, "named by EDGEFL_DELEGATES") for choice in mine),
        *(_known(row, providers) for row in known(engine)),
    ]


def _known(row: Known, providers: tuple[str, ...]) -> Row:
    choice = present(row, providers)
    if choice is None:
        return Row(row.engine, row.name, row.drives, "absent", absence(row), row.advice)
    return _loaded(choice, row.drives)


def _loaded(choice: Choice, drives: str) -> Row:
    verdict = loads(choice, 1)
    if verdict.state == "right":
        return Row(
            choice.engine, choice.name, drives, "ready", choice.library or choice.provider or "built in"
        )
    why = f"{choice.library or choice.provider} {verdict.state}: {verdict.reason}"
    return Row(choice.engine, choice.name, drives, "broken", why)
