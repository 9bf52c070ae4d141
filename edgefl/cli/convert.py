# SPDX-License-Identifier: Apache-2.0
"""`edgefl convert` and `edgefl export`: from a model to a bundle, from a bundle to an app."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefl.cli.options import AsJson, BundlePath
from edgefl.cli.output import err, out, print_json, print_rows, size
from edgefl.errors import DataShape

if TYPE_CHECKING:
    from edgefl.bundle import Bundle

Model = Annotated[
    str,
    typer.Argument(
        help="A .keras file, module.py:factory, a .pt2 program or an .onnx file.", show_default=False
    ),
]
Calibration = Annotated[
    Path | None, typer.Option("--calibration", help="Examples (.npz with x) for the int8 model.")
]


def convert(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write.")] = Path(
        "model.edgefl"
    ),
    input_shape: Annotated[
        str | None, typer.Option(help="Shape of one example, such as 100,6, where the model does not say.")
    ] = None,
    input_dtype: Annotated[str, typer.Option(help="Dtype of the input given by --input-shape.")] = "float32",
    loss: Annotated[
        str, typer.Option(help="Loss by name; see the README for the list.")
    ] = "softmax_cross_entropy",
    trainable: Annotated[
        str, typer.Option(help="What to train: all, last:N, bias, or patterns such as 'head.*,!*.bias'.")
    ] = "all",
    personal: Annotated[str, typer.Option(help="Trained, but never sent: patterns of names.")] = "",
    batch_size: Annotated[int, typer.Option(help="Examples per step (static).", min=1)] = 16,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="onnx or tflite; repeat for several. Default: both."),
    ] = None,
    calibration: Calibration = None,
    name: Annotated[str | None, typer.Option(help="The bundle's name; the file's stem if absent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a model into an edge training bundle."""
    import edgefl

    with err.status("converting ..."):
        bundle = edgefl.convert(
            model,
            _example(input_shape, input_dtype),
            loss=loss,
            trainable=trainable,
            personal=personal,
            batch_size=batch_size,
            targets=tuple(target or ("onnx", "tflite")),
            calibration=_examples(calibration),
            name=name or output.stem,
        )
    bundle.save(output)
    if as_json:
        print_json({"bundle": str(output), "bytes": output.stat().st_size, "report": bundle.manifest.report})
    else:
        _print_report(bundle, output)


def export(
    bundle: BundlePath,
    calibration: Annotated[Path, typer.Option("--calibration", help="Examples: .npz with x (and y).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path("."),
    target: Annotated[list[str] | None, typer.Option("--target", "-t", help="onnx or tflite.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the int8 model an app drops in, calibrated on your examples."""
    import edgefl
    from edgefl import Bundle

    opened = Bundle.open(bundle)
    with err.status("quantizing ..."):
        made = edgefl.export_int8(opened, _examples(calibration), targets=tuple(target or ("onnx", "tflite")))
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for kind, data in made.files.items():
        path = output / f"{opened.manifest.name}-int8.{kind}"
        path.write_bytes(data)
        rows.append({"target": kind, "file": str(path), "bytes": len(data)})
    report = made.report.to_json()
    if as_json:
        print_json({"files": rows, "report": report})
        return
    print_rows(
        "",
        ["target", "file", "size"],
        [(r["target"], r["file"], size(len(made.files[str(r["target"])]))) for r in rows],
    )
    print_rows("int8 against float", list(report), [list(report.values())])


def _example(shape: str | None, dtype: str) -> Any:
    import numpy as np

    if shape is None:
        return None
    try:
        sizes = tuple(int(n) for n in shape.replace("x", ",").split(",") if n)
    except ValueError:
        raise DataShape(
            f"--input-shape {shape!r} is no list of sizes; give one example's shape, as in 100,6"
        ) from None
    return np.zeros((1, *sizes), dtype)


def _examples(path: Path | None) -> Any:
    from edgefl.data import load_examples

    return None if path is None else load_examples(path).x


def _print_report(bundle: Bundle, output: Path) -> None:
    manifest = bundle.manifest
    out.print(
        f"[bold]{output}[/]  {size(output.stat().st_size)}, {manifest.loss}, batch {manifest.batch_size}"
    )
    roles: dict[str, list[int]] = {}
    for p in manifest.parameters:
        roles.setdefault(p.role, []).append(p.size)
    print_rows("parameters", ["role", "tensors", "elements"], [(r, len(s), sum(s)) for r, s in roles.items()])
    print_rows(
        "artifacts",
        ["target", "kind", "size"],
        [(a.target, a.kind, size(a.size)) for a in manifest.artifacts],
    )
    for key, value in manifest.report.items():
        if not isinstance(value, dict | list):
            out.print(f"{key}: {value}")
