# SPDX-License-Identifier: Apache-2.0
"""`edgefl bench`: what your own model costs to send and to train."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefl.cli.options import AsJson, BackendName, BundlePath, open_bundle
from edgefl.cli.output import print_json, print_line, print_rows, size
from edgefl.errors import EdgeflError

if TYPE_CHECKING:
    from edgefl.bundle import Bundle
    from edgefl.parameters import Vector

MODES = ("topk", "unbiased")
DENSITIES = (0.001, 0.003, 0.01, 0.03, 0.1)


@dataclass(frozen=True)
class PayloadRow:
    """One way of sending one update: bytes of the frame, of dense float32, and how far apart they are."""

    mode: str
    density: float
    bytes: int
    times_smaller: float
    bits_per_value: float


def payload(
    bundle: BundlePath,
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="Examples to train on; the bundle's golden batch if absent."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs that make the update.", min=1)] = 1,
    backend: BackendName = "auto",
    as_json: AsJson = False,
) -> None:
    """Bytes of one update of this model, by mode and density."""
    opened = open_bundle(bundle)
    vector = _update(opened, data, epochs, backend)
    rows = [_payload_row(opened, vector, mode, density) for mode in MODES for density in DENSITIES]
    dense = 4 * len(vector)
    if as_json:
        print_json({"dense_bytes": dense, "rows": [asdict(row) for row in rows]})
        return
    print_line(f"{len(vector):,} parameters, {size(dense)} as dense float32")
    print_rows(
        "",
        ["mode", "density", "bytes", "x smaller", "bits per value"],
        [
            (r.mode, f"{r.density:.1%}", r.bytes, round(r.times_smaller, 1), round(r.bits_per_value, 2))
            for r in rows
        ],
    )


def step(
    bundle: BundlePath,
    repeats: Annotated[int, typer.Option(help="Timed steps per engine.", min=3)] = 50,
    threads: Annotated[int, typer.Option(help="Threads per engine.", min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """Milliseconds of one training step on every engine of this machine, on the golden batch."""
    from edgefl.cli.doctor import machine
    from edgefl.runtime import BACKENDS

    opened = open_bundle(bundle)
    rows = [_time_engine(opened, name, repeats, threads) for name in BACKENDS]
    if as_json:
        print_json({"machine": machine(), "threads": threads, "rows": rows})
        return
    columns = ["engine", "median ms", "fastest ms", "note"]
    print_rows(
        "", columns, [[row.get(k, "-") for k in ("engine", "median_ms", "min_ms", "note")] for row in rows]
    )


def _update(bundle: Bundle, data: Path | None, epochs: int, backend: str) -> Vector:
    """The update that training makes, on the user's examples or on the golden batch."""
    from edgefl.data import load_examples
    from edgefl.runtime import Trainer

    trainer = Trainer(bundle, backend=backend)
    if data is None:
        golden = bundle.golden()
        inputs = {spec.name: golden[spec.name] for spec in bundle.manifest.inputs}
        trainer.fit(inputs, golden["y"], epochs=epochs)
    else:
        examples = load_examples(data)
        trainer.fit(examples.x, examples.y, epochs=epochs)
    return bundle.schema().flatten(trainer.delta())


def _payload_row(bundle: Bundle, vector: Vector, mode: str, density: float) -> PayloadRow:
    from edgefl.delta import encode

    made = encode(
        vector,
        schema_id=bundle.schema().id,
        base_version=bundle.manifest.model_version,
        density=density,
        mode=mode,
        rng=0,
    )
    count = max(len(made.indices), 1)
    return PayloadRow(
        mode, density, len(made.frame), 4 * len(vector) / len(made.frame), 8 * len(made.frame) / count
    )


def _time_engine(bundle: Bundle, name: str, repeats: int, threads: int) -> dict[str, Any]:
    from edgefl.runtime import Trainer

    try:
        trainer = Trainer(bundle, backend=name, threads=threads)
        golden = bundle.golden()
        inputs = {spec.name: golden[spec.name] for spec in bundle.manifest.inputs}
        times = []
        for _ in range(repeats + 3):
            start = time.perf_counter()
            trainer.loss_and_gradients(inputs, golden["y"])
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
