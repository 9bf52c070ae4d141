# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.personalization`: is a model of one's own better on what comes later?

Ten people's watches (package `seglearn`) learn in a simulated federation from the first three quarters of
every recording. Then each makes a model of its own, chooses among both and their mixtures on windows it held
out, and all are measured on the last quarters. Once with one model for all, once with a head for everyone.
`--keep` writes `benchmarks/results/personalization.json`, the picture, and the table of
`docs/personalization.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import edgefl
from benchmarks.codec import machine
from benchmarks.tables import between, markdown
from edgefl.bundle import Bundle
from edgefl.cli.demo.models import torch_model
from edgefl.cli.demo.recipe import BATCH
from edgefl.cli.demo.watch import CHANNELS, WINDOW, Person, load_recordings, people
from edgefl.cli.figures import ACCENT, MUTED, SECOND, finish, in_percent, new_figure, style
from edgefl.data import Examples
from edgefl.simulation import DeviceRow, Plan, simulate
from edgefl.wire import Training

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "personalization.json"
DOCS = ROOT / "docs" / "personalization.md"
PICTURE = ROOT / "docs" / "images" / "personalization.png"

HEADS = {"one for all": None, "own heads": "head.*"}
"""Parameters that stay with their device, by the name of the model."""
ROUNDS, COHORT, EPOCHS = 120, 4, 20
TRAINING = Training.of(lr=0.05, momentum=0.9, steps=8, density=0.02, validation=0.2, patience=3)
Row = dict[str, Any]


def model(personal: str | None, seed: int) -> Bundle:
    """The demo's network, untrained."""
    example = np.zeros((1, WINDOW, CHANNELS), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch_model(seed)
        return edgefl.convert(
            made, example, batch_size=BATCH, targets=("onnx",), name="watch", personal=personal
        )


def rows(everyone: dict[str, Person], seeds: int) -> Iterator[Row]:
    """One row per model, seed and person; accuracies in percent."""
    early = {name: Examples(*person.early) for name, person in everyone.items()}
    later = {name: Examples(*person.later) for name, person in everyone.items()}
    for kind, personal in HEADS.items():
        for seed in range(seeds):
            training = Training.of(**{**vars(TRAINING.fit), "seed": seed}, density=TRAINING.coding.density)
            plan = Plan(rounds=ROUNDS, cohort=COHORT, training=training, seed=seed, personalize=EPOCHS)
            done = simulate(model(personal, seed), early, plan, backend="onnx", later=later)
            found = [{"engine": done.engine, **_row(kind, seed, device)} for device in done.devices]
            print(f"{kind}, seed {seed}: {_means(found)}", file=sys.stderr, flush=True)
            yield from found


def _row(kind: str, seed: int, device: DeviceRow) -> Row:
    own = device.personal
    assert own is not None  # everyone has enough windows
    after = {one.share: 100 * (one.metrics.accuracy or 0.0) for one in own.later}
    return {
        "model": kind,
        "seed": seed,
        "person": device.device,
        "windows": device.examples,
        "held_out": own.tried[0].metrics.examples,
        "later": own.later[0].metrics.examples,
        "kind": own.kind,
        "share": own.share,
        "accuracy": {f"{share:g}": round(value, 2) for share, value in after.items()},
        "chosen": round(after[own.share], 2),
    }


COLUMNS: dict[str, Callable[[Row], float]] = {
    "federation's": lambda row: row["accuracy"]["0"],
    "personal": lambda row: row["accuracy"]["1"],
    "half each": lambda row: row["accuracy"]["0.5"],
    "chosen": lambda row: row["chosen"],
}


def _means(found: Iterable[Row]) -> dict[str, float]:
    kept = list(found)
    return {name: round(statistics.fmean(map(of, kept)), 2) for name, of in COLUMNS.items()}


def table(found: Sequence[Row]) -> str:
    """One line per person, means over seeds."""
    lines = []
    for person in [*dict.fromkeys(row["person"] for row in found), "mean"]:
        mine = [row for row in found if person in (row["person"], "mean")]
        shared = [row for row in mine if row["model"] == "one for all"]
        heads = [row for row in mine if row["model"] != "one for all"]
        chose = Counter(row["kind"] for row in shared)
        means = _means(shared)
        lines.append(
            [
                person,
                shared[0]["later"] if person != "mean" else "",
                *(f"{value:.1f}" for value in means.values()),
                ", ".join(f"{kind} {count}" for kind, count in chose.most_common()),
                *(f"{_means(heads)[name]:.1f}" for name in ("federation's", "chosen")),
            ]
        )
    head = ["", "windows", *COLUMNS, "chose", "own heads", "own heads, chosen"]
    return markdown(head, lines)


def draw(found: Sequence[Row], path: Path) -> None:
    """What everyone gains, person by person."""
    figure = new_figure((9, 3.6))
    axes = figure.subplots()
    style(axes, "accuracy on each person's own later recordings", "person")
    names = list(dict.fromkeys(row["person"] for row in found))
    shared = [row for row in found if row["model"] == "one for all"]
    for column, color, marker in (
        ("federation's", MUTED, "o"),
        ("personal", SECOND, "x"),
        ("chosen", ACCENT, "s"),
    ):
        means = [_means(row for row in shared if row["person"] == name)[column] for name in names]
        axes.scatter(range(1, len(names) + 1), means, color=color, marker=marker, s=32, label=column)
    axes.set_xticks(range(1, len(names) + 1))
    in_percent(axes.yaxis)
    axes.legend(frameon=False, fontsize=8)
    finish(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.personalization", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="write results, the picture and the docs' table")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    found = list(rows(people(load_recordings()), options.seeds))
    report = {
        "versions": {"edgefl": edgefl.__version__},
        "machine": machine(),
        "rounds": ROUNDS,
        "cohort": COHORT,
        "epochs": EPOCHS,
        "training": TRAINING.to_json(),
        "rows": found,
    }
    if options.keep:
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
        DOCS.write_text(between(DOCS.read_text(), "personalization", table(found)))
        draw(found, PICTURE)
    print(json.dumps(report, indent=1) if options.json else table(found))


if __name__ == "__main__":
    main()
