# SPDX-License-Identifier: Apache-2.0
"""`edgefl convert`: from a model to a bundle."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefl.cli import loss_options
from edgefl.cli.options import AsJson, check_folder
from edgefl.cli.output import err, print_json, print_warning
from edgefl.cli.report import print_report
from edgefl.errors import DataShape, NotTrained, WrongElsewhere
from edgefl.options import DataOptions

if TYPE_CHECKING:
    pass

Model = Annotated[
    str,
    typer.Argument(
        help="A .keras file, a .pt2 program, an .onnx file, or module.py:factory, a function without "
        "arguments that returns a Keras model or a PyTorch module, alone or as (model, example inputs).",
        show_default=False,
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option("--calibration", help="Examples for the int8 model: .npz, a table, a folder."),
]


def convert(
    model: Model,
    reading: DataOptions,
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
            "such as 'head.*,!*.bias'; 'lora:rank=4:*query*:*value*' for thin factors beside weights. "
            "The rest is frozen."
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
            "ort-training; repeat for several. Default: onnx, and tflite where TensorFlow is installed.",
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
    proof: Annotated[
        bool,
        typer.Option(
            "--proof/--no-proof",
            help="Run every file on the engines of this machine, and write nothing that one gets wrong.",
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Turn a model into an edge training bundle."""
    import edgefl

    check_folder(output)
    example, examples = _example(input_shape, input_dtype), _examples(calibration, reading)
    with err.status("reading the model ...") as status, warnings.catch_warnings():
        # Printed below, the second among the report's notes.
        warnings.simplefilter("ignore", NotTrained)
        warnings.simplefilter("ignore", WrongElsewhere)
        _load_tensorflow_quietly(model)
        bundle = edgefl.convert(
            model,
            example,
            loss=loss_options.losses(loss or ["softmax_cross_entropy"]),
            label=loss_options.labels(label or []),
            trainable=trainable,
            personal=personal,
            batch_size=batch_size,
            targets=target,
            calibration=examples,
            dropout=dropout,
            batch_norm=batch_norm,
            qat=qat,
            frozen_bits=frozen_bits,
            name=name or output.stem,
            prove=proof,
            on_stage=lambda stage: status.update(f"{stage} ..."),
        )
    bundle.save(output)
    if as_json:
        print_json({"bundle": str(output), "bytes": output.stat().st_size, "report": bundle.manifest.report})
    else:
        print_report(bundle, output)
    for name, why in bundle.manifest.report["untrained"].items():
        print_warning(f"not trained, though asked for: {name}: {why}")


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


def _examples(path: Path | None, reading: DataOptions) -> Any:
    from edgefl.readers import read

    return None if path is None else read(path, None, reading, labelled=False).x
