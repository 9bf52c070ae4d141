# SPDX-License-Identifier: Apache-2.0
"""`edgefl selftest`: whether this machine computes what every machine computes."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from edgefl import __version__
from edgefl.cli.coreml import with_coreml_files
from edgefl.cli.options import AsJson, open_bundle
from edgefl.cli.output import print_json, print_line, print_rows

if TYPE_CHECKING:
    from edgefl.runtime.host import HostEngine

Tested = Annotated[
    Path,
    typer.Argument(
        help="A folder of conformance vectors, or a bundle with Core ML files.", show_default=False
    ),
]


def selftest(tested: Tested, as_json: AsJson = False) -> None:
    """Replay conformance vectors on this machine, or run a bundle's Core ML files (macOS).

    Vectors are in tests/conformance/vectors of a checkout: tensors, frames of the codec and whole rounds, on
    NumPy, and on a Mac with coremltools on Core ML too. Core ML files are compared with NumPy on the bundle's
    golden batch. Status 1 says that something is not as expected.
    """
    tried = _vectors if tested.is_dir() else _coreml
    if not tried(tested, as_json):
        raise typer.Exit(1)


def _vectors(folder: Path, as_json: bool) -> bool:
    from edgefl.runtime.host.conformance import replay

    engine = _engine()
    results = replay(folder, engine)
    right = sum(not result.wrong for result in results)
    machine = {
        "edgefl": __version__,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "engine": "numpy" if engine is None else engine.describe(),
    }
    if as_json:
        told = [asdict(result) for result in results]
        print_json({**machine, "vectors": len(results), "as_expected": right, "results": told})
    else:
        rows = [(result.kind, result.name, result.wrong or "as expected") for result in results]
        print_rows("Conformance vectors", ["kind", "name", "result"], rows)
        print_line(", ".join(f"{name} {value}" for name, value in machine.items()))
        print_line(f"{right} of {len(results)} vectors as expected")
    return right == len(results)


def _engine() -> HostEngine | None:
    """Core ML where it can be had; everything else here is measured by `edgefl verify`."""
    if sys.platform != "darwin":
        return None
    from edgefl.converters.targets.coreml.selftest import MacEngine
    from edgefl.errors import MissingDependency

    try:
        return MacEngine()
    except MissingDependency:
        return None


def _coreml(bundle: Path, as_json: bool) -> bool:
    from edgefl.converters.targets.coreml.selftest import on_device
    from edgefl.converters.targets.coreml.selftest import selftest as outcomes

    found = list(outcomes(with_coreml_files(open_bundle(bundle)), on_device))
    if as_json:
        print_json({"outcomes": [asdict(outcome) for outcome in found]})
    else:
        rows = [
            (o.kind, o.units, "-" if o.difference is None else f"{o.difference:.2g}", o.verdict)
            for o in found
        ]
        print_rows("Core ML on the golden batch", ["kind", "units", "difference", "verdict"], rows)
    return all(outcome.verdict == "agrees" for outcome in found)
