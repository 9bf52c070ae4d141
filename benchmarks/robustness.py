# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.robustness`: what a federation learns while a fifth of its devices lie.

Movements of a watch's wearer (package `seglearn`) and scikit-learn's images of digits, dealt out to ten
devices evenly and by class; every aggregation rule against every attack, in simulations. `--keep` writes
`benchmarks/results/robustness.json` and the tables of `docs/robustness.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import edgefl
from benchmarks.codec import machine
from benchmarks.tables import between, markdown
from edgefl.bundle import Bundle
from edgefl.cli.demo.models import torch_model
from edgefl.cli.payload.datasets import Data, watch
from edgefl.data import Examples
from edgefl.delta import Encoded, encode
from edgefl.errors import NotFinite
from edgefl.options import CodingOptions
from edgefl.parameters import Arrays, Schema, Vector
from edgefl.runtime import Trainer
from edgefl.simulation import Plan, RoundRow, divide, simulate
from edgefl.wire import Training

RESULT = Path(__file__).parent / "results" / "robustness.json"
DOCS = Path(__file__).parents[1] / "docs" / "robustness.md"
DEVICES, ATTACKERS, LAST = 10, 0.2, 3

ATTACKS = ("", "sign-flip", "scale:10", "scale:-10", "scale:-100", "label-flip")
RULES: Mapping[str, Mapping[str, Any]] = {
    "mean, no bound": {"norm_bound": 0.0},
    "mean (default)": {},
    "median": {"aggregator": "median"},
    "trimmed-mean": {"aggregator": "trimmed-mean"},
    "krum": {"aggregator": "krum"},
    "multi-krum": {"aggregator": "multi-krum"},
    "geometric-median": {"aggregator": "geometric-median"},
}
PARTITIONS = {"iid": "dealt out evenly", "dirichlet:1": "by class, Dirichlet(1)"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Something to learn; accuracy is the mean over the last rounds."""

    load: Callable[[], Data]
    model: Callable[[int], Any]
    training: Training
    rounds: int
    batch: int


def digits() -> Data:
    """1,797 images of 8 x 8, a fifth held out."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    order = np.random.default_rng(0).permutation(len(raw.target))
    x = (raw.images[order] / 16).astype(np.float32)[:, None]
    y = raw.target[order].astype(np.int32)
    return Data(Examples(x[360:], y[360:]), Examples(x[:360], y[:360]))


def digits_model(seed: int) -> Any:
    import torch

    torch.manual_seed(seed)
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)
    )


TASKS = {
    "watch": Task(watch, torch_model, Training.of(lr=0.05, momentum=0.9, steps=5, mode="float32"), 30, 16),
    "digits": Task(digits, digits_model, Training.of(lr=0.1, momentum=0.5, steps=5, mode="float32"), 30, 16),
}


@lru_cache(maxsize=8)
def prepared(name: str, seed: int) -> tuple[Bundle, Data]:
    """The untrained model and the data."""
    task = TASKS[name]
    data = task.load()
    example = np.asarray(data.test.x)[: task.batch]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = edgefl.convert(task.model(seed), example, batch_size=task.batch, targets=("onnx",), name=name)
    return made, data


def plainly(
    delta: Vector, coding: CodingOptions, *, schema: Schema, base_version: int, meta: Any, **_: Any
) -> tuple[Encoded, None]:
    """As mode float32 codes it, but with nothing tried to make the frame shorter."""
    made = encode(
        delta, schema_id=schema.id, base_version=base_version, mode=coding.mode, meta=meta, coders=()
    )
    return made, None


def accuracy(name: str, partition: str, attack: str, rule: str, seed: int) -> float:
    """In percent; what guessing gives where the model is destroyed."""
    task, (bundle, data) = TASKS[name], prepared(name, seed)
    plan = Plan(
        rounds=task.rounds,
        training=task.training,
        seed=seed,
        attack=attack,
        attackers=ATTACKERS,
        **RULES[rule],
    )
    trainer, found = Trainer(bundle, "onnx"), list[float]()

    def measure(row: RoundRow, parameters: Arrays) -> None:
        if row.round > task.rounds - LAST:
            trainer.rebase(parameters)
            found.append(trainer.evaluate(data.test.x, data.test.y).accuracy or 0.0)

    devices = divide(data.train, DEVICES, partition, seed)
    try:
        simulate(bundle, devices, plan, backend="onnx", code=plainly, on_round=measure)
    except NotFinite:
        # Nobody could train from what was published.
        found += [1 / len(np.unique(data.test.y))] * LAST
    return 100 * statistics.fmean(found[-LAST:])


def rows(tasks: Sequence[str], seeds: int) -> Iterator[Row]:
    """Means over seeds."""
    for name, partition in product(tasks, PARTITIONS):
        for attack, rule in product(ATTACKS, RULES):
            reached = [accuracy(name, partition, attack, rule, seed) for seed in range(seeds)]
            mean = statistics.fmean(reached)
            yield {
                "task": name,
                "partition": partition,
                "attack": attack or "none",
                "rule": rule,
                "accuracy": round(mean, 2),
                "lowest": round(min(reached), 2),
                "seeds": seeds,
            }
            print(f"{name} {partition} {attack or 'none'} {rule}: {mean:.1f}", file=sys.stderr, flush=True)


def tables(found: Sequence[Row]) -> str:
    """One table per task and partition: attacks down, rules across."""
    parts = []
    for name, partition in product(dict.fromkeys(r["task"] for r in found), PARTITIONS):
        mine = {
            (r["attack"], r["rule"]): r for r in found if (r["task"], r["partition"]) == (name, partition)
        }
        honest = mine["none", "mean (default)"]["accuracy"]
        lines = [
            [attack or "none", *(_cell(mine[attack or "none", rule]["accuracy"], honest) for rule in RULES)]
            for attack in ATTACKS
        ]
        parts.append(f"*{name}, {PARTITIONS[partition]}*\n\n{markdown(['attack', *RULES], lines)}")
    return "\n\n".join(parts)


def _cell(value: float, honest: float) -> str:
    return f"{value:.1f}" if value >= honest - 5 else f"**{value:.1f}**"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robustness", description=__doc__)
    parser.add_argument("--task", choices=[*TASKS], action="append", help="only this one; may be repeated")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="write results and the docs' tables")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    found = list(rows(options.task or [*TASKS], options.seeds))
    report = {"machine": machine(), "devices": DEVICES, "attackers": ATTACKERS, "rows": found}
    if options.keep:
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
        DOCS.write_text(between(DOCS.read_text(), "robustness", tables(found)))
    print(json.dumps(report, indent=1) if options.json else tables(found))


if __name__ == "__main__":
    main()
