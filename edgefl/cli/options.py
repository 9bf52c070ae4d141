# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands share, and the files they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefl.errors import BundleError, OptionError

if TYPE_CHECKING:
    from edgefl.bundle import Bundle

BundlePath = Annotated[Path, typer.Argument(help="A bundle, MODEL.edgefl.", show_default=False)]
DataPath = Annotated[
    Path,
    typer.Option(
        "--data",
        "-d",
        help="Examples: .npz with arrays x and y, or one array per input and y.",
        show_default=False,
    ),
]
ServerUrl = Annotated[
    str, typer.Argument(help="The server's URL, such as http://127.0.0.1:8017.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
BackendName = Annotated[
    str,
    typer.Option(
        "--backend",
        "-b",
        help="Engine: auto, onnx, openvino, tflite, numpy or ort-training. auto takes the first there is, "
        "of onnx and openvino the faster, and never ort-training.",
    ),
]
DelegateName = Annotated[
    str,
    typer.Option(
        "--delegate",
        help="auto (the fastest here that proves right), cpu, a name such as xnnpack, or the path of a "
        "TFLite delegate library; with options: 'cuda;device_id=1'.",
    ),
]
Density = Annotated[
    float,
    typer.Option(
        "--density", help="Part of the parameters an update carries; 0.01 is 1 %.", min=1e-6, max=1.0
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        "--mode",
        help="How updates are coded. topk sends the largest changes and keeps the rest for the next update; "
        "unbiased draws at random and forgets; others are ternary, dense8, dense4, subset, float16, float32.",
    ),
]


def byte_count(text: str) -> int:
    """Bytes from text as people write them: 20000, 20kB, 1.5MB, 16KiB."""
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "kib": 2**10, "mib": 2**20}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(text).strip().lower())
    if not found or found[2] not in units:
        raise typer.BadParameter(f"{text!r} is no size; write 20000, 20kB, 1.5MB or 16KiB")
    return int(float(found[1]) * units[found[2]])


Payload = Annotated[
    int,
    typer.Option(
        "--payload",
        parser=byte_count,
        metavar="SIZE",
        help="Longest update, such as 20kB, filled as well as it goes; in place of the density. 0: none.",
    ),
]
PerTensor = Annotated[
    bool, typer.Option("--per-tensor", help="Choose in every tensor by itself, not among all parameters.")
]
WholeBelow = Annotated[
    int, typer.Option("--whole-below", help="Send tensors with fewer elements whole.", min=0)
]
WarmUp = Annotated[
    int,
    typer.Option("--warm-up", help="Rounds over which the density falls from 25 % to --density.", min=0),
]
Correction = Annotated[
    float, typer.Option("--correction", help="Momentum correction of error feedback; 0: none.", min=0.0)
]
ResidualDecay = Annotated[
    float,
    typer.Option("--residual-decay", help="What stays of a residual per version missed.", min=0.0, max=1.0),
]
Downlink = Annotated[
    float,
    typer.Option(
        "--downlink",
        help="Part of a version's step, in squared length, that may wait for the next ones: more makes what "
        "devices fetch shorter. 0: whole float32 models.",
        min=0.0,
        max=0.99,
    ),
]


def open_bundle(path: Path) -> Bundle:
    """The bundle in a file, which the error names where it cannot be used."""
    from edgefl.bundle import Bundle

    try:
        return Bundle.open(path)
    except BundleError as exc:
        raise type(exc)(_placed(path, str(exc))) from exc


def check_folder(*outputs: Path | None) -> None:
    """Refuse to write into folders that do not exist before hours of work are done, not after.

    Raises:
        OptionError: a path's folder does not exist.
    """
    for path in outputs:
        if path is not None and not path.parent.is_dir():
            raise OptionError(f"cannot write {path}: there is no folder {path.parent}")


def _placed(path: Path, message: str) -> str:
    return message if str(path) in message else f"{path}: {message}"
