# SPDX-License-Identifier: Apache-2.0
"""`edgefl doctor`: what this machine can do, and what is missing for the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgefl import __version__
from edgefl.cli.doctor_artifacts import file_row, files, show_files
from edgefl.cli.doctor_delegates import delegate_rows, placement_rows, show_delegates, show_placements
from edgefl.cli.doctor_engines import engine_speeds, show_speeds, speed_row
from edgefl.cli.options import AsJson, open_bundle
from edgefl.cli.output import print_json, print_line, print_rows
from edgefl.requirements import newest_python, pip_install


@dataclass(frozen=True)
class Part:
    """One optional package: the role it plays, where it comes from, and whether it is here.

    Attributes:
        role: completes "to ...".
        distributions: packages that may bring the module, the one to install first.
        extra: what else the role needs, as an extra of the distribution.
    """

    role: str
    module: str
    distributions: tuple[str, ...]
    extra: str = ""

    def version(self) -> str | None:
        """Installed version, or None."""
        package, *inner = self.module.split(".")
        spec = importlib.util.find_spec(package)
        if spec is None or (inner and not Path(spec.origin or "").with_name(inner[0]).exists()):
            return None
        for name in self.distributions:
            try:
                return f"{name} {importlib.metadata.version(name)}"
            except importlib.metadata.PackageNotFoundError:
                continue
        return "unknown version"

    def advice(self) -> str:
        """What to do where it is missing."""
        newest = newest_python(self.distributions[0])
        if newest and sys.version_info[:2] > newest:
            limit = ".".join(map(str, newest))
            return f"no wheel for Python {platform.python_version()}: needs {limit} or older"
        return pip_install(self.distributions[0], self.extra)


PARTS = (
    Part(
        "train on ONNX",
        "onnxruntime",
        ("onnxruntime", "onnxruntime-training-cpu", "onnxruntime-gpu", "onnxruntime-training"),
    ),
    Part("train on OpenVINO", "openvino", ("openvino",)),
    Part("train on TFLite", "ai_edge_litert", ("ai-edge-litert",)),
    Part("train on older TFLite", "tflite_runtime", ("tflite-runtime",)),
    Part(
        "train on ort-training",
        "onnxruntime.training",
        ("onnxruntime-training-cpu", "onnxruntime-training"),
    ),
    Part("train with NumPy alone", "numpy", ("numpy",)),
    Part("convert Keras models", "tensorflow", ("tensorflow", "tensorflow-cpu"), "keras"),
    Part("convert PyTorch models", "torch", ("torch",), "torch"),
    Part("convert ONNX files", "onnx", ("onnx",)),
    Part("write Core ML models", "coremltools", ("coremltools",)),
    Part("code payloads by zstandard", "zstandard", ("zstandard",)),
    Part("serve", "fastapi", ("fastapi",), "server"),
    Part("read the demo's data", "seglearn", ("seglearn",), "sim"),
    Part("draw", "matplotlib", ("matplotlib",)),
)


EXTRAS = {part.module: part.extra for part in PARTS} | {
    "keras": "keras",
    "tf2onnx": "keras",
    "onnxscript": "torch",
    "uvicorn": "server",
    "sqlalchemy": "server",
    "pandas": "sim",
}
"""What else is needed where a module is missing, as an extra of the distribution."""


def doctor(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            help="Also try the engines and delegates here on the files of this bundle.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what this machine can convert, train and serve, which delegates load, and what is missing for the
    rest."""
    opened = open_bundle(bundle) if bundle else None
    found = [(part, part.version()) for part in PARTS]
    delegates = delegate_rows()
    artifacts = files(opened) if opened else []
    placements = placement_rows(opened) if opened else []
    speeds = engine_speeds(opened) if opened else ()
    if as_json:
        parts = [_row(part, version) for part, version in found]
        rows = [asdict(row) for row in delegates]
        print_json(
            {
                "machine": machine(),
                "parts": parts,
                "delegates": rows,
                "files": list(map(file_row, artifacts)),
                "placements": placements,
                "speeds": list(map(speed_row, speeds)),
            }
        )
        return
    print_line("  ".join(f"{key} {value}" for key, value in machine().items()))
    print_rows(
        "",
        ["to", "package", "state"],
        [(p.role, version or "-", "ready" if version else "missing") for p, version in found],
    )
    for advice, roles in _advice(found).items():
        print_line(f"To {', '.join(roles)}: {advice}")
    show_delegates(delegates)
    if opened:
        show_files(artifacts)
        show_placements(placements)
        show_speeds(speeds)


def _advice(found: list[tuple[Part, str | None]]) -> dict[str, list[str]]:
    """Each advice once, with what it is for."""
    roles: dict[str, list[str]] = {}
    for part, version in found:
        if not version:
            roles.setdefault(part.advice(), []).append(part.role)
    return roles


def machine() -> dict[str, str]:
    """The versions a measurement or a bug report needs beside it."""
    return {
        "edgefl": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
    }


def _row(part: Part, version: str | None) -> dict[str, object]:
    advice = None if version else part.advice()
    return {"role": part.role, "module": part.module, "installed": version, "advice": advice}
