# SPDX-License-Identifier: Apache-2.0
"""The demo from beginning to end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgefl.bundle import Bundle
from edgefl.cli.demo import yardsticks
from edgefl.cli.demo.federation import Federation, Setting
from edgefl.cli.demo.live import Board, Row
from edgefl.cli.demo.models import make_model
from edgefl.cli.demo.picture import Curves, draw
from edgefl.cli.demo.recipe import BATCH, PAIRS, Recipe
from edgefl.cli.demo.watch import Recordings, Split, load_recordings, split
from edgefl.cli.demo.workers import Yardsticks
from edgefl.cli.demo.yardsticks import Accuracies
from edgefl.cli.output import err


@dataclass(frozen=True)
class Outcome:
    """What the demo found.

    Attributes:
        pairs: accuracies for each pair of held-out people; the first pair's federation ran over HTTP.
        rows: the live federation's rounds.
    """

    pairs: Sequence[Accuracies]
    rows: Sequence[Row]
    bundle: Path
    picture: Path
    devices: int
    accepted: int
    source: str
    seconds: float

    def mean(self, what: str) -> float:
        """Accuracy averaged over all pairs; of int8, the worse of the two files."""
        values = [min(p.int8.values()) if what == "int8" else getattr(p, what) for p in self.pairs]
        return float(sum(values) / len(values))

    def to_json(self) -> dict[str, Any]:
        return {
            "devices": self.devices,
            "devices_per_round": self.rows[0].devices,
            "rounds": len(self.rows),
            "accuracy_federated": self.mean("federated"),
            "accuracy_central": self.mean("central"),
            "accuracy_int8": self.mean("int8"),
            "bytes_up": sum(r.bytes_up for r in self.rows),
            "bytes_down": sum(r.bytes_down for r in self.rows),
            "bytes_up_dense": sum(r.bytes_dense for r in self.rows),
            "seconds": round(self.seconds, 1),
            "updates_accepted": self.accepted,
            "source": self.source,
            "bundle": str(self.bundle),
            "picture": str(self.picture),
            "pairs": [asdict(p) for p in self.pairs],
            "curve": [r.accuracy for r in self.rows],
        }


@dataclass(frozen=True)
class Options:
    """What the user may choose."""

    source: str
    out: Path
    device_python: str
    recipe: Recipe
    pairs: int
    seed: int
    crash_at: int | None


def run(options: Options, folder: Path) -> Outcome:
    """Convert, federate over HTTP, compare, draw.

    Files for the user go to `options.out`, databases and logs to `folder`.
    """
    started = time.perf_counter()
    data = load_recordings()
    pairs = PAIRS[: options.pairs]
    live = split(data, pairs[0])
    bundle = _convert(options, live)
    options.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(
        folder, bundle, live, options.recipe, options.seed, options.device_python, options.crash_at
    )
    federation = Federation(setting)
    with Yardsticks(federation.initial, pairs, options.recipe, options.seed, data) as others:
        with federation, Board(options.recipe.rounds).shown() as board:
            rows = []
            for row in federation.rows():
                board.add(row)
                rows.append(row)
            final, accepted = federation.final(), federation.accepted()
        results = _compare(options, data, final, others)
    path, picture = options.out / "watch.edgefl", options.out / "demo.png"
    final.save(path)
    draw(_curves(rows, len(live.devices), results[0]), picture)
    return Outcome(
        results,
        rows,
        path,
        picture,
        len(live.devices),
        accepted,
        options.source,
        time.perf_counter() - started,
    )


def _convert(options: Options, live: Split) -> Bundle:
    from edgefl.converters import convert

    err.print(f"[bold]1[/] converting the {options.source} model to ONNX and TFLite")
    x = next(iter(live.devices.values()))[0]
    bundle = convert(make_model(options.source, options.seed), x[:1], batch_size=BATCH, name="watch")
    count = len(live.devices)
    err.print(f"[bold]2[/] a server and {count} devices as processes, half on onnxruntime, half on LiteRT")
    return bundle


def _compare(options: Options, data: Recordings, final: Bundle, others: Yardsticks) -> list[Accuracies]:
    """What came of every pair, central training and int8 files beside it."""
    from edgefl.converters import export_int8

    pairs = PAIRS[: options.pairs]
    err.print(f"[bold]3[/] the same budget in one place, for {len(pairs)} pairs of held-out people")
    results = []
    with err.status("training the yardsticks ..."):
        for pair in pairs:
            central, simulated = others.of(pair)
            made, part = simulated or final, split(data, pair)
            int8 = export_int8(made, yardsticks.calibration(part, options.seed)).files
            if simulated is None:
                _save_int8(options.out, int8)
            results.append(
                Accuracies(
                    pair,
                    len(part.test[1]),
                    yardsticks.accuracy(made, part),
                    central,
                    yardsticks.int8_accuracy(dict(int8), part),
                )
            )
    return results


def _save_int8(out: Path, files: Any) -> None:
    for target, data in files.items():
        (out / f"watch-int8.{target}").write_bytes(data)


def _curves(rows: Sequence[Row], devices: int, first: Accuracies) -> Curves:
    dense = sum(r.bytes_dense for r in rows) // len(rows)
    return Curves(
        title=f"Exercises learned on {devices} watches; nobody's motion data leaves a watch",
        accuracy=[r.accuracy for r in rows],
        final=first.federated,
        central=first.central,
        bytes_up=[r.bytes_up for r in rows],
        dense_up=dense,
    )
