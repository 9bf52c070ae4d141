# SPDX-License-Identifier: Apache-2.0
"""`edgefl train` and `edgefl evaluate`: what one device does, by hand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgefl.cli.doctor_delegates import placement_row
from edgefl.cli.options import AsJson, BundlePath, DataPath, check_folder, open_bundle
from edgefl.cli.output import print_json, print_line, progress, size
from edgefl.errors import OptionError
from edgefl.options import DataOptions, EngineOptions, FitOptions, FrameOptions


def train(
    bundle: BundlePath,
    data: DataPath,
    reading: DataOptions,
    fit: FitOptions,
    coding: FrameOptions,
    engine: EngineOptions,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the trained bundle.")] = None,
    delta: Annotated[Path | None, typer.Option("--delta", help="Write the coded update.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a bundle on local examples; write the trained bundle, the update to send, or both."""
    from edgefl import Trainer
    from edgefl.delta.asked import check_payload
    from edgefl.proof import renewed
    from edgefl.readers import read
    from edgefl.runtime.update import encode_once

    if output is None and delta is None:
        raise OptionError("give --output, --delta or both: without one, nothing of the training is kept")
    check_folder(output, delta)
    opened = open_bundle(bundle)
    examples = read(data, opened.manifest, reading)
    trainer = Trainer(opened, engine.backend, engine.delegate)
    if delta:
        check_payload(coding, opened.schema())
    steps = fit.epochs * -(-len(examples) // opened.manifest.batch_size)
    with progress("training", min(steps, fit.steps or steps), quiet=as_json) as advance:
        report = trainer.fit(
            examples.x,
            examples.y,
            fit,
            sample_weight=examples.weight,
            on_step=lambda step, loss: advance(1),
        )
    result: dict[str, object] = {
        "backend": report.backend,
        "examples": report.examples,
        "steps": report.steps,
        "seconds": round(report.seconds, 3),
        "loss_first": report.loss_first,
        "loss_last": report.loss_last,
        "placements": [placement_row(placement) for placement in report.placements],
        "passed_over": {speed.engine: speed.reason for speed in report.speeds if speed.reason},
    }
    if output:
        trained = opened.with_parameters(trainer.parameters(), opened.manifest.model_version)
        renewed(trained).save(output)
        result["bundle"] = str(output)
    if delta:
        schema, version = opened.schema(), opened.manifest.model_version
        vector = schema.flatten(trainer.delta())
        frame = encode_once(vector, coding, seed=fit.seed, schema=schema, base_version=version).frame
        delta.write_bytes(frame)
        dense = 4 * schema.size
        result |= {"delta": str(delta), "delta_bytes": len(frame), "times_smaller": dense / len(frame)}
    if as_json:
        print_json(result)
        return
    print_line(
        f"trained on {report.backend}: {report.steps} steps over {report.examples} examples in "
        f"{report.seconds:.2f} s, loss {report.loss_first:.4f} -> {report.loss_last:.4f}"
    )
    for placement in report.placements:
        print_line(str(placement))
    for speed in report.speeds:
        if speed.reason:
            print_line(f"not on {speed.engine}: {speed.reason}")
    if output:
        print_line(f"bundle  {output}")
    if delta:
        count = delta.stat().st_size
        print_line(
            f"update  {delta}  {size(count)}, {4 * opened.schema().size / count:.0f} x smaller than dense"
        )


def evaluate(
    bundle: BundlePath,
    data: DataPath,
    reading: DataOptions,
    engine: EngineOptions,
    as_json: AsJson = False,
) -> None:
    """Loss and accuracy of a bundle on examples; means by the array `weight`, where the file has one."""
    from edgefl import Trainer
    from edgefl.readers import read

    opened = open_bundle(bundle)
    examples = read(data, opened.manifest, reading)
    trainer = Trainer(opened, engine.backend, engine.delegate)
    metrics = trainer.evaluate(examples.x, examples.y, examples.weight)
    if as_json:
        print_json(asdict(metrics))
        return
    accuracy = "" if metrics.accuracy is None else f", accuracy {metrics.accuracy:.1%}"
    left_out = len(examples) - metrics.examples
    how = ", weighted" if metrics.weighted else ""
    how += f", {left_out} of weight 0 left out" if left_out else ""
    print_line(f"{metrics.examples} examples{how}: loss {metrics.loss:.4f}{accuracy}")
