# SPDX-License-Identifier: Apache-2.0
"""`edgefl bench`: what your own model costs to train; to send it: `edgefl.cli.payload.command`."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefl.cli.options import AsJson, BundlePath, open_bundle
from edgefl.cli.output import print_json, print_rows
from edgefl.errors import EdgeflError

if TYPE_CHECKING:
    from edgefl.bundle import Bundle


def step(
    bundle: BundlePath,
    repeats: Annotated[int, typer.Option(help="Timed steps per engine.", min=3)] = 50,
    threads: Annotated[int, typer.Option(help="Threads per engine.", min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """Milliseconds of one training step on every engine of this machine, on the golden batch."""
    from edgefl.bundle.missing import check_whole
    from edgefl.cli.doctor import machine
    from edgefl.runtime import BACKENDS

    opened = open_bundle(bundle)
    check_whole(opened.manifest)
    rows = [_time_engine(opened, name, repeats, threads) for name in BACKENDS]
    if as_json:
        print_json({"machine": machine(), "threads": threads, "rows": rows})
        return
    columns = ["engine", "median ms", "fastest ms", "note"]
    print_rows(
        "", columns, [[row.get(k, "-") for k in ("engine", "median_ms", "min_ms", "note")] for row in rows]
    )


def _time_engine(bundle: Bundle, name: str, repeats: int, threads: int) -> dict[str, Any]:
    from edgefl.runtime import Trainer

    try:
        trainer = Trainer(bundle, backend=name, threads=threads)
        golden = bundle.golden()
        inputs = {spec.name: golden[spec.name] for spec in bundle.manifest.inputs}
        labels = {head.label.name: golden[head.label.name] for head in bundle.manifest.heads}
        times = []
        for _ in range(repeats + 3):
            start = time.perf_counter()
            trainer.loss_and_gradients(inputs, labels)
            times.append(1e3 * (time.perf_counter() - start))
    except EdgeflError as exc:
        return {"engine": name, "note": str(exc)}
    engine = f"{trainer.backend.name} {trainer.backend.version}"
    return {
        "engine": engine,
        "median_ms": round(statistics.median(times[3:]), 3),
        "min_ms": round(min(times[3:]), 3),
        "note": "",
    }
