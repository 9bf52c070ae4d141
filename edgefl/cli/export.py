# SPDX-License-Identifier: Apache-2.0
"""`edgefl export`: from a bundle to files for an app."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefl.cli.coreml import NAMES, made, write_packages
from edgefl.cli.options import AsJson, BundlePath, open_bundle
from edgefl.cli.output import err, print_json, print_line, print_rows, size
from edgefl.errors import OptionError
from edgefl.options import DataOptions

if TYPE_CHECKING:
    from edgefl.bundle import Bundle
    from edgefl.converters.deployment import Export, ExportedFile


def export(
    bundle: BundlePath,
    reading: DataOptions,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path("."),
    form: Annotated[
        list[str] | None,
        typer.Option(
            "--form",
            "-f",
            help="float32, float16 (weights in half the bytes), int8 (integer arithmetic, the default) or "
            "weights8 (weights in int8, arithmetic in float); several by comma or repeated.",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="onnx, tflite or coreml, several by comma or repeated. Default: onnx,tflite.",
        ),
    ] = None,
    io: Annotated[
        str,
        typer.Option(
            help="int8: int8 files take and give int8 too, for NPUs and microcontrollers. Otherwise float32."
        ),
    ] = "float32",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", "-d", help="Examples to measure the files on: .npz with x, and y for accuracies."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", help="Examples int8 takes its ranges from. Default: those of --data."),
    ] = None,
    coreml: Annotated[
        Path | None,
        typer.Option(
            "--coreml", help="Folder for Core ML files that train too, as an Xcode project takes them."
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="The oldest system for Core ML files: iOS16, iOS17 or iOS18.")
    ] = None,
    weights: Annotated[
        str,
        typer.Option(help="Weights of --coreml's small models: int8, int4 (from iOS18) or palette4."),
    ] = "int8",
    as_json: AsJson = False,
) -> None:
    """Write a model with its weights inside, as files for an app: float32, float16, int8, small weights.

    Each ONNX and TFLite file is run on the stock engines of this machine before it is written, and compared
    with the float model on your examples.
    """
    opened = open_bundle(bundle)
    examples_in = partial(_examples, opened, reading)
    if coreml is not None:
        examples = examples_in(calibration or data)
        _export_coreml(opened, coreml, system, weights, None if examples is None else examples.x, as_json)
        return
    options: dict[str, Any] = {
        "forms": _split(form) or ("int8",),
        "targets": _split(target) or ("onnx", "tflite"),
        "io": io,
    }
    if system is not None:
        options["system"] = system
    if "int8" in options["forms"] and data is None and calibration is None:
        raise OptionError(
            "int8 files need examples: give --data FILE or --calibration FILE, or another --form, or "
            "--coreml FOLDER"
        )
    given = examples_in(data or calibration), examples_in(calibration)
    _print(_exported(opened, *given, options), output, as_json)


def _exported(opened: Bundle, examples: Any, calibration: Any, options: dict[str, Any]) -> Export:
    import edgefl

    measured = {} if examples is None else {"labels": examples.y, "weight": examples.weight}
    with err.status("exporting ...") as status:
        return edgefl.export(
            opened,
            None if examples is None else examples.x,
            calibration=None if calibration is None else calibration.x,
            on_stage=lambda stage: status.update(f"{stage} ..."),
            **measured,
            **options,
        )


def _print(made: Export, output: Path, as_json: bool) -> None:
    output.mkdir(parents=True, exist_ok=True)
    paths = [_write(file, output) for file in made.files]
    if as_json:
        print_json(
            {
                "files": [_row(file, path) for file, path in zip(made.files, paths, strict=True)],
                "report": {"examples": made.examples, "accuracy": made.accuracy, "notes": list(made.notes)},
            }
        )
        return
    rows = [_line(file, path) for file, path in zip(made.files, paths, strict=True)]
    float_accuracy = "" if made.accuracy is None else f"; its accuracy is {made.accuracy:.1%}"
    title = f"Against the float model on {made.examples} examples{float_accuracy}"
    print_rows(title, ["file", "size", "error", "same class", "accuracy"], rows)
    print_line(_conditions(made))
    for file, path in zip(made.files, paths, strict=True):
        _print_border(file)
        for note in file.notes:
            print_line(f"Warning: {path.name}: {note}")
    for note in made.notes:
        print_line(f"Note: {note}")


def _write(file: ExportedFile, folder: Path) -> Path:
    if file.target == "coreml":
        from edgefl.bundle.archive import unpack_package

        return unpack_package(file.data, folder)
    path = folder / file.name
    path.write_bytes(file.data)
    return path


def _row(file: ExportedFile, path: Path) -> dict[str, Any]:
    tensors = [
        {
            "direction": tensor.direction,
            "name": tensor.name,
            "own": tensor.own,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            **({} if tensor.rounding is None else vars(tensor.rounding)),
        }
        for tensor in file.tensors
    ]
    return {
        "target": file.target,
        "form": file.form,
        "io": file.io,
        "file": str(path),
        "bytes": len(file.data),
        "batch": file.batch,
        "error": file.error,
        "agreement": file.agreement,
        "accuracy": file.accuracy,
        "engines": dict(file.engines),
        "release": file.release,
        "tensors": tensors,
        "warnings": list(file.notes),
    }


def _line(file: ExportedFile, path: Path) -> tuple[object, ...]:
    shares = _share(file.error), _share(file.agreement), _share(file.accuracy)
    return path, size(len(file.data)), *shares


def _conditions(made: Export) -> str:
    """What files take, and which engines they were run on."""
    batch = made.files[0].batch
    takes = "one example at a time" if batch == 1 else f"batches of {batch}: the model does not come apart"
    # XNNPACK and the built-in kernels of one release are one engine to a reader.
    engines = dict.fromkeys(name.partition(",")[0] for file in made.files for name in file.engines)
    tried = [f"tried on {', '.join(engines)}"] if engines else []
    away = ["Core ML needs an Apple system"] if any(file.target == "coreml" for file in made.files) else []
    return "; ".join([f"They take {takes}", *tried, *away])


def _print_border(file: ExportedFile) -> None:
    """What firmware must know of int8 inputs and outputs."""
    rows = [
        (t.direction, t.own, "x".join(map(str, t.shape)), f"{t.rounding.scale:.9g}", t.rounding.zero_point)
        for t in file.tensors
        if t.rounding is not None
    ]
    if rows:
        print_rows(file.name, ["", "name", "shape", "scale", "zero point"], rows)
        print_line("value = scale * (int8 - zero point)")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _split(given: Sequence[str] | None) -> tuple[str, ...]:
    """Values that were repeated, or listed with commas."""
    parts: Iterable[str] = (part.strip() for text in given or () for part in text.split(","))
    return tuple(part for part in parts if part)


def _examples(bundle: Bundle, reading: DataOptions, path: Path | None) -> Any:
    from edgefl.readers import read

    return None if path is None else read(path, bundle.manifest, reading, labelled=False)


def _export_coreml(
    opened: Bundle, folder: Path, system: str | None, weights: str, examples: Any, as_json: bool
) -> None:
    rows = write_packages(made(opened, system, weights, examples), folder)
    if as_json:
        print_json({"files": rows, "names": str(folder / NAMES)})
        return
    print_rows("", ["kind", "file", "size"], [(r["kind"], r["file"], size(r["bytes"])) for r in rows])
    print_line(f"{folder / NAMES}: names of inputs and outputs, loss scale, trained layers")
