# SPDX-License-Identifier: Apache-2.0
"""One engine with one network in a process of its own, which trains when told to.

    python -m benchmarks.step_worker ENGINE FOLDER THREADS

Reads a number of steps per line, answers each with a line of JSON: the milliseconds and the losses of those
steps. The first line it writes, before any question, says that it is ready; an empty line ends it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Block = Callable[[int], tuple[list[float], list[float]]]
"""Makes steps; gives the milliseconds and the loss of each."""


def timed(step: Callable[[], float]) -> Block:
    """A block of an engine that makes one step at a time."""

    def block(count: int) -> tuple[list[float], list[float]]:
        times, losses = [], []
        for _ in range(count):
            start = time.perf_counter()
            losses.append(step())
            times.append(1e3 * (time.perf_counter() - start))
        return times, losses

    return block


def peak_mib() -> float:
    """The most memory this process has held, in MiB; of this program alone, not of what started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main(engine: str, folder: str, threads: str) -> int:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # engines print

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")

    for variable in THREAD_VARIABLES:
        os.environ[variable] = threads
    module, _, name = engine.partition(":")
    try:
        make = getattr(importlib.import_module(f"benchmarks.{module}"), name)
        block, version = make(Path(folder), int(threads))
        times, losses = block(3)
    except Exception as exc:  # whatever keeps an engine from running is shown in its place in the table
        answer(error=f"{type(exc).__name__}: {exc}"[:300])
        return 0
    answer(version=version, ms=times, losses=losses, peak_mib=peak_mib())
    for line in sys.stdin:
        if not line.strip():
            break
        times, losses = block(int(line))
        answer(ms=times, losses=losses, peak_mib=peak_mib())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
