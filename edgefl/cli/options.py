# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BundlePath = Annotated[Path, typer.Argument(help="A bundle, MODEL.edgefl.", show_default=False)]
DataPath = Annotated[
    Path, typer.Option("--data", "-d", help="Examples: .npz with arrays x and y.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
BackendName = Annotated[str, typer.Option("--backend", "-b", help="Engine: auto, onnx, tflite or numpy.")]
DelegateName = Annotated[
    str, typer.Option("--delegate", help="auto, cpu, or the path of a TFLite delegate library.")
]
Density = Annotated[
    float, typer.Option("--density", help="Part of the parameters an update carries.", min=1e-6, max=1.0)
]
Mode = Annotated[str, typer.Option("--mode", help="Payload mode: topk or unbiased.")]
