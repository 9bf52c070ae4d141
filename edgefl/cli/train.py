# SPDX-License-Identifier: Apache-2.0
"""`edgefl train` and `edgefl evaluate`: what one device does, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefl.cli.options import AsJson, BackendName, BundlePath, DataPath, DelegateName, Density, Mode
from edgefl.cli.output import out, print_json, print_rows, progress, size


def train(
    bundle: BundlePath,
    data: DataPath,
    epochs: Annotated[int, typer.Option(help="Passes over the examples.", min=1)] = 1,
    lr: Annotated[float | None, typer.Option(help="Learning rate; the bundle's default if absent.")] = None,
    momentum: Annotated[float, typer.Option(help="SGD momentum.", min=0.0, max=1.0)] = 0.0,
    seed: Annotated[int, typer.Option(help="Order of the examples.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the trained bundle.")] = None,
    delta: Annotated[Path | None, typer.Option("--delta", help="Write the coded update.")] = None,
    density: Density = 0.01,
    mode: Mode = "topk",
    backend: BackendName = "auto",
    delegate: DelegateName = "auto",
    as_json: AsJson = False,
) -> None:
    """Train a bundle on local examples; write the trained bundle, the update to send, or both."""
    from edgefl import Bundle, Trainer, encode_delta
    from edgefl.data import load_examples

    opened = Bundle.open(bundle)
    examples = load_examples(data)
    trainer = Trainer(opened, backend=backend, delegate=delegate)
    steps = epochs * -(-len(examples.y) // opened.manifest.batch_size)
    with progress("training", steps, quiet=as_json) as advance:
        report = trainer.fit(
            examples.x,
            examples.y,
            epochs=epochs,
            lr=lr,
            momentum=momentum,
            seed=seed,
            on_step=lambda step, loss: advance(1),
        )
    result: dict[str, object] = {
        "backend": report.backend,
        "examples": report.examples,
        "steps": report.steps,
        "seconds": round(report.seconds, 3),
        "loss_first": report.loss_first,
        "loss_last": report.loss_last,
    }
    if output:
        opened.with_parameters(trainer.parameters(), opened.manifest.model_version).save(output)
        result["bundle"] = str(output)
    if delta:
        frame = encode_delta(trainer.delta(), opened, mode=mode, density=density)
        delta.write_bytes(frame)
        dense = 4 * opened.schema().size
        result |= {"delta": str(delta), "delta_bytes": len(frame), "times_smaller": dense / len(frame)}
    if as_json:
        print_json(result)
        return
    out.print(
        f"trained on {report.backend}: {report.steps} steps over {report.examples} examples in "
        f"{report.seconds:.2f} s, loss {report.loss_first:.4f} -> {report.loss_last:.4f}"
    )
    if output:
        out.print(f"bundle  {output}")
    if delta:
        count = delta.stat().st_size
        out.print(
            f"update  {delta}  {size(count)}, {4 * opened.schema().size / count:.0f} x smaller than dense"
        )


def evaluate(
    bundle: BundlePath,
    data: DataPath,
    backend: BackendName = "auto",
    delegate: DelegateName = "auto",
    as_json: AsJson = False,
) -> None:
    """Loss and accuracy of a bundle on examples."""
    from edgefl import Bundle, Trainer
    from edgefl.data import load_examples

    examples = load_examples(data)
    metrics = Trainer(Bundle.open(bundle), backend=backend, delegate=delegate).evaluate(
        examples.x, examples.y
    )
    row = {"examples": metrics.examples, "loss": metrics.loss, "accuracy": metrics.accuracy}
    if as_json:
        print_json(row)
    else:
        print_rows("", list(row), [["-" if v is None else v for v in row.values()]])
