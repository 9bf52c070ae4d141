# SPDX-License-Identifier: Apache-2.0
"""`edgefl convert` and `edgefl export`: from a model to a bundle, from a bundle to an app."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefl.cli import loss_options
from edgefl.cli.coreml import NAMES, made, write_packages
from edgefl.cli.options import AsJson, BundlePath, check_folder, open_bundle
from edgefl.cli.output import err, print_json, print_line, print_rows, print_warning, size
from edgefl.cli.report import print_int8, print_report
from edgefl.errors import DataShape, NotTrained, OptionError

if TYPE_CHECKING:
    from edgefl.bundle import Bundle

Model = Annotated[
    str,
    typer.Argument(
        help="A .keras file, a .pt2 program, an .onnx file, or module.py:factory, a function without "
        "arguments that returns a Keras model or a PyTorch module, alone or as (model, example inputs).",
        show_default=False,
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
        list[str] | None,
        typer.Option(
            help="Loss by name, such as softmax_cross_entropy (the default), sigmoid_cross_entropy or "
            "mean_squared_error; a name that does not exist lists them all. Or module.py:function, a "
            "callable of the model's framework. For several outputs, repeat as OUTPUT=LOSS or OUT=0.3*LOSS."
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Labels of a loss given as a callable: DTYPE[:SIZES], such as int32 or float32:3."),
    ] = None,
    trainable: Annotated[
        str,
        typer.Option(
            help="What to train and send: all, last:N (layers), bias, norm, or patterns of parameter names "
            "such as 'head.*,!*.bias'. The rest is frozen."
        ),
    ] = "all",
    personal: Annotated[str, typer.Option(help="Trained, but never sent: patterns of names.")] = "",
    batch_size: Annotated[
        int, typer.Option(help="Examples per step, fixed in the graphs; smaller batches are padded.", min=1)
    ] = 16,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="onnx (which OpenVINO runs too), tflite, coreml (coreml:iOS17 for newer systems only) or "
            "ort-training; repeat for several. Default: onnx and tflite.",
        ),
    ] = None,
    calibration: Calibration = None,
    dropout: Annotated[
        bool, typer.Option("--dropout", help="Keep dropout in training, seeded per step; off by default.")
    ] = False,
    batch_norm: Annotated[
        str,
        typer.Option(
            help="BatchNorm in training: frozen (running statistics as they are), batch (statistics of each "
            "batch, running ones updated) or group (replaced by GroupNorm)."
        ),
    ] = "frozen",
    qat: Annotated[
        bool,
        typer.Option(
            "--qat", help="Round to int8 inside training steps, so that the int8 export loses less."
        ),
    ] = False,
    frozen_bits: Annotated[
        int | None, typer.Option(help="8 or 4: store large frozen weights in so many bits.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The bundle's name; the file's stem if absent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a model into an edge training bundle."""
    import edgefl

    check_folder(output)
    example, examples = _example(input_shape, input_dtype), _examples(calibration)
    with err.status("reading the model ...") as status, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotTrained)  # printed below
        _load_tensorflow_quietly(model)
        bundle = edgefl.convert(
            model,
            example,
            loss=loss_options.losses(loss or ["softmax_cross_entropy"]),
            label=loss_options.labels(label or []),
            trainable=trainable,
            personal=personal,
            batch_size=batch_size,
            targets=tuple(target or ("onnx", "tflite")),
            calibration=examples,
            dropout=dropout,
            batch_norm=batch_norm,
            qat=qat,
            frozen_bits=frozen_bits,
            name=name or output.stem,
            on_stage=lambda stage: status.update(f"{stage} ..."),
        )
    bundle.save(output)
    if as_json:
        print_json({"bundle": str(output), "bytes": output.stat().st_size, "report": bundle.manifest.report})
    else:
        print_report(bundle, output)
    for name, why in bundle.manifest.report["untrained"].items():
        print_warning(f"not trained, though asked for: {name}: {why}")


def export(
    bundle: BundlePath,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="Examples: .npz with x (and y); int8 needs them.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path("."),
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="int8 files: onnx, tflite or, repeated, both, as without it. Core ML: --coreml.",
        ),
    ] = None,
    coreml: Annotated[
        Path | None,
        typer.Option("--coreml", help="Folder for the Core ML files that an Xcode project takes."),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="The oldest system for Core ML files: iOS16, iOS17 or iOS18.")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Weights of small Core ML models: int8, int4 (from iOS18) or palette4.")
    ] = "int8",
    as_json: AsJson = False,
) -> None:
    """Write the int8 model an app drops in, calibrated on your examples, or a bundle's Core ML files."""
    opened = open_bundle(bundle)
    if coreml is not None:
        _export_coreml(opened, coreml, system, weights, _examples(calibration), as_json)
    elif calibration is None:
        raise OptionError("export needs --calibration FILE for int8 files, or --coreml FOLDER for Core ML's")
    else:
        _export_int8(opened, calibration, output, tuple(target or ("onnx", "tflite")), as_json)


def _export_coreml(
    opened: Bundle, folder: Path, system: str | None, weights: str, examples: Any, as_json: bool
) -> None:
    rows = write_packages(made(opened, system, weights, examples), folder)
    if as_json:
        print_json({"files": rows, "names": str(folder / NAMES)})
        return
    print_rows("", ["kind", "file", "size"], [(r["kind"], r["file"], size(r["bytes"])) for r in rows])
    print_line(f"{folder / NAMES}: names of inputs and outputs, loss scale, trained layers")


def _export_int8(
    opened: Bundle, calibration: Path, output: Path, targets: tuple[str, ...], as_json: bool
) -> None:
    import edgefl

    with err.status("quantizing ..."):
        exported = edgefl.export_int8(opened, _examples(calibration), targets=targets)
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for kind, data in exported.files.items():
        path = output / f"{opened.manifest.name}-int8.{kind}"
        path.write_bytes(data)
        rows.append({"target": kind, "file": str(path), "bytes": len(data)})
    report = exported.report.to_json()
    if as_json:
        print_json({"files": rows, "report": report})
        return
    print_rows(
        "",
        ["target", "file", "size"],
        [(r["target"], r["file"], size(len(exported.files[str(r["target"])]))) for r in rows],
    )
    print_int8(report)


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
    try:
        return np.zeros((1, *sizes), dtype)
    except (TypeError, ValueError) as exc:
        raise DataShape(
            f"--input-shape {shape!r} with --input-dtype {dtype!r}: give sizes and a NumPy dtype ({exc})"
        ) from exc


def _load_tensorflow_quietly(model: str) -> None:
    """TensorFlow's C++ code logs while it is imported, whatever it is told, and the model would import it."""
    from edgefl.converters.targets.quiet import quiet

    path = Path(model.rpartition(":")[0] or model)
    if not path.is_file():
        return
    source = path.read_text("utf-8", "replace") if path.suffix == ".py" else ""
    if path.suffix == ".keras" or "keras" in source or "tensorflow" in source:
        with contextlib.suppress(ImportError), quiet():
            import tensorflow  # noqa: F401


def _examples(path: Path | None) -> Any:
    from edgefl.data import load_examples

    return None if path is None else load_examples(path).x
